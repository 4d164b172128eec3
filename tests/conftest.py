"""The order of the tests, and what none leaves behind."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest
from hypothesis import settings

TRACKING = ("MLFLOW_TRACKING_URI", "DDARTS_TRACKING_URI")

for variable in TRACKING:  # of whoever runs the tests
    os.environ.pop(variable, None)

# An example that takes long on a busy machine is no wrong one.
settings.register_profile("ddarts", deadline=None)
settings.load_profile("ddarts")

# Ray would start a process for every core before it is known how many there is use for.
os.environ.setdefault("RAY_prestart_worker_first_driver", "0")


@pytest.fixture(autouse=True)
def no_tracking_uri_left() -> Iterator[None]:
    """Every sweep takes these variables; `mlflow.set_tracking_uri` sets the first for the tests that follow, too."""
    yield
    for variable in TRACKING:
        os.environ.pop(variable, None)


@pytest.fixture(autouse=True)
def no_plugin_left() -> Iterator[None]:
    """The tables are those of this process: what a test registered would be tested by all that follow."""
    yield
    if (plugins := sys.modules.get("ddarts_core.ground.plugins")) is not None:
        for plugin in reversed(plugins.loaded()):
            plugins.unload(plugin)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Longest files first, so that no process is left alone with one at the end; what needs a GPU waits for one."""
    for item in items:
        if item.get_closest_marker("gpu"):
            import torch

            item.add_marker(pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))
    items.sort(key=lambda item: 0 if "tests/tuning/" in item.nodeid else item.nodeid.count("/"))
