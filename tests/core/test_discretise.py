"""Discretisation: hand-computed cells, laws over drawn gates, published semantics, empty nodes and dead cells."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from ddarts_core.genotypes.dead_cells import dead_cells
from ddarts_core.genotypes.genotype import Cell, Edge, Genotype
from ddarts_core.genotypes.spaces import S, edge_list, num_edges, operations_of
from ddarts_core.ground.errors import UserError
from ddarts_core.search.convergence import convergence_sentence
from ddarts_core.search.discretise import (
    discretise,
    saturation,
    select,
)
from ddarts_core.settings.search_settings import DiscretiseConfig

RULES = ["sparse", "edge", "complete", "darts"]
MAX, AVG, SKIP, SEP3, SEP5, DIL3, DIL5 = S


def config(rule: str = "sparse", threshold: float = 0.85, **other: Any) -> DiscretiseConfig:
    return DiscretiseConfig(rule=rule, threshold=threshold, **other)


def gates_of(chosen: dict[tuple[int, int, str], float], steps: int, space: str = "S") -> list[list[float]]:
    """Gates of one cell: those named by (source, target, operation), and 0.1 elsewhere."""
    names = operations_of(space)
    return [[chosen.get((*edge, name), 0.1) for name in names] for edge in edge_list(steps)]


def one_hot(genotype: Genotype, steps: int, space: str = "S") -> list[list[list[float]]]:
    names = operations_of(space)
    return [
        [[float(Edge(target, source, n) in cell.edges) if n != "none" else 0.0 for n in names]
         for source, target in edge_list(steps)]
        for cell in genotype.cells
    ]  # fmt: skip


def edges(text: str) -> list[Edge]:
    """`sep_conv_3x3 0-2, ...` as edges."""
    out = []
    for part in text.split(","):
        op, arrow = part.split()
        source, target = arrow.split("-")
        out.append(Edge(int(target), int(source), op))
    return sorted(out)


@st.composite
def cell_gates(draw: st.DrawFn, steps: int | None = None, num_ops: int = 7) -> list[list[float]]:
    """Distinct gates, so that no choice hangs on a tie."""
    steps = steps or draw(st.integers(1, 4))
    size = num_edges(steps) * num_ops
    order = np.random.RandomState(draw(st.integers(0, 2**32 - 1))).permutation(size)
    power = draw(st.sampled_from([0.3, 1.0, 3.0]))
    values = ((order + 1) / (size + 1)) ** power
    return values.reshape(num_edges(steps), num_ops).tolist()


thresholds = st.sampled_from([0.0, 0.3, 0.5, 0.7, 0.85, 0.95])
limits = st.sampled_from([None, 1, 2, 3])


# --- hand-computed --------------------------------------------------------------------------------------------------

HAND = gates_of(
    {
        (0, 2, SEP3): 0.90, (0, 2, SKIP): 0.95, (0, 2, MAX): 0.86,
        (1, 2, SEP5): 0.84,
        (0, 3, MAX): 0.87, (1, 3, AVG): 0.99, (2, 3, DIL3): 0.91, (2, 3, DIL5): 0.92,
    },
    steps=2,
)  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "limit", "expected"),
    [
        ("sparse", None, f"{SKIP} 0-2, {MAX} 0-3, {AVG} 1-3, {DIL5} 2-3"),
        ("sparse", 2, f"{SKIP} 0-2, {AVG} 1-3, {DIL5} 2-3"),
        ("sparse", 1, f"{SKIP} 0-2, {AVG} 1-3"),
        ("edge", None, f"{SKIP} 0-2, {SEP3} 0-2, {MAX} 0-3, {AVG} 1-3, {DIL5} 2-3, {DIL3} 2-3"),
        ("edge", 1, f"{SKIP} 0-2, {SEP3} 0-2, {AVG} 1-3"),
        ("complete", None, f"{SKIP} 0-2, {SEP3} 0-2, {MAX} 0-2, {MAX} 0-3, {AVG} 1-3, {DIL5} 2-3, {DIL3} 2-3"),
        ("darts", None, f"{SKIP} 0-2, {SEP5} 1-2, {AVG} 1-3, {DIL5} 2-3"),
        ("darts", 1, f"{SKIP} 0-2, {AVG} 1-3"),
        ("darts", 3, f"{SKIP} 0-2, {SEP5} 1-2, {MAX} 0-3, {AVG} 1-3, {DIL5} 2-3"),
    ],
)
def test_rules_by_hand(rule: str, limit: int | None, expected: str) -> None:
    assert sorted(select(HAND, S, 2, config(rule, edges_per_node=limit))) == edges(expected)


def test_a_gate_at_the_threshold_is_kept() -> None:
    gates = gates_of({(0, 2, SEP3): 0.85, (1, 2, SEP3): 0.8499}, steps=1)
    assert select(gates, S, 1, config()) == [Edge(2, 0, SEP3)]


def test_ties_keep_the_earlier_edge_and_operation() -> None:
    gates = [[0.9] * 7 for _ in edge_list(2)]
    assert select(gates, S, 2, config(edges_per_node=2)) == edges(f"{MAX} 0-2, {MAX} 1-2, {MAX} 0-3, {MAX} 1-3")


def test_the_zero_operation_is_never_chosen_nor_ranks_an_edge() -> None:
    """Node 3's edge from 2 has the largest weight, but it is that of `none`: edges 0 and 1 are better."""
    names = operations_of("S_none")
    gates = gates_of({(0, 3, SEP3): 0.5, (1, 3, SEP5): 0.4, (2, 3, SKIP): 0.3}, 2, "S_none")
    for row in gates:
        row[names.index("none")] = 0.99
    for rule in RULES:
        chosen = select(gates, names, 2, config(rule, 0.0, edges_per_node=2))
        assert "none" not in {edge.op for edge in chosen}
        assert {edge.source for edge in chosen if edge.target == 3} == {0, 1}
    found = discretise([gates] * 3, config(threshold=0.98), space="S_none", steps=2, reductions=(1, 2))
    assert found.genotype.cells[0].edges[-1] == Edge(3, 0, SEP3)  # the fallback passes over `none` too


