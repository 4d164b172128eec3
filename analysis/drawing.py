"""Drawings of genotypes that a paper can print.

Of cells: the panels of `panels`, the chain of cells and a legend. Of stages: the rows of `stage_drawing`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from ddarts_core.genotypes.blocks import StagedGenotype
from ddarts_core.genotypes.genotype import AnyGenotype, Cell, Genotype
from ddarts_core.ground.errors import UserError

from .canvas import new_figure, save
from .palette import in_order
from .panels import Panel, draw_chip, draw_panel, grid_of, panels
from .pens import MatplotlibPen, Pen, SvgPen
from .stage_drawing import ROW, draw_stage, head_words, row_width, stage_words

# Sizes in inches.
_MARGIN, _GUTTER, _LEGEND_ROW = 0.15, 0.3, 0.24


def _draw_chain(pen: Pen, genotype: Genotype, letters: Mapping[int, str], left: float, y: float, width: float) -> None:
    """The cells of the network in order, reductions marked, each with the letter of its panel."""
    step = min(0.42, width / (genotype.num_cells + 1))
    size = step * 0.72
    for position in range(genotype.num_cells):
        x = left + step * position
        corner = (x, y - size / 2)
        if position in genotype.reductions:
            ink = "warm"
            pen.box(corner, (size, size), "warm-card", ink, 1.4, radius=0)
        else:
            ink = "ink"
            pen.box(corner, (size, size), "card", ink, radius=0)
        pen.write((x + size / 2, y), letters.get(position, "…"), min(8.0, size * 26), ink)
    for x in (left + step * position for position in range(genotype.num_cells - 1)):  # above the edges of the boxes
        pen.line((x + size, y), (x + step, y))


def _draw_legend(pen: Pen, ops: Sequence[str], left: float, top: float, columns: int, pitch: float) -> None:
    for index, op in enumerate(ops):
        row, column = divmod(index, columns)
        x, y = left + pitch * column, top - _LEGEND_ROW * row
        draw_chip(pen, x + 0.13, y, op, "", width=0.26)
        pen.write((x + 0.32, y), op, 7.5, "ink", anchor="left", on_line=False)


def genotype_figure(
    genotype: AnyGenotype, *, title: str | None = None, max_cells: int | None = None, columns: int | None = None
) -> Figure:
    """The figure behind `draw_genotype`.

    Raises:
        UserError: `max_cells` or `columns` is less than 1.
    """
    if (max_cells is not None and max_cells < 1) or (columns is not None and columns < 1):
        raise UserError("a drawing shows at least one cell and has at least one column: max_cells and columns >= 1")
    if isinstance(genotype, StagedGenotype):
        return _stages_figure(genotype, title, max_cells)
    cells = Genotype.narrowed(genotype)
    everything = panels(cells)
    return _figure(everything[:max_cells], len(everything), title=title, genotype=cells, columns=columns)


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
    grid = grid_of(panel.cell for panel in shown)
    columns = min(len(shown), columns or (2 if len(shown) in (2, 4) else 3))
    rows = -(-len(shown) // columns)
    used = {edge.op for panel in shown for edge in panel.cell.edges}
    ops = in_order(used)
    width = 2 * _MARGIN + columns * grid.width + (columns - 1) * _GUTTER
    pitch = 1.5
    legend_columns = max(1, int((width - 2 * _MARGIN) // pitch))
    legend = _LEGEND_ROW * -(-len(ops) // legend_columns) + 0.05
    chain = genotype is not None and genotype.layout == "individual"
    head = (0.32 if title else 0.0) + (0.5 if chain else 0.0) + (0.22 if len(shown) < total else 0.0)
    body = rows * (grid.height + 0.06) + (rows - 1) * _GUTTER * 0.7
    height = 2 * _MARGIN + head + body + 0.12 + legend

    figure, pen = _sheet(width, height)
    y = height - _MARGIN
    if title:
        pen.write((_MARGIN, y - 0.12), title, 11, "ink", anchor="left", style="bold", on_line=False)
        y -= 0.32
    named = [_with_letter(panel, index) if chain and len(shown) > 1 else panel for index, panel in enumerate(shown)]
    if chain and genotype is not None:
        _draw_chain(pen, genotype, _letters(genotype, shown), _MARGIN, y - 0.2, width - 2 * _MARGIN)
        y -= 0.5
    if len(shown) < total:
        note = f"{len(shown)} of {total} distinct cells are drawn"
        pen.write((_MARGIN, y - 0.1), note, 8, "soft", anchor="left", style="italic", on_line=False)
        y -= 0.22
    for index, panel in enumerate(named):
        row, column = divmod(index, columns)
        bottom = y - (row + 1) * (grid.height + 0.06) - row * _GUTTER * 0.7 + 0.06
        draw_panel(pen, panel, grid, _MARGIN + column * (grid.width + _GUTTER), bottom)
    _draw_legend(pen, ops, _MARGIN, _MARGIN + legend - 0.16, legend_columns, pitch)
    return _unclipped(figure)


def _stages_figure(genotype: StagedGenotype, title: str | None, most: int | None) -> Figure:
    """Rows of the first stages, as many as `most`, and what follows them."""
    total = len(genotype.stages)
    shown = min(total, most or total)
    head = 0.32 if title else 0.0
    height = 2 * _MARGIN + head + shown * ROW + 0.3
    figure, pen = _sheet(2 * _MARGIN + row_width(genotype), height)
    y = height - _MARGIN - head
    if title:
        pen.write((_MARGIN, y + 0.2), title, 11, "ink", anchor="left", style="bold", on_line=False)
    for number in range(shown):
        y -= ROW
        draw_stage(pen, genotype, number, _MARGIN, y)
    last = head_words(genotype) if shown == total else f"{shown} of {total} stages are drawn"
    pen.write((_MARGIN, y - 0.15), last, 8, "soft", anchor="left", style="italic", on_line=False)
    return _unclipped(figure)


def _unclipped(figure: Figure) -> Figure:
    """The figure without clip paths, which would be a third of an SVG's bytes; nothing is drawn outside."""
    for ax in figure.axes:
        for artist in (*ax.patches, *ax.lines):
            artist.set_clip_on(False)
    return figure


