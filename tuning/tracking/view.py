"""The view that MLflow's table of a study opens with: a shared view, which MLflow keeps as a tag of the experiment."""

from __future__ import annotations

import json
from collections.abc import Mapping

from ..settings.tune import objective_of

VIEW = "ddarts"
"""The key by which MLflow finds the view."""

TAG = f"mlflow.sharedViewState.{VIEW}"


def address(server: str, experiment_id: str, shared: bool = True) -> str:
    """The address where a server's UI shows the runs of an experiment, in the view of this module if it is `shared`.

    Without `workflowType` the UI would open in its mode for language models, where a link whose view is missing ends on
    an empty page.
    """
    key = f"&viewStateShareKey={VIEW}" if shared else ""
    return f"{server.rstrip('/')}/#/experiments/{experiment_id}/runs?workflowType=machine_learning{key}"


def view(params: Mapping[str, str]) -> str:
    """The value of the tag: objective, size, state and proposed settings of each trial, the best trial first.

    Args:
        params: the parameters of the study's run, by dotted path.
    """
    prefix, mark = "space.", ".when."
    paths = {name[len(prefix) :].rsplit(".", 1)[0] for name in params if name.startswith(prefix) and mark not in name}
    metric = params.get("tune.metric", "accuracy")
    objective = objective_of(params.get("tune.objective", "supernet"), metric)
    metrics = dict.fromkeys((objective, objective_of("supernet", metric), "parameters", "macs"))
    columns = [f"metrics.`{name}`" for name in metrics]
    columns += ["tags.`state`", "params.`method`", *(f"params.`{path}`" for path in sorted(paths))]
    chosen = {"selectedColumns": columns, "orderByKey": f"metrics.`{objective}`", "orderByAsc": False}
    return json.dumps(chosen)
