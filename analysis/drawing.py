"""Drawings of cells and genotypes that a paper can print.

A cell is drawn as a staircase: every node sits on the diagonal, its output runs to the right along its row, and the
column above a node collects what the node sums. Where row `source` meets column `target` stand the operations of
that edge, so labels can never overlap, with 2 operations per node or with 28 in a cell.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Rectangle

from ddarts_core.errors import UserError
from ddarts_core.genotype import Cell, Genotype

from .canvas import new_figure, render, save
from .palette import OPERATION_COLOURS, OPERATION_LABELS

# Sizes in inches.
_CHIP_WIDTH, _CHIP_HEIGHT, _CHIP_GAP = 0.74, 0.165, 0.03
_COLUMN, _ROW_PADDING, _NODE = 0.86, 0.13, 0.15
_INPUT_WIDTH, _OUTPUT_WIDTH, _TITLE = 0.62, 0.34, 0.34
_MARGIN, _GUTTER, _LEGEND_ROW = 0.15, 0.3, 0.24
_LINE, _TEXT, _REDUCTION = "#59616d", "#20262e", "#c2410c"


@dataclass(frozen=True)
class Panel:
    """One drawing of a cell and the positions in the network where it stands."""

    cell: Cell
    title: str
    reduction: bool


def panels(genotype: Genotype) -> tuple[Panel, ...]:
    """Panels of a genotype: equal cells of equal kind share one; positions count from 0.

    Example:
        >>> from ddarts_core.genotype import Edge
        >>> cell = Cell((Edge(2, 0, "skip_connect"),), concat=(2,))
        >>> [p.title for p in panels(Genotype((cell, cell, cell, cell), reductions=(1, 2)))]
        ['cells 0, 3', 'cells 1–2 · reduction']
    """
    if genotype.layout == "normal_reduce":
        return (Panel(genotype.cells[0], "normal cell", False), Panel(genotype.cells[1], "reduction cell", True))
    where: dict[tuple[Cell, bool], list[int]] = {}
    for position, cell in enumerate(genotype.cells):
        where.setdefault((cell, position in genotype.reductions), []).append(position)
    return tuple(
        Panel(
            cell,
            f"cell{'s' if len(positions) > 1 else ''} {_ranges(positions)}{' · reduction' if reduction else ''}",
            reduction,
        )
        for (cell, reduction), positions in where.items()
    )


def _ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers as text, runs shortened: 0, 3–5."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in runs)


# --- geometry -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Grid:
    """Row heights (one per node, inputs first) and number of nodes, shared by the panels of a figure."""

    rows: tuple[float, ...]

    @property
    def height(self) -> float:
        return sum(self.rows) + _TITLE

    @property
    def width(self) -> float:
        return _INPUT_WIDTH + _COLUMN * (len(self.rows) - 2) + _OUTPUT_WIDTH + 0.2

    def y(self, node: int) -> float:
        """Height of a node's row above the panel's lower edge."""
        return sum(self.rows[node + 1 :]) + self.rows[node] / 2

    def x(self, node: int) -> float:
        """Centre of the column of an intermediate node."""
        return _INPUT_WIDTH + _COLUMN * (node - 1.5) + 0.05


def _grid(cells: Iterable[Cell]) -> _Grid:
    rows: dict[int, float] = {}
    for cell in cells:
        for node in range(max(*cell.nodes, *cell.concat) + 1):
            stacks = [len(ops) for (source, _), ops in _by_edge(cell).items() if source == node]
            height = max(stacks, default=1) * (_CHIP_HEIGHT + _CHIP_GAP) + _ROW_PADDING
            rows[node] = max(rows.get(node, 2 * _NODE + 0.1), height)
    return _Grid(tuple(rows[node] for node in sorted(rows)))


def _by_edge(cell: Cell) -> dict[tuple[int, int], list[str]]:
    """Operations by (source, target)."""
    edges: dict[tuple[int, int], list[str]] = {}
    for edge in cell.edges:
        edges.setdefault((edge.source, edge.target), []).append(edge.op)
    return edges


# --- drawing --------------------------------------------------------------------------------------------------------


def _text_colour(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 0.55 else _TEXT


def _chip(ax: Axes, x: float, y: float, op: str, label: str, width: float = _CHIP_WIDTH) -> None:
    colour = OPERATION_COLOURS[op]
    ax.add_patch(
        FancyBboxPatch(
            (x - width / 2, y - _CHIP_HEIGHT / 2),
            width,
            _CHIP_HEIGHT,
            boxstyle="round,pad=0,rounding_size=0.05",
            facecolor=colour,
            edgecolor="white",
            linewidth=0.8,
            zorder=5,
        )
    )
    ax.text(x, y - 0.005, label, ha="center", va="center_baseline", fontsize=7, color=_text_colour(colour), zorder=6)


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    ax.add_patch(
        FancyArrowPatch(
            start,
            end,
            arrowstyle="-|>,head_length=3.2,head_width=1.8",
            shrinkA=0,
            shrinkB=0,
            linewidth=0.9,
            color=_LINE,
            zorder=3,
            capstyle="butt",
            joinstyle="miter",
        )
    )


def _draw_panel(ax: Axes, panel: Panel, grid: _Grid, left: float, bottom: float) -> None:
    """Draw one cell with its lower left corner at (left, bottom), all in inches."""
    cell, edges = panel.cell, _by_edge(panel.cell)
    last = len(grid.rows) - 1
    accent = _REDUCTION if panel.reduction else _TEXT
    top = bottom + grid.height
    ax.add_patch(
        FancyBboxPatch(
            (left, bottom - 0.06),
            grid.width,
            grid.height + 0.06,
            boxstyle="round,pad=0,rounding_size=0.08",
            facecolor="#fff7ed" if panel.reduction else "#f7f8fa",
            edgecolor=_REDUCTION if panel.reduction else "#d5d9e0",
            linewidth=1.0 if panel.reduction else 0.8,
            zorder=0,
        )
    )
    ax.text(left + 0.12, top - 0.18, panel.title, ha="left", va="center", fontsize=9, fontweight="bold", color=accent)
    bar = left + grid.width - _OUTPUT_WIDTH / 2 - 0.05
    _concat_bar(ax, bar, bottom + grid.y(last), bottom + grid.y(min(cell.concat)))

    for node in range(last + 1):
        y = bottom + grid.y(node)
        targets = [target for source, target in edges if source == node]
        used = bool(targets) or node in cell.concat
        if node < 2:
            x_right = left + 0.1 + _INPUT_WIDTH - 0.12
            _input_box(ax, left + 0.1, y, node, used)
        elif node in cell.nodes:
            x_right = left + grid.x(node) + _NODE
            first = min(source for source, target in edges if target == node)
            start = bottom + grid.y(first) - len(edges[first, node]) * (_CHIP_HEIGHT + _CHIP_GAP) / 2
            _arrow(ax, (left + grid.x(node), start), (left + grid.x(node), y + _NODE))
            ax.add_patch(
                Circle((left + grid.x(node), y), _NODE, facecolor="white", edgecolor=accent, linewidth=1.3, zorder=5)
            )
            ax.text(
                left + grid.x(node), y, str(node), ha="center", va="center_baseline", fontsize=8, color=_TEXT, zorder=6
            )
        else:
            continue
        if node in cell.concat:
            _arrow(ax, (x_right, y), (bar - 0.1, y))
        elif targets:
            ax.plot(
                [x_right, left + grid.x(max(targets)) - _CHIP_WIDTH / 2], [y, y], color=_LINE, linewidth=0.9, zorder=2
            )
    for (source, target), ops in edges.items():
        y = bottom + grid.y(source) + (len(ops) - 1) / 2 * (_CHIP_HEIGHT + _CHIP_GAP)
        for index, op in enumerate(ops):
            _chip(ax, left + grid.x(target), y - index * (_CHIP_HEIGHT + _CHIP_GAP), op, OPERATION_LABELS[op])


def _input_box(ax: Axes, left: float, y: float, node: int, used: bool) -> None:
    width = _INPUT_WIDTH - 0.12
    ax.add_patch(
        FancyBboxPatch(
            (left, y - _NODE),
            width,
            2 * _NODE,
            boxstyle="round,pad=0,rounding_size=0.05",
            facecolor="#e3e7ee" if used else "white",
            edgecolor=_TEXT if used else "#b6bcc6",
            linewidth=0.9,
            linestyle="-" if used else ":",
            zorder=5,
        )
    )
    ax.text(
        left + width / 2,
        y,
        ("$c_{k-2}$", "$c_{k-1}$")[node],
        ha="center",
        va="center",
        fontsize=8,
        color=_TEXT if used else "#9aa1ac",
        zorder=6,
    )


def _concat_bar(ax: Axes, x: float, low: float, high: float) -> None:
    low, high = low - _NODE, high + _NODE
    missing = 0.62 - (high - low)
    if missing > 0:
        high += missing
    ax.add_patch(
        FancyBboxPatch(
            (x - 0.1, low),
            0.2,
            high - low,
            boxstyle="round,pad=0,rounding_size=0.05",
            facecolor="#20262e",
            edgecolor="none",
            zorder=5,
        )
    )
    ax.text(
        x, (low + high) / 2, "concat $c_k$", rotation=90, ha="center", va="center", fontsize=7, color="white", zorder=6
    )


def _draw_chain(ax: Axes, genotype: Genotype, letters: Mapping[int, str], left: float, y: float, width: float) -> None:
    """The cells of the network in order, reductions marked, each with the letter of its panel."""
    step = min(0.42, width / (genotype.num_cells + 1))
    size = step * 0.72
    for position in range(genotype.num_cells):
        reduction = position in genotype.reductions
        x = left + step * position
        ax.add_patch(
            Rectangle(
                (x, y - size / 2),
                size,
                size,
                facecolor="#fff7ed" if reduction else "#f7f8fa",
                edgecolor=_REDUCTION if reduction else _TEXT,
                linewidth=1.4 if reduction else 0.9,
            )
        )
        label = letters.get(position, "…")
        ax.text(
            x + size / 2,
            y,
            label,
            ha="center",
            va="center_baseline",
            fontsize=min(8.0, size * 26),
            color=_REDUCTION if reduction else _TEXT,
        )
        if position + 1 < genotype.num_cells:
            ax.plot([x + size, x + step], [y, y], color=_LINE, linewidth=0.9)


def _draw_legend(ax: Axes, ops: Sequence[str], left: float, top: float, columns: int, pitch: float) -> None:
    for index, op in enumerate(ops):
        row, column = divmod(index, columns)
        x, y = left + pitch * column, top - _LEGEND_ROW * row
        _chip(ax, x + 0.13, y, op, "", width=0.26)
        ax.text(x + 0.32, y, op, ha="left", va="center", fontsize=7.5, color=_TEXT)


def genotype_figure(
    genotype: Genotype, *, title: str | None = None, max_cells: int | None = None, columns: int | None = None
) -> Figure:
    """The figure behind `draw_genotype`.

    Raises:
        UserError: `max_cells` or `columns` is less than 1.
    """
    if (max_cells is not None and max_cells < 1) or (columns is not None and columns < 1):
        raise UserError("a drawing shows at least one cell and has at least one column: max_cells and columns >= 1")
    everything = panels(genotype)
    return _figure(everything[:max_cells], len(everything), title=title, genotype=genotype, columns=columns)


def cell_figure(cell: Cell, *, title: str = "cell", reduction: bool = False) -> Figure:
    """The figure behind `draw_cell`."""
    return _figure((Panel(cell, title, reduction),), 1)


def _figure(
    shown: Sequence[Panel],
    total: int,
    *,
    title: str | None = None,
    genotype: Genotype | None = None,
    columns: int | None = None,
) -> Figure:
    grid = _grid(panel.cell for panel in shown)
    columns = min(len(shown), columns or (2 if len(shown) in (2, 4) else 3))
    rows = -(-len(shown) // columns)
    used = {edge.op for panel in shown for edge in panel.cell.edges}
    ops = [op for op in OPERATION_COLOURS if op in used]
    width = 2 * _MARGIN + columns * grid.width + (columns - 1) * _GUTTER
    pitch = 1.5
    legend_columns = max(1, int((width - 2 * _MARGIN) // pitch))
    legend = _LEGEND_ROW * -(-len(ops) // legend_columns) + 0.05
    chain = genotype is not None and genotype.layout == "individual"
    head = (0.32 if title else 0.0) + (0.5 if chain else 0.0) + (0.22 if len(shown) < total else 0.0)
    body = rows * (grid.height + 0.06) + (rows - 1) * _GUTTER * 0.7
    height = 2 * _MARGIN + head + body + 0.12 + legend

    figure = new_figure(width, height)
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set_xlim(0, width)
    ax.set_ylim(0, height)
    ax.set_axis_off()
    y = height - _MARGIN
    if title:
        ax.text(_MARGIN, y - 0.12, title, ha="left", va="center", fontsize=11, fontweight="bold", color=_TEXT)
        y -= 0.32
    named = [_with_letter(panel, index) if chain and len(shown) > 1 else panel for index, panel in enumerate(shown)]
    if chain and genotype is not None:
        kinds = {(panel.cell, panel.reduction): chr(ord("a") + index % 26) for index, panel in enumerate(shown)}
        letters = {
            position: kinds[key]
            for position, cell in enumerate(genotype.cells)
            if (key := (cell, position in genotype.reductions)) in kinds
        }
        _draw_chain(ax, genotype, letters, _MARGIN, y - 0.2, width - 2 * _MARGIN)
        y -= 0.5
    if len(shown) < total:
        note = f"{len(shown)} of {total} distinct cells are drawn"
        ax.text(_MARGIN, y - 0.1, note, ha="left", va="center", fontsize=8, fontstyle="italic", color=_LINE)
        y -= 0.22
    for index, panel in enumerate(named):
        row, column = divmod(index, columns)
        bottom = y - (row + 1) * (grid.height + 0.06) - row * _GUTTER * 0.7 + 0.06
        _draw_panel(ax, panel, grid, _MARGIN + column * (grid.width + _GUTTER), bottom)
    _draw_legend(ax, ops, _MARGIN, _MARGIN + legend - 0.16, legend_columns, pitch)
    for artist in (*ax.patches, *ax.lines):
        artist.set_clip_on(False)  # a clip path on every shape is a third of an SVG's bytes
    return figure


def _with_letter(panel: Panel, index: int) -> Panel:
    return Panel(panel.cell, f"{chr(ord('a') + index % 26)}   {panel.title}", panel.reduction)


def draw_genotype(
    genotype: Genotype, path: str | Path, *, title: str | None = None, max_cells: int | None = None
) -> Path:
    """Draw every distinct cell of a genotype, reductions marked, to a .svg, .png or .pdf file.

    The same genotype gives the same bytes. `max_cells` limits the panels; the drawing then says so.

    Raises:
        UserError: another suffix, or `max_cells` less than 1.
    """
    return save(genotype_figure(genotype, title=title, max_cells=max_cells), path)


def draw_cell(cell: Cell, path: str | Path, *, title: str = "cell", reduction: bool = False) -> Path:
    """Draw one cell to a .svg, .png or .pdf file.

    Raises:
        UserError: another suffix.
    """
    return save(cell_figure(cell, title=title, reduction=reduction), path)


def genotype_svg(genotype: Genotype, *, title: str | None = None, max_cells: int | None = None) -> str:
    """The drawing as a small SVG document for a page: text as text, coordinates to a tenth of a point."""
    text = render(genotype_figure(genotype, title=title, max_cells=max_cells), ".svg", outlines=False).decode()
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r' id="(?:patch|text|line2d|figure|axes)_\d+"', "", text)
    text = re.sub(r'="[^"]*"', lambda value: re.sub(r"\d+\.\d{2,}", _tenth, value[0]), text)
    return re.sub(r">\s+<", "><", " ".join(text.split()))


def _tenth(number: re.Match[str]) -> str:
    return f"{float(number[0]):.1f}".removesuffix(".0")
