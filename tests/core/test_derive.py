"""Algorithm 1: the published sequences, its laws for every size, and its refusals."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddarts_core.derive import algorithm_1, arrange, deeper, stack
from ddarts_core.errors import UserError
from ddarts_core.genotype import Cell, Edge, Genotype
from ddarts_core.spaces import default_reductions
from ddarts_core.zoo import ZOO


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
