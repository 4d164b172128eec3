"""The cells of a genotype as the panels of a drawing, and the drawing of one panel.

A cell is drawn as a staircase: every node sits on the diagonal, its output runs to the right along its row, and the
column above a node collects what the node sums. Where row `source` meets column `target` stand the operations of
that edge, so labels can never overlap, with 2 operations per node or with 28 in a cell.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ddarts_core.genotypes.genotype import Cell, Genotype

from .palette import colour_of, label_of
from .pens import INKS, Pen

# Sizes in inches.
_CHIP_WIDTH, _CHIP_HEIGHT, _CHIP_GAP = 0.74, 0.165, 0.03
_COLUMN, _ROW_PADDING, _NODE = 0.86, 0.13, 0.15
_INPUT_WIDTH, _OUTPUT_WIDTH, _TITLE = 0.62, 0.34, 0.34


@dataclass(frozen=True)
class Panel:
    """One drawing of a cell and the positions in the network where it stands."""

    cell: Cell
    title: str
    reduction: bool

    @property
    def words(self) -> str:
        """What the drawing shows, for those who do not see it."""
        edges = (f"{edge.source} to {edge.target} {label_of(edge.op)}" for edge in self.cell.edges)
        return f"{self.title}: {', '.join(edges)}"


def panels(genotype: Genotype) -> tuple[Panel, ...]:
    """Panels of a genotype: equal cells of equal kind share one; positions count from 0.

    Example:
        >>> from ddarts_core.genotypes.genotype import Edge
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
            f"cell{'s' if len(positions) > 1 else ''} {_ranges(positions)}{' · reduction' if reduction else ''}"
            + ("" if cell.link is None else f" · input 0 joined to cell {cell.link}"),
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
    return "#ffffff" if 0.299 * red + 0.587 * green + 0.114 * blue < 0.55 else INKS["ink"]


def _short(label: str) -> str:
    """The part of a label that fits on a chip. Labels of the palette fit as a whole."""
    return label if len(label) <= 11 else f"{label[:10]}…"


def draw_chip(pen: Pen, x: float, y: float, op: str, label: str, width: float = _CHIP_WIDTH) -> None:
    """Draw the coloured label of an operation around (x, y); `label` may be empty."""
    colour = colour_of(op)
    corner = (x - width / 2, y - _CHIP_HEIGHT / 2)
    pen.box(corner, (width, _CHIP_HEIGHT), colour, "paper", 0.8)
    if label:
        pen.write((x, y - 0.005), label, 7, _text_colour(colour))


def draw_panel(pen: Pen, panel: Panel, grid: Grid, left: float, bottom: float) -> None:
    """Draw one cell with its lower left corner at (left, bottom), all in inches."""
    cell, edges = panel.cell, _by_edge(panel.cell)
    last = len(grid.rows) - 1
    accent = "warm" if panel.reduction else "ink"
    top = bottom + grid.height
    size = (grid.width, grid.height + 0.06)
    if panel.reduction:
        pen.box((left, bottom - 0.06), size, "warm-card", "warm", 1.0, radius=0.08)
    else:
        pen.box((left, bottom - 0.06), size, "card", "edge", 0.8, radius=0.08)
    pen.write((left + 0.12, top - 0.18), panel.title, 9, accent, anchor="left", style="bold", on_line=False)
    bar = left + grid.width - _OUTPUT_WIDTH / 2 - 0.05
    _concat_bar(pen, bar, bottom + grid.y(last), bottom + grid.y(min(cell.concat)))

    for node in range(last + 1):
        y = bottom + grid.y(node)
        targets = [target for source, target in edges if source == node]
        x_right = left + 0.1 + _INPUT_WIDTH - 0.12 if node < 2 else left + grid.x(node) + _NODE
        if node >= 2 and node not in cell.nodes:
            continue
        if node in cell.concat:
            pen.arrow((x_right, y), (bar - 0.1, y))
        elif targets:
            pen.line((x_right, y), (left + grid.x(max(targets)) - _CHIP_WIDTH / 2, y))
        if node < 2:
            _input_box(pen, left + 0.1, y, node, bool(targets) or node in cell.concat)
        else:
            x = left + grid.x(node)
            first = min(source for source, target in edges if target == node)
            start = bottom + grid.y(first) - len(edges[first, node]) * (_CHIP_HEIGHT + _CHIP_GAP) / 2
            pen.arrow((x, start), (x, y + _NODE))
            pen.circle((x, y), _NODE, accent)
            pen.write((x, y), str(node), 8, "ink")
    for (source, target), ops in edges.items():
        y = bottom + grid.y(source) + (len(ops) - 1) / 2 * (_CHIP_HEIGHT + _CHIP_GAP)
        for index, op in enumerate(ops):
            draw_chip(pen, left + grid.x(target), y - index * (_CHIP_HEIGHT + _CHIP_GAP), op, _short(label_of(op)))


def _input_box(pen: Pen, left: float, y: float, node: int, used: bool) -> None:
    size = (_INPUT_WIDTH - 0.12, 2 * _NODE)
    if used:
        pen.box((left, y - _NODE), size, "input", "ink")
    else:
        pen.dotted((left, y - _NODE), size, "paper", "soft")
    name = ("$c_{k-2}$", "$c_{k-1}$")[node]
    pen.write((left + size[0] / 2, y), name, 8, "ink" if used else "soft", on_line=False)


def _concat_bar(pen: Pen, x: float, low: float, high: float) -> None:
    low, high = low - _NODE, high + _NODE
    missing = 0.62 - (high - low)
    if missing > 0:
        high += missing
    pen.box((x - 0.1, low), (0.2, high - low), "ink", None)
    pen.write((x, (low + high) / 2), "concat $c_k$", 7, "paper", upright=True)
