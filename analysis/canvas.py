"""Matplotlib figures without pyplot, and files of them that the same data reproduces byte for byte."""

from __future__ import annotations

import io
import textwrap
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ddarts_core.ground.errors import UserError
from ddarts_core.ground.files import write_atomic

from .palette import COLOURS, LEGEND

#: Metadata that would differ between two runs or versions, by suffix.
_METADATA: dict[str, dict[str, Any]] = {
    ".svg": {"Date": None, "Creator": None},
    ".png": {"Software": None},
    ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}

_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "ddarts",
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",
    "pdf.fonttype": 42,
}


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of this size in inches, on Agg and outside pyplot's registry."""
    figure = Figure(figsize=(width, height), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def axes(x: str, y: str, width: float = 5.2, height: float = 3.4) -> tuple[Figure, Axes]:
    """A figure with one pair of axes; epochs get whole numbers."""
    figure = new_figure(width, height)
    figure.set_layout_engine("constrained")
    ax = figure.add_subplot()
    dress(ax, x, y)
    return figure, ax


def dress(ax: Axes, x: str, y: str) -> None:
    """Labels, grid and size of the text, the same in every figure."""
    ax.set_xlabel(x, fontsize=9)
    ax.set_ylabel(y, fontsize=9)
    ax.tick_params(labelsize=8)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(True, color="#e5e7eb", linewidth=0.6)
    ax.set_axisbelow(True)
    if x == "epoch":
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))


def legend(ax: Axes) -> None:
    """A legend where something has a name.

    One of many names stands beside the axes, where it hides nothing, and the figure is as high as it needs.
    """
    handles, labels = ax.get_legend_handles_labels()
    labels = [textwrap.fill(label, LEGEND) for label in labels]
    number = len("\n".join(labels).splitlines())
    beside: dict[str, Any] = {}
    if len(labels) > len(COLOURS):
        beside = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}
        figure = ax.get_figure(root=True)
        assert figure is not None
        figure.set_figheight(max(figure.get_figheight(), 0.3 + 0.163 * number))
    if labels:
        ax.legend(handles, labels, fontsize=7.5, frameon=False, **beside)


def render(figure: Figure, suffix: str) -> bytes:
    """The figure as the bytes of a file with this suffix (.svg, .png or .pdf); an SVG looks the same everywhere.

    Raises:
        UserError: another suffix.
    """
    if suffix not in _METADATA:
        raise UserError(f"cannot write a figure as {suffix!r}: give a file name that ends in .svg, .png or .pdf")
    buffer = io.BytesIO()
    with mpl.rc_context(_STYLE):
        figure.savefig(buffer, format=suffix[1:], metadata=_METADATA[suffix])
    return buffer.getvalue()


def save(figure: Figure, path: str | Path) -> Path:
    """Write the figure to a .svg, .png or .pdf file, whole or not at all.

    Raises:
        UserError: another suffix.
    """
    target = Path(path)
    write_atomic(target, render(figure, target.suffix.lower()))
    return target
