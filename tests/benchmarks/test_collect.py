from __future__ import annotations

from tests.benchmarks.collect import METRICS, measure


def test_every_point_of_the_made_database_is_collected():
    _, _, rows = measure(runs=3, epochs=4)
    assert rows == 3 + 3 * 4 * len(METRICS)  # trials, and a row per point: a contribution is one too
