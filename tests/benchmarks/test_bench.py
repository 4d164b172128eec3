"""The benchmark runs and its counts are right; nothing here looks at a clock."""

from __future__ import annotations

import json

import torch
from torch import nn

from tests.benchmarks import bench, page
from tests.benchmarks.counts import count
from tests.benchmarks.works import Shape


def _convolution():
    net = nn.Sequential(nn.Conv2d(4, 6, 3, padding=1, groups=2, bias=False), nn.ReLU())
    images = torch.randn(2, 4, 8, 8)
    return net, lambda: net(images).sum().backward()


def test_counts_of_one_convolution():
    """2 x 6 x 64 outputs of 2 x 9 products, and as many again for the weights' gradient; kept: the image, the ReLU."""
    found = count(_convolution)
    assert found.macs == 2 * (2 * 6 * 64) * (2 * 9)
    assert found.kept == 4 * (2 * 4 * 64 + 2 * 6 * 64)


def test_a_row_adds_to_the_page(tmp_path):
    numbers, page = tmp_path / "numbers.json", tmp_path / "page.md"
    settings = ["--quick", "--rounds", "1", "--numbers", str(numbers), "--page", str(page)]
    bench.main(["--rows", "counts", *settings])
    assert "| alpha none |" in page.read_text() and "## Time" not in page.read_text()
    counts = json.loads(numbers.read_text())["counts"]
    assert counts["alpha none"]["macs"] <= 1.1 * counts["weights"]["macs"]
    bench.main(["--rows", "steps,kernels", *settings])
    assert all(title in page.read_text() for title in ("## Time", "| alpha none |", "## Single convolutions"))


def test_how_cost_grows():
    """Ablations add forward passes of half the network per cell, and no step keeps more for having them."""
    found = {
        f"cells={cells} {name}": vars(count(lambda make=make, cells=cells: make(Shape(cells, 4, 8, 8, nodes=1))))
        for cells in (4, 8)
        for name, make in bench.GROWING.items()
    }
    for cells in (4, 8):
        of = {name: found[f"cells={cells} {name}"] for name in bench.GROWING}
        assert 0 < page.ablations(found, f"cells={cells}", cells) <= 1
        assert of["alpha none"]["macs"] <= 1.1 * of["weights"]["macs"]
        assert of["alpha monitor identity"]["kept"] == of["alpha none"]["kept"]
        assert of["alpha centered identity"]["kept"] <= 1.01 * of["alpha none"]["kept"]
