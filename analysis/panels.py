"""The cells of a genotype as the panels of a drawing, and the drawing of one panel.

A cell is drawn as a staircase: every node sits on the diagonal, its output runs to the right along its row, and the
column above a node collects what the node sums. Where row `source` meets column `target` stand the operations of
that edge, so labels can never overlap, with 2 operations per node or with 28 in a cell.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch

from ddarts_core.genotype import Cell, Genotype

from .palette import colour_of, label_of

# Sizes in inches.
_CHIP_WIDTH, _CHIP_HEIGHT, _CHIP_GAP = 0.74, 0.165, 0.03
_COLUMN, _ROW_PADDING, _NODE = 0.86, 0.13, 0.15
_INPUT_WIDTH, _OUTPUT_WIDTH, _TITLE = 0.62, 0.34, 0.34

#: Colours of lines, of text, and of all that belongs to a reduction.
LINE, TEXT, REDUCTION = "#59616d", "#20262e", "#c2410c"


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
class Grid:
    """Heights of the rows, one per node, inputs first: shared by the panels of a figure. All lengths are in inches."""

    rows: tuple[float, ...]

    @property
    def height(self) -> float:
        """Height of a panel, its title included."""
        return sum(self.rows) + _TITLE

    @property
    def width(self) -> float:
        """Width of a panel."""
        return _INPUT_WIDTH + _COLUMN * (len(self.rows) - 2) + _OUTPUT_WIDTH + 0.2

    def y(self, node: int) -> float:
        """Height of a node's row above the panel's lower edge."""
        return sum(self.rows[node + 1 :]) + self.rows[node] / 2

    def x(self, node: int) -> float:
        """Centre of the column of an intermediate node."""
        return _INPUT_WIDTH + _COLUMN * (node - 1.5) + 0.05


def grid_of(cells: Iterable[Cell]) -> Grid:
    """The grid on which all these cells can be drawn."""
    rows: dict[int, float] = {}
    for cell in cells:
        for node in range(max(*cell.nodes, *cell.concat) + 1):
            stacks = [len(ops) for (source, _), ops in _by_edge(cell).items() if source == node]
            height = max(stacks, default=1) * (_CHIP_HEIGHT + _CHIP_GAP) + _ROW_PADDING
            rows[node] = max(rows.get(node, 2 * _NODE + 0.1), height)
    return Grid(tuple(rows[node] for node in sorted(rows)))


def _by_edge(cell: Cell) -> dict[tuple[int, int], list[str]]:
    """Operations by (source, target)."""
    edges: dict[tuple[int, int], list[str]] = {}
    for edge in cell.edges:
        edges.setdefault((edge.source, edge.target), []).append(edge.op)
    return edges


# --- drawing --------------------------------------------------------------------------------------------------------


def _text_colour(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 0.55 else TEXT


def _short(label: str) -> str:
    """As much of a label as a chip takes; those of the palette are whole."""
    return label if len(label) <= 11 else f"{label[:10]}…"


def draw_chip(ax: Axes, x: float, y: float, op: str, label: str, width: float = _CHIP_WIDTH) -> None:
    """Draw the coloured label of an operation around (x, y); `label` may be empty."""
    colour = colour_of(op)
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
            color=LINE,
            zorder=3,
            capstyle="butt",
            joinstyle="miter",
        )
    )


def draw_panel(ax: Axes, panel: Panel, grid: Grid, left: float, bottom: float) -> None:
    """Draw one cell with its lower left corner at (left, bottom), all in inches."""
    cell, edges = panel.cell, _by_edge(panel.cell)
    last = len(grid.rows) - 1
    accent = REDUCTION if panel.reduction else TEXT
    top = bottom + grid.height
    ax.add_patch(
        FancyBboxPatch(
            (left, bottom - 0.06),
            grid.width,
            grid.height + 0.06,
            boxstyle="round,pad=0,rounding_size=0.08",
            facecolor="#fff7ed" if panel.reduction else "#f7f8fa",
            edgecolor=REDUCTION if panel.reduction else "#d5d9e0",
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
                left + grid.x(node), y, str(node), ha="center", va="center_baseline", fontsize=8, color=TEXT, zorder=6
            )
        else:
            continue
        if node in cell.concat:
            _arrow(ax, (x_right, y), (bar - 0.1, y))
        elif targets:
            ax.plot(
                [x_right, left + grid.x(max(targets)) - _CHIP_WIDTH / 2], [y, y], color=LINE, linewidth=0.9, zorder=2
            )
    for (source, target), ops in edges.items():
        y = bottom + grid.y(source) + (len(ops) - 1) / 2 * (_CHIP_HEIGHT + _CHIP_GAP)
        for index, op in enumerate(ops):
            draw_chip(ax, left + grid.x(target), y - index * (_CHIP_HEIGHT + _CHIP_GAP), op, _short(label_of(op)))


def _input_box(ax: Axes, left: float, y: float, node: int, used: bool) -> None:
    width = _INPUT_WIDTH - 0.12
    ax.add_patch(
        FancyBboxPatch(
            (left, y - _NODE),
            width,
            2 * _NODE,
            boxstyle="round,pad=0,rounding_size=0.05",
            facecolor="#e3e7ee" if used else "white",
            edgecolor=TEXT if used else "#b6bcc6",
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
        color=TEXT if used else "#9aa1ac",
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
