"""D-DARTS: individual cells and the ablation loss."""

from __future__ import annotations

from .method import Method

CLEAN = Method(
    "individual cells, sigmoid gates, zero-one loss and a centred ablation loss, one clean gradient per alpha",
    "D-DARTS sections 4.1, 4.2",
    {},
    formula="L_i = L_CE + w_01 L_01(alpha_i) + w_AB L_AB(i), M_i = L_CE(C) - L_CE(C without C_i)",
    uncertain=(
        "the paper divides by the mean of M (eq. 7), which may be near 0: the denominator is held above ablation.eps",
        "w_01 is 8 in section 5.1 and 7 in section 5.2.1",
    ),
)

PUBLISHED = Method(
    "replication: the gradients that the published code computes, accumulation and weight leak included",
    "D-DARTS, published code; docs/published_code.md",
    {
        "search": {"w_zero_one": 8.0},
        "alpha": {"grad_mode": "published", "weight_decay": 1e-3},
        "ablation": {"loss": "monitor", "removal": "random"},
        "discretise": {"edges_per_node": 2},
    },
    formula="group i sees (i + 1) g(t) + (n - 1 - i) g(t-1) + g_train(t-1) + w_01 (1 + 1/n) dL_01",
)

FAIR_LOSS = Method(
    "individual cells with the FairDARTS loss only (the paper's L_F ablation)",
    "D-DARTS section 5.2.2",
    {"ablation": {"loss": "none"}},
    formula="L_i = L_CE + w_01 L_01(alpha_i)",
)
