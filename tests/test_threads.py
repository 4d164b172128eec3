"""One thread for small feature maps, unless the user says otherwise."""

from __future__ import annotations

import pytest
import torch

from ddarts_cli.threads import limit_threads


@pytest.mark.parametrize(("size", "variable", "expected"), [(8, None, 1), (32, None, 2), (8, "2", 2)])
def test_threads(monkeypatch, size, variable, expected):
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if variable:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
    torch.set_num_threads(2)
    try:
        limit_threads(64, 8, size)
        assert torch.get_num_threads() == expected
    finally:
        torch.set_num_threads(before)