def test_the_order_of_edges_is_by_target_then_source() -> None:
    """Only edge number 4 is over the threshold: of a cell with 2 nodes, that is 2 -> 3."""
    gates = [[0.1] * 7 for _ in range(5)]
    gates[4][3] = 0.9
    assert select(gates, S, 2, config()) == [Edge(3, 2, SEP3)]


def test_reductions_and_layouts() -> None:
    gates = [HAND] * 4
    found = discretise(gates, config(), steps=2, reductions=(1, 2)).genotype
    assert (found.reductions, found.layout, found.num_cells) == ((1, 2), "individual", 4)
    shared = discretise(gates[:2], config(), steps=2, reductions=(1, 2), layout="normal_reduce").genotype
    assert (shared.reductions, shared.layout, shared.num_cells) == ((), "normal_reduce", 2)


@pytest.mark.parametrize("convert", [np.asarray, torch.tensor, lambda g: tuple(map(tuple, g)), lambda g: g])
def test_any_nested_sequence_will_do(convert: Any) -> None:
    expected = discretise([HAND] * 3, config(), steps=2)
    assert discretise(convert([HAND] * 3), config(), steps=2) == expected


def test_a_float32_gate_keeps_its_side_of_the_threshold() -> None:
    gates = torch.tensor([gates_of({(0, 2, SEP3): 0.85}, 1)])
    assert discretise(gates, config(), steps=1).fallback == ()


@pytest.mark.parametrize("shape", [(0, 2, 7), (2, 3, 7), (2, 2, 6)])
def test_gates_of_another_shape_are_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=r"gates must have the shape \[cells, 2 edges, 7 operations\]"):
        discretise(np.zeros(shape), config(), steps=1)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_gates_of_a_diverged_search_are_refused(bad: float) -> None:
    gates = [gates_of({(0, 2, SEP3): bad}, 1)]
    with pytest.raises(UserError, match="not a finite number"):
        discretise(gates, config(), steps=1)


