"""Text forms mean what the published networks do with them, whatever their `concat` says."""

from __future__ import annotations

from typing import TypeAlias

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ddarts_core.genotypes.genotype import Cell, Edge, Genotype
from ddarts_core.genotypes.published_text import read_text, to_published_text
from ddarts_core.genotypes.zoo import ZOO
from ddarts_core.ground.errors import UserError
from ddarts_core.networks.network import Network

Gene: TypeAlias = tuple[str, int, int]

SKIP, SEPARABLE = "skip_connect", "sep_conv_3x3"


def nested(*cells: list[Gene], concat: str = "[2, 3, 4, 5]") -> str:
    return f"Genotype_nested(genes={list(cells)}, concat={concat}, reductions=[])"


def published_forward(genes: list[Gene]) -> tuple[dict[int, list[Gene]], list[int]] | None:
    """What a published cell of three-field genes computes: per node the genes that run, and what it concatenates.

    A transcription of the loop over nodes with a dictionary of states; None where it adds up nothing and then feeds or
    concatenates the number 0.
    """
    by_node: dict[int, list[Gene]] = {}
    for gene in genes:
        by_node.setdefault(gene[1], []).append(gene)
    states: dict[int, list[Gene]] = {0: [], 1: []}
    for node, into in by_node.items():
        states[node] = [gene for gene in into if gene[2] in states]
        if not states[node]:
            return None
    return states, [node for node in states if node > 1]


@st.composite
def gene_lists(draw: st.DrawFn) -> list[Gene]:
    """Genes of nodes 2 to 5 in any order, some nodes without any."""
    targets = draw(st.lists(st.integers(2, 5), min_size=1, max_size=7))
    return [(draw(st.sampled_from([SKIP, SEPARABLE])), t, draw(st.integers(0, t - 1))) for t in targets]


@given(gene_lists())
def test_three_field_genes_are_read_as_the_published_network_reads_them(genes: list[Gene]) -> None:
    expected = published_forward(genes)
    if expected is None:
        with pytest.raises(UserError, match="the published network cannot run it"):
            read_text(nested(genes))
        return
    states, concatenated = expected
    genotype, notes = read_text(nested(genes))
    (cell,) = genotype.cells
    ran = sorted((e.op, e.target, e.source) for e in cell.edges)
    assert ran == sorted(gene for node in concatenated for gene in states[node])
    assert cell.concat == tuple(sorted(concatenated))
    assert bool(notes) == (len(ran) < len(genes)), "an operation left out is said"
    assert read_text(to_published_text(genotype)) == (genotype, ()), "what is written reads back, with nothing to say"
    written = [(e.op, e.target, e.source) for e in cell.edges]
    alone = published_forward(written)
    assert (
        alone is not None
        and alone[1] == list(cell.concat)
        and [gene for ran in alone[0].values() for gene in ran] == written
    )


def test_concat_of_three_field_genes_is_ignored_and_that_is_said() -> None:
    genes: list[Gene] = [(SKIP, 2, 0), (SKIP, 3, 1), (SKIP, 4, 2)]
    genotype, notes = read_text(nested(genes, concat="range(4, 6)"))
    assert genotype.cells[0].concat == (2, 3, 4)
    assert notes == (
        "concat [4, 5] of the text is ignored, as the published network ignores it: every node that has an input is "
        "concatenated",
    )
    assert read_text(nested(genes))[1] == ()


def test_do_2_resnet50_counts_what_table_3_says() -> None:
    """73.23 M parameters, those of all six nodes; the nodes that its file names, 4 to 7, would give 71,695,496."""
    genotype = ZOO["DO_2_ResNet50"].genotype
    assert all(cell.concat == (2, 3, 4, 5, 6, 7) for cell in genotype.cells)
    stated = Genotype(tuple(Cell(cell.edges, (4, 5, 6, 7)) for cell in genotype.cells), genotype.reductions)
    with torch.device("meta"):
        counts = [Network(g, 64, 1000, form="imagenet-published").num_parameters for g in (genotype, stated)]
    assert counts == [73_227_400, 71_695_496]
    # By hand: nodes 2 and 3 add 2 * width channels to what 1x1 convolutions of later cells read, and to the classifier.
    widths = [128, 256, 512]  # of cells 1 to 3; cell k reads cell k - 1 (input 1) and cell k - 2 (input 0)
    more = 2 * 64 * widths[0] + 2 * widths[0] * widths[1] + 2 * widths[1] * widths[2]
    more += 2 * 64 * widths[1] + 2 * widths[0] * widths[2]
    assert more + 1000 * 2 * widths[2] == 73_227_400 - 71_695_496


@pytest.mark.parametrize("model", ["c", "g"])
def test_fairdarts_skip_from_a_node_without_input(model: str) -> None:
    """Published with `skip_connect` from node 3 of the normal cell, which has no input: the network skips it."""
    normal = ZOO[f"FairDARTS_{model}"].genotype.cells[0]
    assert normal.concat == normal.nodes == (2, 4, 5) and all(edge.source != 3 for edge in normal.edges)


@pytest.mark.parametrize("name", ZOO)
def test_every_genotype_of_the_zoo_survives_its_text_form(name: str) -> None:
    genotype = ZOO[name].genotype
    assert read_text(to_published_text(genotype)) == (genotype, ())


def test_two_field_genes_keep_their_concat() -> None:
    genes = "[('sep_conv_3x3', 0), ('skip_connect', 1), ('skip_connect', 0), ('sep_conv_3x3', 2)]"
    text = f"Genotype(normal={genes}, normal_concat=[3], reduce={genes}, reduce_concat=range(2, 4))"
    genotype, notes = read_text(text)
    assert [cell.concat for cell in genotype.cells] == [(3,), (2, 3)] and not notes
    assert read_text(to_published_text(genotype)) == (genotype, ())
    with pytest.raises(UserError, match="3 genes of two fields"):
        read_text(text.replace(", ('sep_conv_3x3', 2)]", "]"))
    with pytest.raises(UserError, match="node 5 of a cell is used but has no input"):
        read_text(text.replace("[3]", "[3, 5]"))


def test_what_no_text_can_say_is_refused() -> None:
    cell = Cell((Edge(2, 0, SKIP), Edge(3, 1, SKIP)), concat=(3,))
    for genotype in (Genotype((cell, cell)), Genotype((cell, cell), layout="normal_reduce")):
        with pytest.raises(UserError, match="no published text form can say this genotype"):
            to_published_text(genotype)
