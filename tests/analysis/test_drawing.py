from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from ddarts_analysis.drawing import (
    cell_figure,
    draw_cell,
    draw_genotype,
    genotype_figure,
    genotype_svgs,
)
from ddarts_analysis.palette import OPERATION_COLOURS, OPERATION_LABELS
from ddarts_analysis.panels import panels
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from ddarts_core.genotypes.genotype import Cell, Edge, Genotype
from ddarts_core.genotypes.spaces import OPERATION_NAMES, S_O, S, edge_list
from ddarts_core.genotypes.zoo import STAGED
from ddarts_core.ground.errors import UserError
from tests.analysis.conftest import genotype_of


def full_cell(ops: tuple[str, ...]) -> Cell:
    return Cell(tuple(Edge(target, source, op) for source, target in edge_list(4) for op in ops), (2, 3, 4, 5))


def chips(figure: Figure) -> list[tuple[float, float, float, float]]:
    """(x0, y0, x1, y1) of the labels of operations: the white-edged boxes that hold text."""
    boxes = []
    for patch in figure.axes[0].patches:
        if isinstance(patch, FancyBboxPatch) and patch.get_edgecolor() == (1, 1, 1, 1):
            x, y, width, height = patch.get_x(), patch.get_y(), patch.get_width(), patch.get_height()
            if width > 0.5:
                boxes.append((x, y, x + width, y + height))
    return boxes


def test_every_operation_has_its_own_colour_and_label():
    assert set(OPERATION_COLOURS) == set(OPERATION_LABELS) == OPERATION_NAMES
    assert len(set(OPERATION_COLOURS.values())) == len(set(OPERATION_LABELS.values())) == len(OPERATION_NAMES)


@pytest.mark.parametrize("ops", [S[2:4], S, S_O], ids=["28 operations", "S complete", "S_o complete"])
def test_labels_never_overlap_and_none_is_missing(ops):
    boxes = chips(cell_figure(full_cell(ops)))
    assert len(boxes) == 14 * len(ops)
    for i, a in enumerate(boxes):
        for b in boxes[:i]:
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def test_label_text_fits_its_box():
    figure = cell_figure(full_cell(tuple(sorted(OPERATION_NAMES))))
    renderer = figure.canvas.get_renderer()
    for text in figure.axes[0].texts:
        if text.get_text() in OPERATION_LABELS.values():
            assert text.get_window_extent(renderer).width / figure.dpi < 0.72, text.get_text()


def test_equal_cells_share_a_panel_and_reductions_are_marked():
    a, b = genotype_of(0).cells[:2]
    titles = [(p.title, p.reduction) for p in panels(Genotype((a, b, a, a, a, b), (1, 4)))]
    assert titles == [
        ("cells 0, 2–3", False),
        ("cell 1 · reduction", True),
        ("cell 4 · reduction", True),
        ("cell 5", False),
    ]
    assert [p.title for p in panels(Genotype((a, b), layout="normal_reduce"))] == ["normal cell", "reduction cell"]


@pytest.mark.parametrize("suffix", [".svg", ".png", ".pdf"])
def test_the_same_genotype_gives_the_same_bytes(tmp_path: Path, suffix):
    first = draw_genotype(genotype_of(0), tmp_path / f"a{suffix}", title="t").read_bytes()
    assert draw_genotype(genotype_of(0), tmp_path / f"b{suffix}", title="t").read_bytes() == first
    assert draw_genotype(genotype_of(1), tmp_path / f"c{suffix}", title="t").read_bytes() != first
    assert b"Date" not in first


def test_svg_is_well_formed_and_its_text_is_text(tmp_path: Path):
    ET.parse(draw_cell(genotype_of(0).cells[0], tmp_path / "x.svg"))
    chain, drawn = genotype_svgs(genotype_of(0))
    assert chain is not None and len(drawn) == 4
    for svg in (chain, *drawn):
        ET.fromstring(svg)
    assert len(re.findall(">skip<", "".join(drawn))) == str(genotype_of(0)).count("skip_connect")
    assert re.findall(">([a-d])<", chain) == ["a", "b", "c", "d"]
    assert [re.findall(">([a-d])   cells? ([0-9])", svg) for svg in drawn] == [
        [(x, str(i))] for i, x in enumerate("abcd")
    ]
    first = genotype_of(0).cells[0].edges[0]
    words = f"{first.source} to {first.target} {OPERATION_LABELS[first.op]}, "
    assert f'aria-label="a   cell 0: {words}' in drawn[0] and 'aria-label="cells in order: a, b, c, d"' in chain
    cell = genotype_of(0).cells[0]
    assert genotype_svgs(Genotype((cell, cell), layout="normal_reduce"))[0] is None


def test_max_cells_limits_the_panels_and_says_so():
    texts = [t.get_text() for t in genotype_figure(genotype_of(0), max_cells=2).axes[0].texts]
    assert "2 of 4 distinct cells are drawn" in texts
    assert sum("cell 3" in text for text in texts) == 0


@pytest.mark.parametrize(("name", "limit"), [("x.gif", None), ("x", None), ("x.svg", 0)])
def test_mistakes_are_one_sentence_and_leave_no_file(tmp_path: Path, name, limit):
    with pytest.raises(UserError):
        draw_genotype(genotype_of(0), tmp_path / name, max_cells=limit)
    assert list(tmp_path.iterdir()) == []


def test_stages_are_rows_of_blocks_whose_words_fit():
    genotype = STAGED["FBNetV2_L1"].genotype
    figure = genotype_figure(genotype, title="L1")
    texts = [text.get_text() for text in figure.axes[0].texts]
    blocks = [block for stage in genotype.stages for block in stage]
    assert texts.count("hswish") + texts.count("SE, hswish") + texts.count("relu") == len(blocks)
    assert {"184 → 64", "inverted 5×5  ×3", "to 14 × 14 pixels"} <= set(texts)
    assert texts[-1] == "then mean over all pixels, linear layer to 1984 (hswish), classifier"
    renderer = figure.canvas.get_renderer()
    for text in figure.axes[0].texts:
        if text.get_text().startswith(("inverted", "conv")):
            assert text.get_window_extent(renderer).width / figure.dpi < 1.05, text.get_text()
    chain, rows = genotype_svgs(genotype)
    assert chain is None and len(rows) == len(genotype.stages)
    assert 'aria-label="stage 3: inverted 5x5 /2 to 40 by 128, squeeze, hswish; inverted 5x5' in rows[3]
    assert genotype_figure(genotype, max_cells=2).axes[0].texts[-1].get_text() == "2 of 7 stages are drawn"
