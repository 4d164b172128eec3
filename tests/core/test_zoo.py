"""Published genotypes: they load, survive JSON, and the handcrafted ones are wired as the paper's networks."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddarts_core.genotypes.handcrafted import ENCODED, HANDCRAFTED, resnet18
from ddarts_core.genotypes.spaces import OPERATION_NAMES
from ddarts_core.genotypes.zoo import EVERY, STAGED, ZOO, resolve_genotype
from ddarts_core.ground.errors import UserError

PUBLISHED = {
    "DARTS_V1",
    "DARTS_V2",
    "PC_DARTS_cifar",
    "PC_DARTS_image",
    "PDARTS",
    "DOTS_C10",
    "DOTS_C100",
    "DOTS_ImageNet",
    "CDARTS",
    "CDARTS_ImageNet",
    "DARTS_minus",
    *(f"FairDARTS_{model}" for model in "abcdefg"),
    "GDAS_V1",
    "SDARTS_RS",
    "SDARTS_ADV",
    "DrNAS_cifar10",
    "DrNAS_imagenet",
    *(f"DARTS_PT_s5_{run}" for run in (0, 1, 3)),
    "Shapley_NAS_cifar10",
    "Shapley_NAS_imagenet",
    "Lambda_DARTS",
    "OLES_cifar10",
    "EG_NAS_cifar10",
    "AmoebaNet_A",
    "NASNet_A",
    "DD_1",
    "DD_2",
    "DD_4",
    "DD_5",
    "DO_2_ResNet18",
    "DO_2_ResNet50",
}


def test_names() -> None:
    assert set(ZOO) == PUBLISHED | set(HANDCRAFTED) | {f"{name}_published" for name in ENCODED}
    assert set(STAGED) == {f"FBNetV2_{name}" for name in ("F1", "F2", "F3", "F4", "L1", "L2")}
    assert {*ZOO, *STAGED} == set(EVERY)


@pytest.mark.parametrize("name", EVERY)
def test_entry(name: str, tmp_path: Path) -> None:
    entry = EVERY[name]
    assert entry.source and entry.note
    file = tmp_path / "genotype.json"
    file.write_text(entry.genotype.to_json(), encoding="utf-8")
    assert resolve_genotype(str(file)) == entry.genotype == resolve_genotype(f"zoo:{name}")


def test_entries_differ() -> None:
    assert len({entry.genotype.hash for entry in EVERY.values()}) == len(EVERY)


@pytest.mark.parametrize(
    "name",
    sorted(
        name for name in PUBLISHED if not name.startswith(("FairDARTS", "AmoebaNet", "NASNet", "DD_", "DO_2_ResNet50"))
    ),
)
def test_two_operations_per_node(name: str) -> None:
    for cell in ZOO[name].genotype.cells:
        assert [sum(e.target == node for e in cell.edges) for node in (2, 3, 4, 5)] == [2, 2, 2, 2]
        assert cell.concat == (2, 3, 4, 5)


def test_fairdarts_a_lacks_a_node() -> None:
    normal, reduction = ZOO["FairDARTS_a"].genotype.cells
    assert normal.concat == (2, 4, 5) and reduction.concat == (2, 3, 4, 5)


def test_dead_cell_of_the_published_sparse_genotype() -> None:
    cells = ZOO["DD_5"].genotype.cells
    assert not cells[7].reads(1), "nobody reads cell 6"
    assert all(cells[k].reads(1) or cells[k + 1].reads(0) for k in range(1, 7))


@pytest.mark.parametrize("name", HANDCRAFTED)
def test_handcrafted_reads_the_cell_before(name: str) -> None:
    """Ours has no dead cell; the published wiring reads only input 0; nothing else differs."""
    ours, published = HANDCRAFTED[name](1), HANDCRAFTED[name](0)
    assert all(cell.reads(1) and not cell.reads(0) for cell in ours.cells)
    assert all(cell.reads(0) and not cell.reads(1) for cell in published.cells)
    assert ours.reductions == published.reductions
    for a, b in zip(ours.cells, published.cells, strict=True):
        assert sorted((e.op, e.target) for e in a.edges) == sorted((e.op, e.target) for e in b.edges)
        assert a.concat == b.concat == a.nodes


def test_shapes_of_the_handcrafted() -> None:
    assert [len(cell.nodes) for cell in ZOO["ResNet50"].genotype.cells] == [3, 4, 6, 3]
    assert [len(cell.edges) for cell in ZOO["Xception"].genotype.cells] == [4] * 12 + [2]
    assert {e.op for name in HANDCRAFTED for c in ZOO[name].genotype.cells for e in c.edges} <= OPERATION_NAMES


def test_xception_and_inception_have_as_many_distinct_cells_as_the_papers_count() -> None:
    for name, cells, distinct in (("Xception", 13, 3), ("Xception_5", 13, 5), ("InceptionV4", 16, 5)):
        genotype = ZOO[name].genotype
        assert (genotype.num_cells, len(set(genotype.cells))) == (cells, distinct)
    assert [*map(ZOO["InceptionV4"].genotype.cells.count, dict.fromkeys(ZOO["InceptionV4"].genotype.cells))] == [
        *(4, 1, 7, 1, 3)
    ]


def test_handcrafted_source_is_checked() -> None:
    with pytest.raises(UserError, match="source 2"):
        resnet18(2)


def test_resolve_refuses_with_the_choices() -> None:
    with pytest.raises(UserError, match=r"unknown zoo genotype 'DARTS'.*DARTS_V2"):
        resolve_genotype("zoo:DARTS")
    with pytest.raises(UserError, match="cannot read genotype"):
        resolve_genotype("DARTS_V2")
