from __future__ import annotations

import json
import random
from itertools import combinations

import pytest
from ddarts_analysis.compare import compare, distance, front_volume, hypervolume
from hypothesis import given
from hypothesis import strategies as st

from ddarts_core.genotypes.genotype import Cell, Edge, Genotype
from ddarts_core.genotypes.zoo import STAGED, ZOO
from ddarts_core.ground.errors import UserError
from tests.analysis.conftest import genotype_of


@given(st.integers(0, 6), st.integers(0, 6), st.integers(0, 6))
def test_distance_is_symmetric_and_no_way_round_is_shorter(a, b, c):
    x, y, z = genotype_of(a), genotype_of(b), genotype_of(c)
    assert distance(x, y) == distance(y, x) and distance(x, x) == 0
    assert distance(x, z) <= distance(x, y) + distance(y, z) + 1e-12


def test_distance_is_0_for_the_same_operations_in_different_genotypes():
    a = genotype_of(0)
    first = a.cells[0]
    for other in (
        Genotype(a.cells, reductions=(1, 3)),
        Genotype((Cell(first.edges, concat=(4, 5)), *a.cells[1:]), a.reductions),
        Genotype((Cell((*first.edges, first.edges[0]), first.concat), *a.cells[1:]), a.reductions),
    ):
        assert distance(a, other) == 0 and a != other and not compare(a, other)["identical"]


def test_compare_names_the_difference():
    a = genotype_of(0)
    edges = a.cells[2].edges
    changed = Edge(edges[0].target, edges[0].source, "sep_conv_7x7")
    b = Genotype((*a.cells[:2], Cell((changed, *edges[1:]), a.cells[2].concat), a.cells[3]), a.reductions)
    found = compare(a, b)
    assert not found["identical"] and found["distance"] == pytest.approx(2 / (a.num_edges + 1))
    assert found["cells"][2]["only_a"] == [[edges[0].op, edges[0].source, edges[0].target]]
    assert found["cells"][2]["only_b"] == [["sep_conv_7x7", edges[0].source, edges[0].target]]
    assert [c["common"] for c in found["cells"]] == [8, 8, 7, 8]
    assert found["b"]["operations"]["sep_conv_7x7"] == 1
    json.dumps(found)
    assert compare(a, a)["identical"]


def test_a_cell_that_one_lacks_counts_whole():
    a = genotype_of(0)
    shorter = Genotype(a.cells[:3], a.reductions)
    assert distance(a, shorter) == pytest.approx(len(a.cells[3].edges) / a.num_edges)


def test_a_pair_of_cells_is_compared_as_the_network_that_repeats_it():
    a = genotype_of(0)
    pair = Genotype(a.cells[:2], layout="normal_reduce")
    as_network = Genotype((a.cells[0], a.cells[1], a.cells[1], a.cells[0]), a.reductions)
    assert distance(a, pair) == distance(pair, a) == distance(a, as_network) > 0
    found = compare(as_network, pair)
    assert found["distance"] == 0 and not found["identical"]
    assert found["a"]["num_operations"] == found["b"]["num_operations"] == as_network.num_edges


fronts = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 8)), min_size=1, max_size=6)


def test_genotypes_of_stages_are_compared_block_by_block_and_with_no_other_kind():
    small, large = (STAGED[f"FBNetV2_{name}"].genotype for name in ("F4", "L1"))
    found = compare(small, large)
    assert (found["a"]["num_cells"], found["b"]["num_cells"], found["b"]["reductions"]) == (20, 26, [0, 2, 6, 10, 19])
    assert found["cells"][0] == {"cell": 0, "common": 1, "only_a": [], "only_b": []}
    assert found["cells"][25]["only_b"] == [["convolution 1x1 to 1344, hswish", 1, 2]]
    assert distance(large, STAGED["FBNetV2_L2"].genotype) == 0
    with pytest.raises(UserError, match="comparison with a genotype of cells"):
        distance(small, ZOO["DARTS_V2"].genotype)


def test_the_volume_of_a_front_is_the_mean_best_accuracy_over_budgets():
    assert front_volume([(50.0, 0.5), (75.0, 0.4), (100.0, 0.9)], 100.0) == 0.25
    assert front_volume([(50.0, 0.5), (75.0, 0.4), (100.0, 0.9)], 200.0) == pytest.approx(0.575)
    assert front_volume([(100.0, 0.5)], 100.0) == 0.0
    for reference in (0.0, -1.0, float("inf")):
        with pytest.raises(UserError, match="reference cost"):
            front_volume([(0.0, 0.5)], reference)


@given(fronts, st.integers(1, 10))
def test_the_volume_of_a_front_is_that_of_its_boxes_together(points, reference):
    """By inclusion and exclusion: boxes from (cost, accuracy) to the corner of the reference."""
    boxes = [(reference - cost, accuracy) for cost, accuracy in points if cost < reference]
    area = 0.0
    for size in range(1, len(boxes) + 1):
        for some in combinations(boxes, size):
            area -= (-1) ** size * min(w for w, _ in some) * min(h for _, h in some)
    assert front_volume(points, reference) == pytest.approx(area / reference)


@given(fronts, st.integers(1, 10), st.integers(0, 5), st.integers(0, 6), st.integers(0, 8))
def test_a_dominated_trial_never_changes_a_volume(points, reference, which, more_cost, less_accuracy):
    cost, accuracy = points[which % len(points)]
    worse = (cost + more_cost, max(0, accuracy - less_accuracy))
    assert front_volume([*points, worse], reference) == front_volume(points, reference)


@given(st.lists(st.tuples(*[st.integers(0, 6)] * 3), max_size=6))
def test_hypervolume_counts_the_dominated_unit_cubes(points):
    cubes = sum(
        any(x < p[0] and y < p[1] and z < p[2] for p in points) for x in range(6) for y in range(6) for z in range(6)
    )
    assert hypervolume(points, (0, 0, 0), (True, True, True)) == pytest.approx(cubes)
    assert hypervolume([tuple(-v for v in p) for p in points], (0, 0, 0), (False,) * 3) == pytest.approx(cubes)


def test_hypervolume_ignores_order_duplicates_and_points_beyond_the_reference():
    points = [(0.9, 5.0), (0.8, 3.0), (0.7, 1.0)]
    whole = hypervolume(points, (0.5, 6.0), (True, False))
    more = [*points, *points, (0.4, 0.0), (0.6, 7.0), (0.6, 5.5)]
    random.Random(0).shuffle(more)
    assert hypervolume(more, (0.5, 6.0), (True, False)) == pytest.approx(whole)
    assert hypervolume([], (0.5, 6.0), (True, False)) == 0


@pytest.mark.parametrize("points", [[(1.0,)], [(float("nan"), 1.0)]])
def test_hypervolume_refuses_what_has_no_volume(points):
    with pytest.raises(UserError):
        hypervolume(points, (0.0, 0.0), (True, True))
