"""The benchmark runs and its counts are right; nothing here looks at a clock."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from tests.benchmarks import bench, page, small, training, works
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
    image, weight, out = 2 * 4 * 64, 6 * 2 * 9, 2 * 6 * 64
    forwards = (image + weight + out) + 2 * out + (out + 1)  # convolution, ReLU, sum
    backwards = 2 + 3 * out + (out + image + weight + weight)  # a one, ReLU, convolution
    assert found.moved == 4 * (forwards + backwards)


def test_a_row_adds_to_the_page(tmp_path):
    numbers, page = tmp_path / "numbers.json", tmp_path / "page.md"
    settings = ["--quick", "--rounds", "1", "--numbers", str(numbers), "--page", str(page)]
    bench.main(["--rows", "counts", *settings])
    assert "| alpha none |" in page.read_text() and "## Time" not in page.read_text()
    counts = json.loads(numbers.read_text())["counts"]
    assert counts["alpha none"]["macs"] <= 1.1 * counts["weights"]["macs"]
    bench.main(["--rows", "steps,kernels,training", *settings])
    assert all(
        title in page.read_text() for title in ("## Time", "| alpha none |", "## Single convolutions", "| batch=4 |")
    )


def test_iterations_stand_beside_plain_loops(tmp_path):
    numbers, page = tmp_path / "numbers.json", tmp_path / "page.md"
    settings = ["--quick", "--rounds", "1", "--numbers", str(numbers), "--page", str(page)]
    bench.main(["--rows", "iterations", *settings])
    text = page.read_text()
    assert "| first-order DARTS, weight step |" in text and "| our weights |" in text
    found = json.loads(numbers.read_text())["iterations"]["counts"]
    assert found["our weights"]["launches"] < found["plain weights"]["launches"]


def test_the_plain_loop_trains_the_weights_that_ours_trains():
    shape = Shape(cells=3, channels=4, image=8, batch=4, nodes=2)
    nets = []
    for make in (works.plain_darts, works.our_darts):
        net, _, weight_step = make(shape)
        torch.manual_seed(0)
        weight_step()
        nets.append(net)
    for plain, ours in zip(*(net.parameters() for net in nets), strict=True):
        assert torch.allclose(plain, ours, atol=1e-6)


def test_a_step_of_every_method_stands_beside_the_textbooks(tmp_path, monkeypatch):
    few = ("drnas", "random")
    assert set(few) <= set(bench.METHODS)
    monkeypatch.setattr(bench, "METHODS", few)
    numbers, page = tmp_path / "numbers.json", tmp_path / "page.md"
    settings = ["--quick", "--rounds", "1", "--numbers", str(numbers), "--page", str(page)]
    bench.main(["--rows", "methods", *settings])
    assert json.loads(numbers.read_text())["methods"].keys() == {"textbook", *few}
    assert all(f"| {name} | " in page.read_text() for name in few)


def test_launches_and_kept_activations_of_a_search_step_reach_their_goals():
    """Of the full-sized supernet; two images, since neither ratio grows with the batch in the textbook's favour."""
    shape = Shape(batch=2)
    theirs = [count(lambda name=name: bench.STEPS[name](shape)) for name in ("textbook alpha", "textbook weights")]
    ours = [count(lambda name=name: bench.STEPS[name](shape)) for name in ("alpha monitor random", "weights")]
    assert sum(of.launches for of in ours) <= sum(of.launches for of in theirs) / 4
    assert max(of.kept for of in ours) <= max(of.kept for of in theirs) / 3


def test_the_goal_of_an_epoch_is_that_of_the_device():
    numbers = {"textbook": [6.0], "ours": [1.0]}
    assert ">= 5x" in page._times({}, numbers, 5.0)[-2]
    shape, machine = vars(Shape(device="cuda")), bench.machine(Shape())
    assert "| 6.0x | >= 10x |" in page.render({"shape": shape, "machine": machine, "epoch": numbers})


def test_a_small_trial_is_counted_as_often_as_it_steps():
    """48 steps of warm-up and 64 of search, as the file of the sweep says, with ablated networks at every second."""
    config = small.settings()
    info, images = small.load_train(config.data)
    steps = small._steps(config, info, small.split(images, config.data, config.seed))
    times = {name: number for name, (_, number) in steps.items()}
    assert times["weight steps"] == 48 + 64
    assert times["alpha steps with ablated networks"] == times["other alpha steps"] == 32


def test_the_page_says_what_stacked_trials_would_save():
    part = {"launches": 3, "macs": 10**6, "times": 2}
    parts = {"weight steps": part, "steps of the derived network": part}
    seconds = {"weight steps": {"readable": [0.4, 0.5, 0.3], "auto": [0.2]}}
    text = page._small(parts, seconds, {"alone, fast": 100, "alone, readable": 150, "8": 200})
    assert "| weight steps | 2 | 3 | 1.0 | 50 % |" in text
    assert "| weight steps | 400 | 200 | 2.0x |" in text
    assert "| 8 | 200 | 25 | 0.25 |" in text
    assert text[-2] == "their steps are 50 % of the launches above."


class Formats(TorchDispatchMode):
    """Number formats of the convolutions that run."""

    def __init__(self):
        super().__init__()
        self.found = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket.__name__ == "convolution":
            self.found.add(args[0].dtype)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(("amp", "wanted"), [("none", torch.float32), ("bf16", torch.bfloat16)])
@pytest.mark.parametrize("make", [works.our_weight_step, lambda *a: works.our_alpha_step(a[0], "none", "random", a[1])])
def test_a_row_computes_in_the_format_that_it_names(make, amp, wanted):
    _, step = make(Shape(cells=3, channels=4, image=8, batch=4, nodes=1), f"search.amp={amp}")
    with Formats() as formats:
        step()
    assert formats.found == {wanted}


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


def test_the_plain_training_step_and_ours_are_the_same_mathematics():
    """The loop of the benchmark and `Retrain._step`, from the same weights."""
    shape = Shape(cells=3, channels=4, image=8, batch=8)
    (plain, plain_step), (ours, our_step) = (make(shape) for make in (training.plain_step, training.our_step))
    plain.load_state_dict(ours.state_dict())
    torch.manual_seed(0)
    plain_step()
    torch.manual_seed(0)
    our_step()
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_a_training_step_launches_and_keeps_less_than_the_plain_one():
    plain, ours = (count(lambda make=make: make(Shape(batch=2))) for make in (training.plain_step, training.our_step))
    assert ours.kept <= 0.85 * plain.kept
    assert ours.launches <= 0.7 * plain.launches
