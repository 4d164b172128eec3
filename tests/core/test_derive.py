"""Algorithm 1: the published sequences, its laws for every size, and its refusals."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddarts_core.genotypes.dead_cells import connect, dead_cells
from ddarts_core.genotypes.derive import algorithm_1, arrange, deeper, stack
from ddarts_core.genotypes.genotype import Cell, Edge, Genotype
from ddarts_core.genotypes.spaces import default_reductions
from ddarts_core.genotypes.zoo import ZOO
from ddarts_core.ground.errors import UserError


def chain(num_cells: int, reductions: tuple[int, ...]) -> Genotype:
    """Cells that differ from each other."""
    ops = ("skip_connect", "max_pool_3x3", "sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5")
    cells = tuple(Cell((Edge(2, i // 6 % 2, ops[i % 6]),), (2,)) for i in range(num_cells))
    return Genotype(cells, reductions)


@pytest.mark.parametrize(
    ("num_cells", "order", "expected"),
    [
        (14, "paper", [0, 1, 0, 1, 2, 4, 3, 4, 3, 5, 6, 7, 6, 7]),
        (20, "paper", [0, 1, 0, 1, 0, 1, 2, 4, 3, 4, 3, 4, 3, 5, 6, 7, 6, 7, 6, 7]),
        (14, "published", [0, 0, 0, 1, 2, 4, 3, 4, 3, 5, 6, 7, 6, 7]),
        (20, "published", [0, 0, 0, 1, 1, 1, 2, 4, 3, 4, 3, 4, 3, 5, 6, 7, 6, 7, 6, 7]),
        (8, "paper", list(range(8))),
        (8, "published", list(range(8))),
    ],
)
def test_eight_cells(num_cells: int, order: str, expected: list[int]) -> None:
    assert algorithm_1(8, num_cells, order) == expected  # type: ignore[arg-type]


@given(st.integers(5, 30), st.integers(1, 60))
def test_segments_repeat_within_themselves(num_searched: int, more: int) -> None:
    """Reduction cells stand at the thirds and nowhere else; every segment draws only on its own normal cells."""
    num_cells = num_searched + more
    indices = algorithm_1(num_searched, num_cells)
    first, second = default_reductions(num_searched)
    start, end = default_reductions(num_cells)
    assert len(indices) == num_cells
    assert [i for i, index in enumerate(indices) if index in (first, second)] == [start, end]
    assert (indices[start], indices[end]) == (first, second)
    assert all(index < first for index in indices[:start])
    assert all(first < index < second for index in indices[start + 1 : end])
    assert all(second < index < num_searched for index in indices[end + 1 :])


@pytest.mark.parametrize("num_searched", [1, 2, 3, 4])
def test_undefined_sizes_name_the_smallest(num_searched: int) -> None:
    with pytest.raises(UserError, match="smallest genotype has 5 cells"):
        algorithm_1(num_searched, 14)


def test_fewer_cells_are_refused_not_truncated() -> None:
    with pytest.raises(UserError, match="only adds cells"):
        algorithm_1(8, 7)


def test_unknown_order() -> None:
    with pytest.raises(UserError, match="paper, published"):
        algorithm_1(8, 14, "reference")  # type: ignore[arg-type]


def test_deeper_moves_the_reductions() -> None:
    genotype = chain(8, (2, 5))
    derived = deeper(genotype, 14)
    assert derived.reductions == (4, 9)
    assert [genotype.cells.index(cell) for cell in derived.cells] == algorithm_1(8, 14)


def test_deeper_keeps_a_genotype_of_that_size() -> None:
    genotype = chain(8, (2, 6))
    assert deeper(genotype, 8) is genotype


def test_deeper_needs_two_reductions() -> None:
    with pytest.raises(UserError, match="two reduction cells, this genotype has 4"):
        deeper(ZOO["Xception"].genotype, 20)


def test_stack_of_normal_and_reduction() -> None:
    genotype = ZOO["DARTS_V2"].genotype
    stacked = deeper(genotype, 20)
    assert stacked.layout == "individual" and stacked.reductions == (6, 13)
    assert all(cell is genotype.cells[i in (6, 13)] for i, cell in enumerate(stacked.cells))
    assert stack(genotype, 3, (0,)).cells == (genotype.cells[1], genotype.cells[0], genotype.cells[0])
    with pytest.raises(UserError, match="positions of the 3 cells"):
        stack(genotype, 3, (3,))
    with pytest.raises(UserError, match="only a normal_reduce genotype"):
        stack(chain(8, (2, 5)), 9, (3, 6))


def test_arrange_positions() -> None:
    genotype = chain(8, (2, 6))
    assert arrange(genotype) == genotype
    assert arrange(genotype, reductions="thirds").reductions == (2, 5)
    assert arrange(genotype, 14, "thirds") == arrange(chain(8, (2, 5)), 14)
    assert arrange(genotype, 14, "thirds").reductions == (4, 9)
    assert arrange(genotype, 14, "genotype").reductions == (2, 6), "taken literally"
    assert arrange(genotype, 14, "genotype").cells == deeper(genotype, 14).cells
    assert arrange(genotype, reductions=(1,)).reductions == (1,)
    assert arrange(genotype, reductions=()).reductions == ()
    normal_reduce = ZOO["DARTS_V2"].genotype
    assert arrange(normal_reduce, 8, "genotype") == arrange(normal_reduce, 8) == deeper(normal_reduce, 8)


@pytest.mark.parametrize(
    ("num_cells", "reductions", "message"),
    [
        (None, (8,), "0 to 7"),
        (None, (-1,), "0 to 7"),
        (None, "third", "choose thirds"),
        (5, None, "only adds"),
    ],
)
def test_arrange_refuses(num_cells: int | None, reductions: str | tuple[int, ...] | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        arrange(chain(8, (2, 5)), num_cells, reductions)


def test_reduction_cells_do_not_become_normal_ones_in_silence() -> None:
    with pytest.raises(
        UserError, match=r"takes cells 2 and 5 .* has 3 and 6 \(keep its 8 cells; or with reductions thirds"
    ):
        arrange(chain(8, (3, 6)), 14)
    assert arrange(chain(8, (3, 6)), 8).reductions == (3, 6)


def test_arrange_needs_a_depth() -> None:
    with pytest.raises(UserError, match="give num_cells"):
        arrange(ZOO["DARTS_V2"].genotype)


def walk(cells: Sequence[Cell]) -> set[int]:
    """Cells that no path leads from to the classifier: a walk back over single nodes from the last cell's output."""
    last = len(cells) - 1
    waiting = [(last, node) for node in cells[last].concat]
    seen = set(waiting)
    while waiting:
        k, node = waiting.pop()
        if node < 2:
            earlier = k - 2 if node == 0 else k - 1
            steps = [] if earlier < 0 else [(earlier, n) for n in cells[earlier].concat]
        else:
            steps = [(k, edge.source) for edge in cells[k].edges if edge.target == node]
        waiting += [step for step in steps if step not in seen]
        seen.update(steps)
    return set(range(len(cells))) - {k for k, _ in seen}