def _sheet(width: float, height: float) -> tuple[Figure, MatplotlibPen]:
    """An empty figure and what draws on it."""
    figure = new_figure(width, height)
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set_xlim(0, width)
    ax.set_ylim(0, height)
    ax.set_axis_off()
    return figure, MatplotlibPen(ax)


def _letters(genotype: Genotype, shown: Sequence[Panel]) -> dict[int, str]:
    """Letter of the panel by position in the network, of those that are shown."""
    kinds = {(panel.cell, panel.reduction): chr(ord("a") + index % 26) for index, panel in enumerate(shown)}
    keys = ((cell, position in genotype.reductions) for position, cell in enumerate(genotype.cells))
    return {position: kinds[key] for position, key in enumerate(keys) if key in kinds}


def _with_letter(panel: Panel, index: int) -> Panel:
    return Panel(panel.cell, f"{chr(ord('a') + index % 26)}   {panel.title}", panel.reduction)


def draw_genotype(
    genotype: AnyGenotype, path: str | Path, *, title: str | None = None, max_cells: int | None = None
) -> Path:
    """Draw every distinct cell of a genotype, or every stage, reductions marked, to a .svg, .png or .pdf file.

    The same genotype gives the same bytes. `max_cells` limits the panels or rows; the drawing then says so.

    Raises:
        UserError: another suffix, or `max_cells` less than 1.

    Example:
        >>> from ddarts_core.genotypes.zoo import ZOO
        >>> draw_genotype(ZOO["DARTS_V2"].genotype, "cells.svg").name
        'cells.svg'
    """
    return save(genotype_figure(genotype, title=title, max_cells=max_cells), path)


def draw_cell(cell: Cell, path: str | Path, *, title: str = "cell", reduction: bool = False) -> Path:
    """Draw one cell to a .svg, .png or .pdf file.

    Raises:
        UserError: another suffix.
    """
    return save(cell_figure(cell, title=title, reduction=reduction), path)


def genotype_svgs(genotype: AnyGenotype) -> tuple[str | None, tuple[str, ...]]:
    """The drawing in parts that a page lays out by its width, as small SVG elements in the inks of `pens.INKS`.

    The chain of the cells, None where two cells are shared, and the panels, all of one size; of stages there is a panel
    each and no chain. Each has a text for those who do not see it.
    """
    if isinstance(genotype, StagedGenotype):
        rows = []
        for number in range(len(genotype.stages)):
            row = SvgPen(row_width(genotype), ROW)
            draw_stage(row, genotype, number, 0.05, 0)
            rows.append(row.svg(stage_words(genotype, number)))
        return None, tuple(rows)
    cells = Genotype.narrowed(genotype)
    shown = panels(cells)
    grid = grid_of(panel.cell for panel in shown)
    chain = None
    if cells.layout == "individual":
        width = 0.42 * (cells.num_cells + 1)
        pen = SvgPen(width, 0.45)
        letters = _letters(cells, shown)
        _draw_chain(pen, cells, letters, 0.05, 0.22, width)
        chain = pen.svg(f"cells in order: {', '.join(letters[position] for position in range(cells.num_cells))}")
        if len(shown) > 1:
            shown = tuple(_with_letter(panel, index) for index, panel in enumerate(shown))
    drawn = []
    for panel in shown:
        pen = SvgPen(grid.width + 0.1, grid.height + 0.16)
        draw_panel(pen, panel, grid, 0.05, 0.11)
        drawn.append(pen.svg(panel.words))
    return chain, tuple(drawn)
