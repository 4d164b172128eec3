"""The search itself: D-DARTS and its baselines in torch, without a cluster, a tracker or a file of their own.

Modules carry the paper's words; `docs/equations.md` maps each equation to its function.
"""

__version__ = "0.1.0"
