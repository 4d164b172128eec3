"""Many searches: Ray Tune runs them, Optuna proposes them, MLflow shows them. Only this package knows of these three.

`space`, `config` and `study` import none of the three, so that reading a study is quick. `tracking` imports MLflow, and
the other modules import Ray.
"""
