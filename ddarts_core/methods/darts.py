"""DARTS, first and second order; the settings that most later methods start from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..ground.nested import merge
from .method import Method

SETTINGS: dict[str, Any] = {
    "search": {
        "space": "S_none",
        "sharing": "normal_reduce",
        "gates": "softmax",
        "w_zero_one": 0.0,
        "lr": 0.025,
        "batch_size": 64,
    },
    "alpha": {
        "lr": 3e-4,
        "lr_min": 3e-4,
        "schedule": "constant",
        "betas": [0.5, 0.999],
        "weight_decay": 1e-3,
        "init": "normal",
    },
    "ablation": {"loss": "none"},
    "discretise": {"rule": "darts", "threshold": 0.0},
}


def settings(**groups: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of DARTS, in which the given groups (`search`, `alpha` and so on) replace some."""
    return merge(SETTINGS, groups)


FIRST = Method(
    "two shared cells, softmax over eight operations, first order",
    "DARTS (Liu et al. 2019), first order",
    SETTINGS,
    formula="o(x) = sum_k softmax(alpha)_k o_k(x); alpha follows dL_val(w, alpha) / dalpha",
)

SECOND = Method(
    "DARTS with the unrolled (second-order) alpha gradient",
    "DARTS (Liu et al. 2019), eq. 7, 8",
    settings(search={"order": "second"}),
    formula="alpha follows dL_val(w', alpha) / dalpha, w' one SGD step after w, by a central difference",
)
