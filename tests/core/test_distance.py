"""The distance of architectures: the published value, a second derivation, and the laws that it keeps."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
from scipy.spatial.distance import hamming as scipy_hamming

from ddarts_core.genotypes.distance import cell_distances, distance, read_weights, rows, weights_of
from ddarts_core.genotypes.genotype import Cell, Edge, Genotype
from ddarts_core.genotypes.random_genotype import random_genotype
from ddarts_core.genotypes.spaces import edge_list, operations_of
from ddarts_core.genotypes.zoo import ZOO
from ddarts_core.ground.errors import UserError

WEIGHTS = weights_of("S_o")
RESNET18, RESNET50 = ZOO["ResNet18"].genotype, ZOO["ResNet50"].genotype

#: Of other depths too.
SOME = [
    RESNET18,
    RESNET50,
    *(ZOO[f"DO_2_ResNet{depth}"].genotype for depth in (18, 50)),
    ZOO["Xception"].genotype,
    *(random_genotype(RESNET18, seed, "S_o") for seed in range(3)),
]


def test_the_published_value() -> None:
    """distances.csv of the published code has 0.084; METHODS' own run of it 0.0836."""
    assert distance(RESNET18, RESNET50, WEIGHTS) == pytest.approx(0.0836, abs=5e-5)
    assert distance(
        *(ZOO[f"{name}_published"].genotype for name in ("ResNet18", "ResNet50")), WEIGHTS
    ) == pytest.approx(82.87499756469727 / math.fsum(WEIGHTS.values()))


def table(genotype: Genotype) -> np.ndarray:
    """[cells, edges, operations] of 0 and 1, as the published code lays an architecture out."""
    names, edges = operations_of("S_o"), edge_list(genotype.steps)
    found = np.zeros((genotype.num_cells, len(edges), len(names)))
    for k, cell in enumerate(genotype.cells):
        for edge in cell.edges:
            found[k, edges.index((edge.source, edge.target)), names.index(edge.op)] = 1
    return found


@pytest.mark.parametrize("other", range(1, 8))
def test_again_by_scipy_on_the_published_layout(other: int) -> None:
    """Rows of all edges, repeated ones too, by scipy's weighted Hamming distance."""
    a, b = table(RESNET18), table(SOME[other])
    weights = np.array(list(WEIGHTS.values()))
    expected = []
    for x, y in zip(a, b, strict=False):
        apart = np.array([[scipy_hamming(row, column, w=weights) for column in y] for row in x])
        expected.append(max(apart.min(0).max(), apart.min(1).max()))
    expected += [1.0] * abs(len(a) - len(b))
    assert cell_distances(RESNET18, SOME[other], WEIGHTS) == pytest.approx(expected)


def test_laws() -> None:
    """Those of a pseudometric, between architectures of 4 and of 13 cells."""
    apart = {(i, j): distance(SOME[i], SOME[j], WEIGHTS) for i, j in itertools.product(range(len(SOME)), repeat=2)}
    for i, j in apart:
        assert 0 <= apart[i, j] == apart[j, i] <= 1
        assert all(apart[i, j] <= apart[i, k] + apart[k, j] + 1e-12 for k in range(len(SOME)))
    assert all(apart[i, i] == 0 for i in range(len(SOME)))


def test_it_is_no_metric() -> None:
    """Different architectures that are 0 apart: the same operations on other edges, other reductions or nodes."""
    published = ZOO["ResNet18_published"].genotype
    assert published != RESNET18 and distance(published, RESNET18, WEIGHTS) == 0
    shifted = Genotype(RESNET18.cells, reductions=(0, 2, 3))
    assert shifted != RESNET18 and distance(shifted, RESNET18, WEIGHTS) == 0


def test_the_empty_row_is_there_only_where_an_edge_has_no_operation() -> None:
    full = Cell((Edge(2, 0, "skip_connect"), Edge(2, 1, "sep_conv_3x3")), (2,))
    assert rows(full, 1) == {frozenset({"skip_connect"}), frozenset({"sep_conv_3x3"})}
    assert frozenset() in rows(full, 2)


def test_what_cannot_be_compared(tmp_path) -> None:
    with pytest.raises(UserError, match="two shared cells"):
        distance(RESNET18, ZOO["DARTS_V2"].genotype, WEIGHTS)
    with pytest.raises(UserError, match=r"bottleneck_1x3x1 has no weight"):
        distance(RESNET50, RESNET50, weights_of("S"))
    file = tmp_path / "weights.json"
    for content in ("[1]", '{"weights": {"skip_connect": -1}}', "{}"):
        file.write_text(content)
        with pytest.raises(UserError, match="weights"):
            read_weights(file)
    file.write_text(json.dumps({"weights": {"skip_connect": 2}}))
    assert read_weights(file) == {"skip_connect": 2.0}