def test_torch_is_not_imported() -> None:
    code = "import sys, ddarts_core.search.discretise; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- empty nodes ----------------------------------------------------------------------------------------------------

#: Node 2 gets nothing; node 3 is fed by node 2 alone; node 4 by input 1.
BARE = gates_of({(0, 2, SEP5): 0.5, (2, 3, SEP3): 0.9, (1, 3, DIL3): 0.8, (1, 4, SKIP): 0.9}, steps=3)


def test_empty_node_best_gives_the_best_operation_and_says_so() -> None:
    found = discretise([BARE] * 2, config(on_empty_node="best"), steps=3)
    assert found.fallback == ((0, 2), (1, 2))
    assert found.dropped == ()
    assert list(found.genotype.cells[0].edges) == edges(f"{SEP5} 0-2, {SEP3} 2-3, {SKIP} 1-4")
    assert found.genotype.cells[0].concat == (2, 3, 4)


def test_empty_node_drop_is_transitive() -> None:
    found = discretise([BARE] * 2, config(on_empty_node="drop"), steps=3)
    assert found.dropped == ((0, 2), (0, 3), (1, 2), (1, 3))
    assert found.fallback == ()
    assert list(found.genotype.cells[0].edges) == edges(f"{SKIP} 1-4")
    assert found.genotype.cells[0].concat == (4,)


def test_empty_node_error_names_cell_and_nodes() -> None:
    with pytest.raises(UserError, match=r"threshold 0\.85 leaves nodes 2, 3 of cell 0 without input"):
        discretise([BARE], config(on_empty_node="error"), steps=3)


def test_a_cell_that_keeps_nothing_cannot_be_dropped() -> None:
    with pytest.raises(UserError, match=r"threshold 0\.85 leaves no operation in cell 1"):
        discretise([HAND, gates_of({}, 2)], config(on_empty_node="drop"), steps=2)


def test_a_cell_that_keeps_nothing_is_made_of_fallbacks() -> None:
    found = discretise([gates_of({(1, 2, SEP5): 0.2, (2, 3, AVG): 0.3}, 2)], config(), steps=2)
    assert list(found.genotype.cells[0].edges) == edges(f"{SEP5} 1-2, {AVG} 2-3")
    assert found.fallback == ((0, 2), (0, 3))


# --- dead cells -----------------------------------------------------------------------------------------------------


def chain(*reads: str) -> list[list[list[float]]]:
    """Gates of cells of one node that read the inputs named, for example "01", "0", "1"."""
    return [gates_of({(int(i), 2, SEP3): 0.9 for i in inputs}, 1) for inputs in reads]


@pytest.mark.parametrize(
    ("reads", "dead"),
    [
        (("1", "1", "1"), ()),
        (("01", "01", "0"), (1,)),  # the last cell skips its predecessor
        (("0", "0", "0", "0"), (0, 2)),  # every second cell, as when only c_{k-2} is wired
        (("0", "1", "0", "0", "0"), (1, 3)),  # 4 -> 2 -> 0
        (("1", "1", "0", "1"), (1,)),
        (("1", "1", "1", "0"), (2,)),  # cell 2 is dead, but 1 is read by 3
        (("1",), ()),
        (("0", "0", "1", "0", "0"), (0, 3)),  # 4 -> 2 -> 1, which passes over 0
    ],
)
def test_dead_cells_by_hand(reads: Sequence[str], dead: tuple[int, ...]) -> None:
    assert discretise(chain(*reads), config(), steps=1).dead_cells == dead


def test_a_cell_read_only_by_a_dead_cell_is_dead() -> None:
    """4 reads 2 reads 0; cell 3 reads 1 and 2, cell 1 reads 0: 3 is dead, and so is 1, which only 3 reads."""
    found = discretise(chain("1", "1", "0", "01", "0"), config(), steps=1)
    assert found.dead_cells == (1, 3)


