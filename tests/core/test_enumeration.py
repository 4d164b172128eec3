"""Every genotype of a small space: counts, numbers, and which are the same network."""

from __future__ import annotations

import pytest

from ddarts_core.genotypes.enumeration import Enumeration, cells_of, distinct_cells, twins
from ddarts_core.genotypes.genotype import Cell, Edge, Genotype
from ddarts_core.genotypes.spaces import cell_space_size
from ddarts_core.ground.errors import UserError
from ddarts_core.search.search import build_search
from ddarts_core.settings.config import enumeration_of, resolve

SMALL = {"search": {"space": "S_3", "num_cells": 3, "steps": 1}}


def function(cell: Cell, alike: bool) -> tuple[str, ...]:
    """What the nodes of a cell compute, as formulas without names of nodes, in no order.

    Inputs that are alike are fitted to the cell by weights of their own: they change places for all nodes or for none.
    """
    ways = [written(cell, names) for names in ("xy", "yx")[: 1 + alike]]
    return min(ways)


def written(cell: Cell, names: str) -> tuple[str, ...]:
    formulas = dict(enumerate(names))
    for node in cell.concat:
        terms = [f"{edge.op}({formulas[edge.source]})" for edge in cell.edges if edge.target == node]
        formulas[node] = " + ".join(sorted(terms))
    return tuple(sorted(formulas[node] for node in cell.concat))


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("alike", [False, True])
def test_cells_are_twins_where_their_nodes_compute_the_same(steps: int, alike: bool) -> None:
    cells = list(cells_of("S_3", steps))
    assert len(cells) == len(set(cells)) == cell_space_size(3, steps)
    functions = {function(cell, alike) for cell in cells}
    distinct = distinct_cells("S_3", steps, alike)
    assert {function(cell, alike) for cell in distinct} == functions
    assert len(distinct) == len(functions), "one of each"
    assert all(function(twin, alike) == function(cell, alike) for cell in cells[::7] for twin in twins(cell, alike))


def test_every_genotype_stands_for_itself_and_its_twins_once() -> None:
    every = enumeration_of(resolve(SMALL))
    assert (len(every), every.size) == (6 * 9 * 9, 729)
    assert [every.number_of(every[number]) for number in range(len(every))] == list(range(len(every)))
    all_of_them = [genotype for number in range(len(every)) for genotype in every.twins_of(number)]
    assert len(all_of_them) == len(set(all_of_them)) == 729
    first = Cell((Edge(2, 0, "skip_connect"), Edge(2, 1, "max_pool_3x3")), (2,))
    turned = Cell((Edge(2, 0, "max_pool_3x3"), Edge(2, 1, "skip_connect")), (2,))
    numbers = [every.number_of(Genotype((cell, first, first), (1, 2))) for cell in (first, turned)]
    assert numbers[0] == numbers[1] is not None, "the stem gives the first cell one tensor twice"
    assert every.number_of(Genotype((first, turned, first), (1, 2))) != numbers[0], "later inputs differ"
    with pytest.raises(IndexError):
        every[len(every)]


def test_the_first_inputs_differ_behind_the_large_stem_and_in_deeper_networks() -> None:
    large = {**SMALL, "retrain": {"form": "imagenet"}}
    deeper = {**SMALL, "retrain": {"num_cells": 6}}
    assert [len(enumeration_of(resolve(one))) for one in (large, deeper)] == [729, 729]


def test_neighbours_differ_in_one_place() -> None:
    every = Enumeration("S_3", 1, 3, (1, 2))
    near = every.neighbours(200)
    assert 200 not in near
    assert len(near) == 2 * 2 * 3, "two other operations on each of six edges"
    assert all(200 in every.neighbours(other) for other in near)


def test_genotypes_of_other_spaces_have_no_number() -> None:
    every = Enumeration("S_3", 1, 3, (1, 2))
    inside = every[0].cells[1]
    both = Cell((*inside.edges, Edge(2, 0, "skip_connect")), (2,))
    for cells, reductions in [((inside,) * 2, (0, 1)), ((inside,) * 3, (0, 1)), ((inside, both, inside), (1, 2))]:
        assert every.number_of(Genotype(cells, reductions)) is None


def test_a_number_beyond_the_space_and_a_space_beyond_numbers_are_refused() -> None:
    with pytest.raises(UserError, match=r"search.number 486: the space has 486 distinct genotypes"):
        resolve({"search": {**SMALL["search"], "number": 486}})
    with pytest.raises(UserError, match=r"1,000,000 are the most that can be numbered: use fewer cells"):
        Enumeration("S", 4, 8, (2, 5))
    with pytest.raises(UserError, match=r"use search.sharing own"):
        resolve({"method": "darts", "search": {**SMALL["search"], "number": 0}})


def test_a_genotype_that_is_named_is_not_searched() -> None:
    config = resolve({"data": {"num_train": 100}, "search": {**SMALL["search"], "number": 3}})
    with pytest.raises(UserError, match=r"search.number 3 names a genotype, so there is nothing to search"):
        build_search(config)
