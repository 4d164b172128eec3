"""Pictures as a notebook shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ddarts_analysis.canvas import render
from ddarts_analysis.drawing import genotype_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ddarts_core.genotypes.genotype import AnyGenotype


def svg_of(genotype: AnyGenotype) -> str:
    """The cells of a genotype as an SVG document."""
    return svg(genotype_figure(genotype))


def svg(figure: Figure) -> str:
    """A figure as an SVG document."""
    return render(figure, ".svg").decode()