def test_an_input_that_reaches_only_a_node_counts_because_nodes_are_concatenated() -> None:
    cells = [
        Cell((Edge(2, 0, SKIP), Edge(3, 1, SKIP)), concat=(2, 3)),
        Cell((Edge(2, 1, SKIP), Edge(3, 0, SKIP)), (3,)),
    ]
    assert dead_cells(cells) == (0,)  # the second cell concatenates node 3 only, which reads input 0


def test_dead_cell_error() -> None:
    with pytest.raises(UserError, match=r"nothing reads the output of cells 0, 2: .*on_dead_cell"):
        discretise(chain("0", "0", "0", "0"), config(on_dead_cell="error"), steps=1)
    discretise(chain("1", "1"), config(on_dead_cell="error"), steps=1)


def test_dead_cell_connect_adds_the_best_edge_from_input_1_to_the_successor() -> None:
    last = gates_of({(0, 2, SEP3): 0.9, (0, 3, SEP3): 0.9, (1, 2, AVG): 0.5, (1, 3, DIL5): 0.6}, 2)
    first = gates_of({(1, 2, SEP3): 0.9, (1, 3, SEP3): 0.9}, 2)
    found = discretise([first, first, last], config(on_dead_cell="connect"), steps=2)
    assert list(found.genotype.cells[2].edges) == edges(f"{SEP3} 0-2, {SEP3} 0-3, {DIL5} 1-3")
    assert (found.dead_cells, found.connected) == ((), (1,))
    assert found.genotype.cells[:2] == discretise([first, first, last], config(), steps=2).genotype.cells[:2]


def test_connect_does_not_revive_a_dropped_node() -> None:
    """Input 1's best edge would lead to node 3, which was dropped."""
    last = gates_of({(0, 2, SEP3): 0.9, (1, 2, AVG): 0.5, (1, 3, DIL5): 0.6}, 2)
    first = gates_of({(1, 2, SEP3): 0.9}, 2)
    found = discretise([first, last], config(on_dead_cell="connect", on_empty_node="drop"), steps=2)
    assert list(found.genotype.cells[1].edges) == edges(f"{SEP3} 0-2, {AVG} 1-2")


def test_shared_cells_are_not_judged_before_they_are_stacked() -> None:
    found = discretise(chain("0", "0"), config(on_dead_cell="error"), steps=1, layout="normal_reduce")
    assert found.dead_cells == ()


@given(reads=st.lists(st.sampled_from(["0", "1", "01"]), min_size=1, max_size=10))
def test_connect_leaves_no_cell_dead_and_adds_one_edge_each(reads: list[str]) -> None:
    gates = chain(*reads)
    before = discretise(gates, config(), steps=1)
    after = discretise(gates, config(on_dead_cell="connect"), steps=1)
    assert dead_cells(after.genotype.cells) == after.dead_cells == ()
    assert after.genotype.num_edges == before.genotype.num_edges + len(after.connected)
    assert set(after.connected) <= set(before.dead_cells)
    assert bool(after.connected) == bool(before.dead_cells)


@given(reads=st.lists(st.sampled_from(["0", "1", "01"]), min_size=1, max_size=8))
def test_dead_cells_are_those_that_no_path_from_the_classifier_reaches(reads: list[str]) -> None:
    reached, frontier = set(), {len(reads) - 1}
    while frontier:
        k = frontier.pop()
        reached.add(k)
        frontier |= {k - 2 + int(i) for i in reads[k] if k - 2 + int(i) >= 0} - reached
    assert set(discretise(chain(*reads), config(), steps=1).dead_cells) == set(range(len(reads))) - reached


# --- laws -----------------------------------------------------------------------------------------------------------


