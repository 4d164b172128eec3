"""DARTOpti: a handcrafted network as the start of the search."""

from __future__ import annotations

from .method import Method

METHOD = Method(
    "starts from a handcrafted network in the larger space, identical cells share alphas (default: ResNet18)",
    "D-DARTS section 4.4",
    {
        "search": {
            "space": "S_o",
            "sharing": "identical",
            "start": "zoo:ResNet18",
            "channels": 32,
            "warmup_epochs": 5,
        },
        "retrain": {"channels": 64},
    },
    formula="alpha = + margin on the operations of the start and - margin on all others, then as ddarts; w_01 = 8/n "
    "and the decay of alpha 1e-3/(n + 1) with n groups of identical cells",
    uncertain=(
        "identical cells share alphas; the paper's 'share the same weights' can also mean search.share_weights true",
    ),
)
