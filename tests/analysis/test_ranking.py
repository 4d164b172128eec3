from __future__ import annotations

import math

import pytest
from ddarts_analysis.ranking import contenders, default_order, metrics, pareto_front, rank, sought
from hypothesis import given
from hypothesis import strategies as st

from ddarts_core.ground.errors import UserError


def row(number: int, objective: float | None, parameters: int | None = 1, state: str = "COMPLETED", **more: object):
    return {"number": number, "state": state, "objective": objective, "parameters": parameters, **more}


def numbers(rows) -> list[int]:
    return [r["number"] for r in rows]


def test_only_completed_trials_best_first_ties_by_number():
    rows = [row(0, 0.5), row(1, 0.9, state="PRUNED"), row(2, 0.7), row(3, 0.7), row(4, None), row(5, math.nan)]
    assert numbers(rank(rows)) == [2, 3, 0, 4, 5]
    assert numbers(rank(rows, "objective")) == [0, 2, 3, 4, 5]


def test_later_metrics_break_ties_and_short_names_work():
    rows = [row(0, 0.7, 30), row(1, 0.7, 10), row(2, 0.9, 90)]
    assert numbers(rank(rows, "-objective,params")) == [2, 1, 0]
    assert numbers(rank(rows, "params")) == [1, 0, 2]


def test_accuracy_prefers_the_derived_network_and_objectives_have_names():
    rows = [
        row(0, 1.0, held_out_accuracy=0.9, derived_accuracy=None, objectives_json='{"latency": 3.0}'),
        row(1, 1.0, held_out_accuracy=0.1, derived_accuracy=0.95, objectives_json='{"latency": 2.0}'),
    ]
    assert numbers(rank(rows, "-accuracy")) == [1, 0]
    assert numbers(rank(rows, "latency")) == [1, 0]
    assert "latency" in metrics(rows)


def test_pareto_keeps_what_nothing_beats():
    rows = [row(n, 0, p, derived_accuracy=a) for n, (a, p) in enumerate([(0.9, 50), (0.8, 60), (0.7, 10), (0.7, 11)])]
    assert numbers(rank([*rows, row(9, 0, None, derived_accuracy=0.99)], "pareto")) == [0, 2]


def test_what_is_beyond_a_limit_comes_last_and_is_on_no_front_of_others():
    rows = [row(0, 0.9, 50), row(1, 0.8, 60), row(2, 0.7, 10, beyond=""), row(3, 0.6, 9, beyond=math.nan)]
    rows = [{**r, "derived_accuracy": r["objective"]} for r in rows]
    over = [{**r, "beyond": "parameters"} if r["number"] < 2 else r for r in rows]
    assert numbers(rank(over)) == [2, 3, 0, 1] and numbers(rank(over, "-accuracy,params")) == [2, 3, 0, 1]
    assert numbers(rank(over, "pareto")) == [2, 3] and numbers(rank(over[:2], "pareto")) == [0]
    assert numbers(contenders(over)) == [2, 3] and numbers(contenders(over[:2])) == [0, 1]


def test_the_front_is_of_the_accuracy_that_was_sought():
    """Trial 1 beats trial 0 in balanced accuracy, and is beaten in accuracy."""
    pairs = [(0.9, 0.5), (0.8, 0.6)]
    for name, front in (("accuracy", [0]), ("balanced_accuracy", [1])):
        rows = [
            row(
                n,
                0,
                derived_accuracy=a,
                derived_balanced_accuracy=b,
                objectives_json=f'{{"derived/held_out/{name}": 0}}',
            )
            for n, (a, b) in enumerate(pairs)
        ]
        assert sought(rows) == name and numbers(rank(rows, "pareto")) == front
        assert numbers(rank(rows, "-balanced_accuracy")) == [1, 0]


@pytest.mark.parametrize("by", ["-speed", "", "-", "objective,,parameters"])
def test_an_unknown_metric_is_one_sentence(by):
    with pytest.raises(UserError, match=r"objective, parameters|expected metrics such as"):
        rank([row(0, 0.5)], by)


def test_nothing_to_rank_is_an_empty_list():
    assert rank([]) == [] and rank([row(0, 0.5, state="FAILED")]) == []


def test_default_order_follows_the_objectives():
    assert default_order([]) == "-objective"
    both = [{"metric": "loss", "mode": "min"}, {"metric": "accuracy", "mode": "max"}]
    assert default_order(both) == "objective,-accuracy"


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=12))
def test_the_front_is_not_empty_and_its_members_do_not_beat_each_other(points):
    front = pareto_front(points, [True, False])
    assert bool(front) == bool(points)
    for i in front:
        for a, p in points:
            assert not (a >= points[i][0] and p <= points[i][1] and (a, p) != points[i])
    for j in set(range(len(points))) - set(front):
        assert any(points[i][0] >= points[j][0] and points[i][1] <= points[j][1] for i in front)