@given(gates=cell_gates(steps=3), rule=st.sampled_from(RULES), low=thresholds, high=thresholds, limit=limits)
def test_a_higher_threshold_keeps_a_subset(
    gates: list[list[float]], rule: str, low: float, high: float, limit: int | None
) -> None:
    assume(low <= high)
    few = select(gates, S, 3, config(rule, high, edges_per_node=limit))
    many = select(gates, S, 3, config(rule, low, edges_per_node=limit))
    assert set(few) <= set(many)
    try:
        dropped = discretise([gates], config(rule, high, edges_per_node=limit, on_empty_node="drop"), steps=3)
    except UserError:
        return
    more = discretise([gates], config(rule, low, edges_per_node=limit, on_empty_node="drop"), steps=3)
    assert set(dropped.genotype.cells[0].edges) <= set(more.genotype.cells[0].edges)


@given(gates=cell_gates(steps=3), threshold=thresholds, limit=limits)
def test_rules_are_nested(gates: list[list[float]], threshold: float, limit: int | None) -> None:
    sparse, edge, complete = (
        set(select(gates, S, 3, config(rule, threshold, edges_per_node=limit)))
        for rule in ("sparse", "edge", "complete")
    )
    assert sparse <= edge <= complete


@given(gates=cell_gates(steps=3), threshold=thresholds)
def test_published_sparse_is_the_darts_rule_and_then_the_threshold(gates: list[list[float]], threshold: float) -> None:
    value = {Edge(t, s, n): row[k] for (s, t), row in zip(edge_list(3), gates, strict=True) for k, n in enumerate(S)}
    darts = select(gates, S, 3, config("darts"))
    assert len(darts) == 6
    published = select(gates, S, 3, config("sparse", threshold, edges_per_node=2))
    assert sorted(published) == sorted(edge for edge in darts if value[edge] >= threshold)


@given(gates=cell_gates(steps=3), threshold=thresholds, limit=limits)
def test_rules_keep_their_numbers(gates: list[list[float]], threshold: float, limit: int | None) -> None:
    for rule, most in (("sparse", 1), ("edge", 2), ("darts", 1)):
        chosen = select(gates, S, 3, config(rule, threshold, edges_per_node=limit))
        per_edge = {(e.source, e.target): 0 for e in chosen}
        for e in chosen:
            per_edge[e.source, e.target] += 1
        assert max(per_edge.values(), default=0) <= most
        for node in (2, 3, 4):
            used = sum(target == node for _, target in per_edge)
            assert used <= (limit or (2 if rule == "darts" else 4))


@given(
    cells=st.lists(cell_gates(steps=2), min_size=1, max_size=4),
    data=st.data(),
    rule=st.sampled_from(RULES),
    threshold=thresholds,
)
def test_the_order_of_cells_and_operations_is_without_effect(
    cells: list[list[list[float]]], data: st.DataObject, rule: str, threshold: float
) -> None:
    order = data.draw(st.permutations(range(len(cells))))
    setting = config(rule, threshold)
    plain = discretise(cells, setting, steps=2)
    moved = discretise([cells[k] for k in order], setting, steps=2)
    assert moved.genotype.cells == tuple(plain.genotype.cells[k] for k in order)
    ops = data.draw(st.permutations(range(7)))
    renamed = [[row[k] for k in ops] for row in cells[0]]
    assert set(select(renamed, [S[k] for k in ops], 2, setting)) == set(select(cells[0], S, 2, setting))


