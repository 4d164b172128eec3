"""FairDARTS: independent gates and the zero-one loss."""

from __future__ import annotations

from .method import Method

METHOD = Method(
    "two shared cells, sigmoid gates, zero-one loss",
    "FairDARTS (Chu et al. 2020)",
    {
        "search": {"sharing": "normal_reduce", "w_zero_one": 10.0},
        "alpha": {"schedule": "constant", "weight_decay": 1e-3},
        "ablation": {"loss": "none"},
        "discretise": {"edges_per_node": 2},
    },
    formula="L = L_CE - w_01 mean (sigma(alpha) - 1/2)^2 over both cells",
)
