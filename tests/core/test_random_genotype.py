"""Laws of the random baseline."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddarts_core.genotypes.genotype import Cell, Edge, Genotype
from ddarts_core.genotypes.random_genotype import random_genotype, space_of
from ddarts_core.genotypes.spaces import S, edge_list
from ddarts_core.genotypes.zoo import ZOO
from ddarts_core.ground.errors import UserError


@st.composite
def genotypes(draw: st.DrawFn) -> Genotype:
    cells = []
    for _ in range(draw(st.integers(2, 4))):
        fed = [(draw(st.integers(0, target - 1)), target) for target in range(2, 6)]
        more = draw(st.lists(st.sampled_from(edge_list(4)), max_size=20))
        triples = {(s, t, draw(st.sampled_from(S))) for s, t in (*fed, *more)}
        cells.append(Cell(tuple(Edge(t, s, op) for s, t, op in triples), (2, 3, 4, 5)))
    return Genotype(tuple(cells), reductions=(1,))


@given(genotypes(), st.integers(0, 2**31 - 1))
def test_size_and_shape_are_those_of_the_model(like: Genotype, seed: int) -> None:
    drawn = random_genotype(like, seed)
    for mine, model in zip(drawn.cells, like.cells, strict=True):
        for node in model.nodes:
            into, theirs = ([edge for edge in cell.edges if edge.target == node] for cell in (mine, model))
            assert len(into) == len(theirs) and len({e.source for e in into}) == len({e.source for e in theirs})
    assert [cell.nodes for cell in drawn.cells] == [cell.nodes for cell in like.cells]
    assert (drawn.reductions, drawn.layout) == (like.reductions, like.layout)
    assert all(edge.op in S for cell in drawn.cells for edge in cell.edges)
    assert random_genotype(like, seed) == drawn


def test_seeds_differ_and_every_operation_is_drawn() -> None:
    cell = Cell(tuple(Edge(t, s, "skip_connect") for s, t in edge_list(4)), (2, 3, 4, 5))
    like = Genotype((cell,) * 3)
    drawn = [random_genotype(like, seed) for seed in range(20)]
    assert len({genotype.hash for genotype in drawn}) == 20
    assert {edge.op for genotype in drawn for c in genotype.cells for edge in c.edges} == set(S)


def test_the_zero_operation_is_never_drawn() -> None:
    cell = Cell(tuple(Edge(t, s, "skip_connect") for s, t in edge_list(4)), (2, 3, 4, 5))
    for seed in range(20):
        drawn = random_genotype(Genotype((cell,) * 3), seed, space="S_none")
        assert all(edge.op in S for c in drawn.cells for edge in c.edges)


def test_the_space_is_the_genotypes() -> None:
    assert space_of(ZOO["ResNet18"].genotype) == "S_o" and space_of(ZOO["DD_1"].genotype) == "S"
    assert space_of(ZOO["DD_1"].genotype, "S_o") == "S_o" and space_of(ZOO["DD_1"].genotype, "S_none") == "S_none"
    with pytest.raises(UserError, match=r"no search space has all .*sep_conv_7x7"):
        space_of(Genotype((Cell((Edge(2, 0, "sep_conv_7x7"), Edge(2, 1, "sep_conv_3x3")), concat=(2,)),) * 3))
