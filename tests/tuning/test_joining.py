"""Trials at a time: as many as the machines hold, also when one joins a sweep that runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ddarts_tuning.searchers.searcher import Places
from ddarts_tuning.settings.config import SweepConfig
from ddarts_tuning.settings.tune import TuneConfig
from ray.tune.search import Searcher

from tests.tuning.processes import Driver, events_of

Make = Callable[..., SweepConfig]

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A Ray cluster of one node with room for one trial; more can be added."""
    from ray.cluster_utils import Cluster

    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    yield found
    found.shutdown()


@pytest.mark.slow
def test_a_node_that_joins_gets_trials(make_sweep: Make, cluster: Any) -> None:
    tune = {"num_samples": 2, "max_concurrent": None, "objective": "supernet"}
    config = make_sweep("joined", tune=tune, search={"epochs": 200})
    path = config.study_dir
    driver = Driver("run", path, config, str(cluster.address))
    driver.wait_for(lambda: driver.events.exists() and any(event["kind"] == "epoch" for event in events_of(path)))
    assert {event["number"] for event in events_of(path) if event["kind"] == "epoch"} == {0}
    cluster.add_node(num_cpus=1)
    driver.wait_for(lambda: {event["number"] for event in events_of(path) if event["kind"] == "epoch"} == {0, 1})
    driver.kill()
    assert not any(event["kind"] == "finished" for event in events_of(path)), "both ran at a time"


class Proposer(Searcher):
    """Proposes without end."""

    def __init__(self) -> None:
        super().__init__(metric="a", mode="max")

    def suggest(self, trial_id: str) -> dict[str, Any]:
        return {"a": 1}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        pass


@pytest.mark.parametrize(
    ("wanted", "cluster", "before", "after"),
    [(None, False, 2, 5), (3, False, 2, 3), (None, True, 2, 5), (3, True, 3, 3), (20, True, 8, 8)],
)
def test_places(monkeypatch: pytest.MonkeyPatch, wanted: int | None, cluster: bool, before: int, after: int) -> None:
    now, machines = [0.0], [2]
    monkeypatch.setattr("ddarts_tuning.searchers.searcher.room", lambda config: machines[0])
    monkeypatch.setattr("ddarts_tuning.searchers.searcher.time.monotonic", lambda: now[0])
    config = TuneConfig(num_samples=8, max_concurrent=wanted)
    places = Places(Proposer(), config, cluster)

    def proposed(prefix: str) -> int:
        return sum(places.suggest(f"{prefix}{i}") is not None for i in range(12))

    assert proposed("a") == before
    machines[0], now[0] = 5, 4.0
    assert proposed("b") == 0  # it looks every five seconds
    now[0] = 10.0
    assert proposed("c") == after - before
    places.on_trial_complete("a0")
    assert proposed("d") == 1