@given(
    cells=st.lists(cell_gates(steps=3), min_size=1, max_size=4),
    rule=st.sampled_from(RULES),
    threshold=thresholds,
    limit=limits,
    on_empty=st.sampled_from(["best", "drop"]),
    on_dead=st.sampled_from(["warn", "connect"]),
)
def test_discretising_the_one_hot_gates_of_a_genotype_gives_it_back(
    cells: list[list[list[float]]], rule: str, threshold: float, limit: int | None, on_empty: str, on_dead: str
) -> None:
    try:
        first = discretise(
            cells, config(rule, threshold, edges_per_node=limit, on_empty_node=on_empty, on_dead_cell=on_dead), steps=3
        )
    except UserError:
        assume(False)
    drop = config("complete", 0.5, on_empty_node="drop")
    again = discretise(one_hot(first.genotype, 3), drop, steps=3)
    assert again.genotype == first.genotype
    assert again.dead_cells == first.dead_cells
    if not first.fallback and not first.connected:  # then the rule itself gives it back
        own = config(rule, 0.5, edges_per_node=limit, on_empty_node="drop")
        assert discretise(one_hot(first.genotype, 3), own, steps=3).genotype == first.genotype


@given(cells=st.lists(cell_gates(steps=3), min_size=1, max_size=3), rule=st.sampled_from(RULES), threshold=thresholds)
def test_best_feeds_every_node_and_reports_exactly_the_empty_ones(
    cells: list[list[list[float]]], rule: str, threshold: float
) -> None:
    found = discretise(cells, config(rule, threshold), steps=3)
    for k, cell in enumerate(found.genotype.cells):
        assert cell.concat == cell.nodes == (2, 3, 4)
        fed = {edge.target for edge in select(cells[k], S, 3, config(rule, threshold))}
        assert {node for c, node in found.fallback if c == k} == {2, 3, 4} - fed


# --- diagnosis ------------------------------------------------------------------------------------------------------


def test_saturation_counts_strictly() -> None:
    gates = [[[0.95, 0.9, 0.5, 0.1, 0.05, 0.0, 1.0]]]
    assert saturation(gates) == (2, 2)
    assert saturation(torch.tensor(gates)) == (2, 2)
    assert saturation(np.asarray(gates)) == (2, 2)


def test_the_sentence_of_a_search_that_did_not_converge() -> None:
    """Of 4 cells x 2 edges x 7 operations, 14 are decided; two cells are empty."""
    good = [[0.95, 0.05, 0.05, 0.05, 0.5, 0.5, 0.5], [0.5, 0.5, 0.05, 0.05, 0.05, 0.5, 0.5]]
    gates = [good, [[0.5] * 7] * 2, good, [[0.5] * 7] * 2]
    derivation = discretise(gates, config(), steps=1)
    assert convergence_sentence(gates, derivation, config()) == (
        "25 % of operations decided, not converged; threshold 0.85 left 2 of 4 nodes without input "
        "(given their best operation): lower the threshold, search longer, or raise search.w_zero_one. "
        "Nothing reads the output of cells 0, 2: set discretise.on_dead_cell: connect, or lower the threshold."
    )


def test_the_sentence_of_a_search_that_converged() -> None:
    gates = chain("1", "1")
    gates = [[[gate if gate > 0.8 else 0.01 for gate in row] for row in cell] for cell in gates]
    gates = [[[gate if gate < 0.8 else 0.99 for gate in row] for row in cell] for cell in gates]
    assert convergence_sentence(gates, discretise(gates, config(), steps=1), config()) == "100 % of operations decided."


def test_softmax_is_judged_by_edges() -> None:
    """Eight equal weights lie near 0.1 each, which decides nothing."""
    setting = config("darts", 0.0)
    uniform = [[[0.125] * 8] * 2] * 2
    derivation = discretise(uniform, setting, space="S_none", steps=1, layout="normal_reduce")
    assert convergence_sentence(uniform, derivation, setting, independent=False) == (
        "0 % of edges decided, not converged: search longer."
    )


@pytest.mark.parametrize(("decided", "converged"), [(6, False), (7, True), (8, True)])
def test_half_of_the_operations_decided_is_convergence(decided: int, converged: bool) -> None:
    flat = [0.95] * decided + [0.6] * (14 - decided)
    gates = [[flat[0::2], flat[1::2]]]
    sentence = convergence_sentence(gates, discretise(gates, config(threshold=0.5), steps=1), config())
    assert ("not converged" in sentence) is not converged
    assert ("search longer" in sentence) is not converged
