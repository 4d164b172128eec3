"""Which settings of an experiment change nothing, because others leave them without a part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def idle(config: Mapping[str, Any]) -> set[str]:
    """Dotted paths of settings that change nothing of a trial, such as those of an ablation that is off.

    Settings of another order or another removal than the trial's change nothing either.

    Args:
        config: the resolved configuration of the trial.
    """
    ablation, search = config.get("ablation", {}), config.get("search", {})
    found = set()
    if ablation.get("loss") in ("none", "monitor"):
        found |= {"weight", "eps"}
    if ablation.get("loss") == "none":
        found |= {"every", "sample_cells"} | ({"removal"} if not ablation.get("shapley_permutations") else set())
    if ablation.get("loss") == "none" or ablation.get("removal") != "random":
        found.add("num_draws")
    return {f"ablation.{name}" for name in found} | ({"search.hessian"} if search.get("order") != "second" else set())
