"""What draws cells: boxes, lines and words in inches, by matplotlib into a file or as small SVG into a page.

A drawing is described once, by calls of a `Pen`; what is drawn later lies above. A colour is the name of an ink, which
a page has for light and for dark paper, or `#rrggbb`, which is the same on both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape
from types import MappingProxyType
from typing import Any, Literal, Protocol

from matplotlib.axes import Axes
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Patch, Rectangle

#: Colour of each ink on light paper; the report's style has the same names, and others for dark paper.
INKS: Mapping[str, str] = MappingProxyType(
    {
        "paper": "#ffffff",
        "card": "#f7f8fa",
        "edge": "#d5d9e0",
        "ink": "#20262e",
        "soft": "#59616d",
        "input": "#e3e7ee",
        "warm": "#c2410c",
        "warm-card": "#fff7ed",
    }
)

Point = tuple[float, float]
_INCH = 72


class Pen(Protocol):
    """Draws in inches from the lower left corner of the sheet."""

    def box(
        self, corner: Point, size: Point, fill: str, edge: str | None, width: float = 0.9, *, radius: float = 0.05
    ) -> None:
        """A box from its lower left corner, with rounded corners unless `radius` is 0; `edge` None is no outline."""

    def dotted(self, corner: Point, size: Point, fill: str, edge: str) -> None:
        """A box whose outline is dotted."""

    def circle(self, centre: Point, radius: float, edge: str) -> None:
        """A circle of paper with an outline."""

    def line(self, start: Point, end: Point) -> None:
        """A line in the ink of lines."""

    def arrow(self, start: Point, end: Point) -> None:
        """A line with a head at its end."""

    def write(
        self,
        place: Point,
        words: str,
        size: float,
        colour: str,
        *,
        anchor: Literal["left", "center"] = "center",
        style: Literal["", "bold", "italic"] = "",
        upright: bool = False,
        on_line: bool = True,
    ) -> None:
        """Words of a size in points; `$c_k$` has an index. `upright` turns them; `on_line` leaves out descenders."""


class MatplotlibPen:
    """Draws on axes whose unit is an inch."""

    def __init__(self, ax: Axes) -> None:
        self._ax = ax
        self._above = 0

    def _order(self) -> int:
        self._above += 1
        return self._above

    def _patch(self, patch: Patch) -> None:
        patch.set_zorder(self._order())
        self._ax.add_patch(patch)

    def box(
        self, corner: Point, size: Point, fill: str, edge: str | None, width: float = 0.9, *, radius: float = 0.05
    ) -> None:
        """See `Pen`."""
        colours: dict[str, Any] = {"facecolor": _light(fill), "edgecolor": "none" if edge is None else _light(edge)}
        if radius:
            style = f"round,pad=0,rounding_size={radius}"
            self._patch(FancyBboxPatch(corner, *size, boxstyle=style, linewidth=width, **colours))
        else:
            self._patch(Rectangle(corner, *size, linewidth=width, **colours))

    def dotted(self, corner: Point, size: Point, fill: str, edge: str) -> None:
        """See `Pen`."""
        style = "round,pad=0,rounding_size=0.05"
        colours: dict[str, Any] = {"facecolor": _light(fill), "edgecolor": _light(edge)}
        self._patch(FancyBboxPatch(corner, *size, boxstyle=style, linewidth=0.9, linestyle=":", **colours))

    def circle(self, centre: Point, radius: float, edge: str) -> None:
        """See `Pen`."""
        self._patch(Circle(centre, radius, facecolor=INKS["paper"], edgecolor=_light(edge), linewidth=1.3))

    def line(self, start: Point, end: Point) -> None:
        """See `Pen`."""
        xs, ys = zip(start, end, strict=True)
        self._ax.plot(xs, ys, color=INKS["soft"], linewidth=0.9, zorder=self._order())

    def arrow(self, start: Point, end: Point) -> None:
        """See `Pen`."""
        style = "-|>,head_length=3.2,head_width=1.8"
        shape: dict[str, Any] = {"arrowstyle": style, "shrinkA": 0, "shrinkB": 0}
        ends: dict[str, Any] = {"capstyle": "butt", "joinstyle": "miter"}
        self._patch(FancyArrowPatch(start, end, linewidth=0.9, color=INKS["soft"], **shape, **ends))

    def write(
        self,
        place: Point,
        words: str,
        size: float,
        colour: str,
        *,
        anchor: Literal["left", "center"] = "center",
        style: Literal["", "bold", "italic"] = "",
        upright: bool = False,
        on_line: bool = True,
    ) -> None:
        """See `Pen`."""
        self._ax.text(
            *place,
            words,
            ha=anchor,
            va="center_baseline" if on_line and not upright else "center",
            rotation=90 if upright else 0,
            fontsize=size,
            fontweight="bold" if style == "bold" else "normal",
            fontstyle="italic" if style == "italic" else "normal",
            color=_light(colour),
            zorder=self._order(),
        )


class SvgPen:
    """Writes SVG for a page whose style has the inks, and centres the words of a drawing at their height."""

    def __init__(self, width: float, height: float) -> None:
        self._width, self._height = width, height
        self._parts: list[str] = []

    def svg(self, label: str) -> str:
        """The drawing as one element; `label` says what it shows to those who do not see it."""
        wide, high = _points(self._width), _points(self._height)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{escape(label)}" '
            f'width="{wide}pt" height="{high}pt" viewBox="0 0 {wide} {high}">{"".join(self._parts)}</svg>'
        )

    def _at(self, place: Point) -> tuple[str, str]:
        return _points(place[0]), _points(self._height - place[1])

    def box(
        self, corner: Point, size: Point, fill: str, edge: str | None, width: float = 0.9, *, radius: float = 0.05
    ) -> None:
        """See `Pen`."""
        x, y = self._at((corner[0], corner[1] + size[1]))
        outline = "" if edge is None else f' stroke="{_themed(edge)}" stroke-width="{width}"'
        rounded = f' rx="{_points(radius)}"' if radius else ""
        self._parts.append(
            f'<rect x="{x}" y="{y}" width="{_points(size[0])}" height="{_points(size[1])}"{rounded} '
            f'fill="{_themed(fill)}"{outline}/>'
        )

    def dotted(self, corner: Point, size: Point, fill: str, edge: str) -> None:
        """See `Pen`."""
        self.box(corner, size, fill, edge)
        self._parts[-1] = self._parts[-1].replace("/>", ' stroke-dasharray="1 1.5"/>')

    def circle(self, centre: Point, radius: float, edge: str) -> None:
        """See `Pen`."""
        x, y = self._at(centre)
        self._parts.append(
            f'<circle cx="{x}" cy="{y}" r="{_points(radius)}" fill="var(--paper)" stroke="{_themed(edge)}" '
            'stroke-width="1.3"/>'
        )

    def line(self, start: Point, end: Point) -> None:
        """See `Pen`."""
        (x0, y0), (x1, y1) = self._at(start), self._at(end)
        self._parts.append(f'<path d="M{x0} {y0}L{x1} {y1}" stroke="var(--soft)" stroke-width=".9"/>')

    def arrow(self, start: Point, end: Point) -> None:
        """See `Pen`. Arrows run to the right or down."""
        self.line(start, end)
        x, y = self._at(end)
        head = "l-3.2 -1.8v3.6z" if end[0] > start[0] else "l-1.8 -3.2h3.6z"
        self._parts.append(f'<path d="M{x} {y}{head}" fill="var(--soft)"/>')

    def write(
        self,
        place: Point,
        words: str,
        size: float,
        colour: str,
        *,
        anchor: Literal["left", "center"] = "center",
        style: Literal["", "bold", "italic"] = "",
        upright: bool = False,
        on_line: bool = True,
    ) -> None:
        """See `Pen`."""
        x, y = self._at(place)
        shape = {"": "", "bold": ' font-weight="700"', "italic": ' font-style="italic"'}[style]
        shape += ' style="text-anchor:start"' if anchor == "left" else ""
        shape += f' transform="rotate(-90 {x} {y})"' if upright else ""
        index = r'<tspan dy="1.5" font-size="70%">\1</tspan>'
        seen = re.sub(r"_\{?([^}]+)\}?$", index, escape(words.replace("$", "").replace("-", "−")))
        text = seen if "$" in words else escape(words)
        self._parts.append(f'<text x="{x}" y="{y}" font-size="{size:g}" fill="{_themed(colour)}"{shape}>{text}</text>')


def _light(colour: str) -> str:
    return INKS.get(colour, colour)


def _themed(colour: str) -> str:
    return f"var(--{colour})" if colour in INKS else colour


def _points(inches: float) -> str:
    return f"{inches * _INCH:.1f}".removesuffix(".0")
