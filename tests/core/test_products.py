"""Vector-Jacobian products against torch's own, and what a search imports."""

from __future__ import annotations

import subprocess
import sys

import torch

from ddarts_core.tensors.products import vector_jacobian

SEARCH = """
import sys
from ddarts_core.data.sets import load_train
from ddarts_core.data.splits import split
from ddarts_core.search.search import Search
from ddarts_core.settings.config import resolve
small = {"num_cells": 3, "channels": 4, "steps": 1, "warmup_epochs": 0, "epochs": 1, "batch_size": 40, "device": "cpu"}
config = resolve({"seed": 1, "data": {"num_train": 200}, "search": small, "ablation": {"loss": "centered"}})
info, train = load_train(config.data)
print(len(list(Search(config, info, split(train, config.data, config.seed)).records())), "sympy" in sys.modules)
"""


def test_a_product_is_that_of_torch_to_the_last_bit() -> None:
    stream = torch.Generator().manual_seed(0)
    x, unused = (torch.randn(3, 4, generator=stream, requires_grad=True) for _ in range(2))
    output = (x.exp() @ torch.randn(4, 5, generator=stream)).sigmoid()
    direction = torch.randn(3, 5, generator=stream)
    expected = torch.autograd.grad(output, [x, unused], direction, retain_graph=True, allow_unused=True)
    found = vector_jacobian(output, [x, unused], direction, allow_unused=True)
    assert found[0] is not None and expected[0] is not None
    assert torch.equal(found[0], expected[0])
    assert found[1] is None


def test_a_search_does_not_import_sympy() -> None:
    """Neither its weight steps nor those of the alphas with ablations that are differentiated."""
    run = subprocess.run([sys.executable, "-c", SEARCH], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["1", "False"]
