"""The order of the tests."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Longest files first, so that no process is left alone with one at the end: those that start sweeps."""
    items.sort(key=lambda item: "tests/tuning/" not in item.nodeid)
