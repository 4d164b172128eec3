"""A forward pass is measured as it was asked for; what is made of the times is arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ddarts_core.exports import latency
from ddarts_core.exports.export import Blueprint, Classifier
from ddarts_core.settings.config import resolve
from tests.core.test_export import GENOTYPE


def test_few_slow_passes_move_no_median() -> None:
    times = [0.001 * k for k in range(18, 0, -1)] + [5.0, 9.0]
    found = latency.quartiles(times)
    low, middle, high = np.percentile(times, [25, 50, 75])
    assert found.median == pytest.approx(1000 * middle) and found.spread == pytest.approx(1000 * (high - low))


def test_what_is_measured_is_what_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock of our own: pass number k takes k ms, and those before the warm-up is over do not count."""
    seen: list[tuple[int, int, bool]] = []
    clock = [0.0]

    def forward(self: Classifier, images: torch.Tensor) -> torch.Tensor:
        seen.append((len(images), torch.get_num_threads(), torch.is_grad_enabled() or self.training))
        clock[0] += 0.001 * len(seen)
        return images

    monkeypatch.setattr(Classifier, "forward", forward)
    monkeypatch.setattr(latency.time, "perf_counter", lambda: clock[0])
    threads = torch.get_num_threads()
    blueprint = Blueprint.of(GENOTYPE, resolve({"retrain": {"channels": 4}}))
    found = latency.measure(blueprint, "torch", "cpu", batch=3, threads=threads + 1, passes=5)
    assert seen == [(3, threads + 1, False)] * (5 + latency.WARM_UP) and torch.get_num_threads() == threads
    assert (found.median, found.spread) == (8.0, 2.0)