def test_dead_cells_of_dd_5_when_it_is_made_deeper() -> None:
    genotype = ZOO["DD_5"].genotype
    for depth, dead in ((8, (6,)), (14, (10, 12)), (20, (14, 16, 18))):
        cells = deeper(genotype, depth).cells
        assert dead_cells(cells) == dead and walk(cells) == set(dead)


def test_a_genotype_without_dead_cells_can_have_some_at_another_depth() -> None:
    """400 random genotypes of 8 cells without a dead one, each of four nodes with one input each."""
    at_14 = 0
    for seed in range(400):
        draw = random.Random(seed)
        cells = []
        for _ in range(8):
            edges = tuple(Edge(node, draw.randrange(node), "sep_conv_3x3") for node in (2, 3, 4, 5))
            cells.append(Cell(edges, (2, 3, 4, 5)))
        live, _ = connect(cells, lambda k, reader: Edge(2, 1, "max_pool_3x3"))
        genotype = Genotype(live, (2, 5))
        assert not walk(live) and not dead_cells(live)
        whole = arrange(genotype, 14)
        assert walk(whole.cells) == set(dead_cells(whole.cells))
        mended = arrange(genotype, 14, on_dead_cell="connect")
        assert not walk(mended.cells) and mended.reductions == whole.reductions
        if not walk(whole.cells):
            assert mended == whole == arrange(genotype, 14, on_dead_cell="error")
            continue
        at_14 += 1
        added = [set(a.edges) - set(b.edges) for a, b in zip(mended.cells, whole.cells, strict=True)]
        assert set().union(*added) <= {Edge(2, 1, "skip_connect")} and any(added)
        with pytest.raises(UserError, match=r"of 14 cells (is|are) dead .*: set on_dead_cell to connect or warn"):
            arrange(genotype, 14, on_dead_cell="error")
    assert at_14 == 63
