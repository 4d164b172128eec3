"""Random search: genotypes drawn from the space of DARTS, as a search that costs what a search may cost."""

from __future__ import annotations

from . import darts
from .method import Method
from .parts import Plan, Stage


class Untrained(Plan):
    """Weights alone for all epochs: the alphas stay as they were drawn."""

    name = "weights-only"
    summary = "weights alone for all epochs; the alphas stay as they were drawn (random search)"

    def stages(self) -> tuple[Stage, ...]:
        """One warm-up that lasts for all epochs."""
        return (Stage("warmup", self.search.warmup_epochs + self.search.epochs),)


METHOD = Method(
    "a genotype drawn at random: alphas stay as the seed drew them, only the weights of the supernet are trained",
    "Li and Talwalkar 2019 (random search as a baseline of architecture search)",
    darts.settings(search={"stages": Untrained.name}),
    parts=(Untrained,),
    formula="alpha ~ 1e-3 N(0, 1), never trained: every operation of an edge and every pair of edges is as likely",
    uncertain=("the supernet is trained for search.epochs so that its score and its cost compare; 1 epoch will do",),
)
