"""Many searches: Ray Tune runs them, Optuna proposes them, MLflow shows them. The only floor that knows of these three.

`space`, `config` and `study` import none of them, so that reading a study is quick; `tracking` imports MLflow, the
others Ray.
"""
