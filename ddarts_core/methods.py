"""Named methods as presets over the same parts: which settings make the loop that method. Torch-free.

A new method is one entry. Learning rates, weights and schedules are those of the method's source; a file may
override any of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from .nested import merge


@dataclass(frozen=True)
class Method:
    """A preset: what it is in one line, its source, and the settings that differ from the defaults."""

    summary: str
    source: str
    settings: Mapping[str, Any]


_DARTS = {
    "search": {
        "space": "S_none",
        "sharing": "normal_reduce",
        "relaxation": "softmax",
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

METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "ddarts": Method(
            "individual cells, sigmoid gates, zero-one loss and a centred ablation loss, one clean gradient per alpha",
            "D-DARTS sections 4.1, 4.2",
            {},
        ),
        "ddarts-published": Method(
            "replication: the gradients that the published code computes, accumulation and weight leak included",
            "D-DARTS, published code; docs/published_code.md",
            {
                "search": {"w_zero_one": 8.0},
                "alpha": {"grad_mode": "published", "weight_decay": 1e-3},
                "ablation": {"loss": "monitor", "removal": "random"},
                "discretise": {"edges_per_node": 2},
            },
        ),
        "ddarts-lf": Method(
            "individual cells with the FairDARTS loss only (the paper's L_F ablation)",
            "D-DARTS section 5.2.2",
            {"ablation": {"loss": "none"}},
        ),
        "dartopti": Method(
            "starts from a handcrafted network in the larger space, identical cells share alphas (default: ResNet18)",
            "D-DARTS section 4.4",
            {
                "search": {
                    "space": "S_o",
                    "sharing": "identical",
                    "start": "zoo:ResNet18",
                    "num_cells": 4,
                    "reductions": [1, 2, 3],
                    "channels": 32,
                    "warmup_epochs": 5,
                    "w_zero_one": 8.0,
                },
                "alpha": {"weight_decay": 5e-4},
                "retrain": {"channels": 64},
            },
        ),
        "fairdarts": Method(
            "two shared cells, sigmoid gates, zero-one loss",
            "FairDARTS (Chu et al. 2020)",
            {
                "search": {"sharing": "normal_reduce", "w_zero_one": 10.0},
                "alpha": {"schedule": "constant", "weight_decay": 1e-3},
                "ablation": {"loss": "none"},
                "discretise": {"edges_per_node": 2},
            },
        ),
        "darts": Method(
            "two shared cells, softmax over eight operations, first order",
            "DARTS (Liu et al. 2019), first order",
            _DARTS,
        ),
        "darts-second-order": Method(
            "DARTS with the unrolled (second-order) alpha gradient",
            "DARTS (Liu et al. 2019), eq. 7, 8",
            merge(_DARTS, {"search": {"order": "second"}}),
        ),
    }
)
