"""Two processes that train together against one that trains alone: the same to within rounding."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ddarts_core.data.images import Share
from ddarts_core.data.sets import load_train
from ddarts_core.data.splits import hold_out
from ddarts_core.genotypes.genotype import Cell, Edge, Genotype
from ddarts_core.ground.errors import Diverged, UserError
from ddarts_core.loops import checkpoint
from ddarts_core.networks.network import DropPath
from ddarts_core.networks.operations import BatchNorm
from ddarts_core.settings.data_settings import DataConfig
from ddarts_core.settings.retrain_settings import RetrainConfig
from ddarts_core.tensors.seeding import generator
from ddarts_core.training.parallel import ALONE, Group, SyncedBatchNorm
from ddarts_core.training.retrain import Retrain
from tests.core.two import Two, float64

#: The separable convolution leads to node 3, which the cell does not put out: it has no gradient.
CELL = Cell(
    (
        Edge(2, 0, "skip_connect"),
        Edge(2, 1, "sep_conv_3x3"),
        Edge(3, 0, "sep_conv_3x3"),
        Edge(4, 2, "max_pool_3x3"),
        Edge(4, 0, "conv_3x1_1x3"),
    ),
    (2, 4),
)
GENOTYPE = Genotype((CELL,) * 3, (1, 2))
#: Batches of 23: shares of 11 and 12. 24 validation images: a last batch of one image, of which one process has none.
FULL: dict[str, Any] = {
    "epochs": 3,
    "batch_size": 23,
    "channels": 2,
    "device": "cpu",
    "lr": 0.05,
    "grad_clip": 3.0,  # binds in nearly all steps; half of a gradient would not reach it
    "label_smoothing": 0.1,
    "class_weights": "balanced",
    "auxiliary_weight": 0.4,
    "drop_path": 0.5,
    "ema_decay": 0.9,
    "crop_padding": 1,
    "flip": True,
    "cutout": 2,
}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    two = Two(tmp_path_factory.mktemp("two"))
    yield two
    two.close()


def build(group: Group, **settings: Any) -> Retrain:
    info, digits = load_train(DataConfig(name="digits", num_train=120))
    train, validation = hold_out(digits, 0.2, 0, info.classes)
    config = RetrainConfig.model_validate(FULL | settings)
    return Retrain(config, GENOTYPE, info, train, validation, seed=3, group=group)


@float64()
def alone(epochs: int = 3) -> tuple[list[Any], dict[str, Any]]:
    """Records of so many epochs and the state, by one process."""
    run = build(ALONE)
    return [record.to_dict()["metrics"] for record in islice(run.records(), epochs)], run.state_dict()


# --- what both processes run: found there by name -------------------------------------------------------------------


@float64()
def train_together(file: str | None = None, epochs: int = 3) -> tuple[list[Any], dict[str, Any]]:
    """As `alone`; from the checkpoint in `file` if one is given."""
    run = build(Group.joined())
    if file:
        run.load_state_dict(checkpoint.load(file))
    return [record.to_dict()["metrics"] for record in islice(run.records(), epochs)], run.state_dict()


def losses_together(settings: dict[str, Any]) -> list[float]:
    return [record.metrics["train/loss"] for record in build(Group.joined(), **settings).records()]


def diverge_together() -> str:
    run = build(Group.joined())
    if run.group.rank == 1:
        with torch.no_grad():
            run._trained.classifier.bias.fill_(float("nan"))  # in one process only: both must notice
    try:
        next(run.records())
    except Diverged as error:
        return str(error)
    return "went on"


def normalise_together(x: Tensor, g: Tensor, cut: int, affine: bool) -> list[Tensor]:
    """Output and gradients of this process's images, and the running statistics."""
    rank = Group.joined().rank
    part = slice(0, cut) if rank == 0 else slice(cut, None)
    norm = SyncedBatchNorm.of(norm_like(x, affine))
    return normalise(norm, x[part], g[part])


def gather_together() -> list[Any]:
    return Group.joined().gathered({"rank": Group.joined().rank})


def norm_like(x: Tensor, affine: bool) -> BatchNorm:
    norm = BatchNorm(x.shape[1], eps=1e-3, momentum=0.3, affine=affine).to(x.dtype)
    if affine:
        with torch.no_grad():
            norm.weight.copy_(torch.linspace(0.5, 2, x.shape[1]))
            norm.bias.copy_(torch.linspace(-1, 1, x.shape[1]))
    return norm.train()


def normalise(norm: nn.Module, x: Tensor, g: Tensor) -> list[Tensor]:
    x = x.clone().requires_grad_()
    y = norm(x)
    inputs = [x, *norm.parameters()]
    return [y.detach(), *torch.autograd.grad(y, inputs, g), norm.running_mean, norm.running_var]  # type: ignore[list-item]  # they are tracked


# --- batch normalisation --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("cut", "affine", "size"), [(3, True, 4), (1, True, 1), (5, False, 3)])
def test_normalisation_of_two_shares_is_that_of_the_batch(two: Two, cut: int, affine: bool, size: int) -> None:
    """Values, gradients and running statistics are those of torch's batch_norm on all six images; float64."""
    draw = generator(1, "norm")
    shape = (6, 4, size, size)
    x = torch.randn(shape, generator=draw, dtype=torch.float64) * 3 + 100  # cancels where sums of squares are taken
    g = torch.randn(shape, generator=draw, dtype=torch.float64)
    whole = normalise(norm_like(x, affine), x, g)
    first, second = two.run(normalise_together, x, g, cut, affine)
    per_image, parameters = 2, 2 * affine
    for number, expected in enumerate(whole):
        if number < per_image:
            found = torch.cat([first[number], second[number]])
        elif number < per_image + parameters:
            found = first[number] + second[number]
        else:
            assert torch.equal(first[number], second[number])
            found = first[number]
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_normalisation_in_float32_does_not_cancel(two: Two) -> None:
    draw = generator(2, "norm")
    x, g = torch.randn(6, 3, 5, 5, generator=draw) + 1000, torch.randn(6, 3, 5, 5, generator=draw)
    exact = normalise(norm_like(x.double(), True), x.double(), g.double())
    found = two.run(normalise_together, x, g, 2, True)
    torch.testing.assert_close(torch.cat([part[0] for part in found]).double(), exact[0], rtol=1e-3, atol=1e-3)


def test_synced_normalisation_shares_what_it_replaces() -> None:
    norm = norm_like(torch.zeros(2, 3, 1, 1), True).eval()
    synced = SyncedBatchNorm.of(norm)
    assert list(synced.state_dict()) == list(norm.state_dict())
    for mine, theirs in zip(synced.state_dict().values(), norm.state_dict().values(), strict=True):
        assert mine.data_ptr() == theirs.data_ptr()
    x = torch.randn(2, 3, 4, 4, generator=generator(3))
    assert torch.equal(synced(x), norm(x)) and (synced.eps, synced.momentum) == (norm.eps, norm.momentum)


# --- drop-path ------------------------------------------------------------------------------------------------------


def test_drop_path_of_shares_is_that_of_the_batch() -> None:
    def masks(share: Share) -> Tensor:
        drop = DropPath().train()
        drop.probability, drop.generator, drop.of_batch = 0.5, generator(1), (9, share.of(9))
        x = torch.ones(len(range(9)[share.of(9)]), 1, 1, 1)
        return torch.stack([drop(x), drop(x)], dim=1)

    whole = masks(Share())
    assert torch.equal(torch.cat([masks(Share(0, 2)), masks(Share(1, 2))]), whole)
    assert 0 < (whole == 0).sum() < whole.numel()


# --- training -------------------------------------------------------------------------------------------------------


def same(state: dict[str, Any], other: dict[str, Any]) -> None:
    for name in ("trained", "averaged"):
        for key, value in state[name].items():
            torch.testing.assert_close(other[name][key], value, rtol=1e-10, atol=1e-11, msg=lambda m, key=key: key + m)


def identical(state: dict[str, Any], other: dict[str, Any]) -> None:
    for name in ("trained", "averaged"):
        assert all(torch.equal(value, other[name][key]) for key, value in state[name].items())


@pytest.fixture(scope="module")
def together(two: Two) -> tuple[list[Any], dict[str, Any]]:
    """Three epochs of the two processes, which agree to the bit."""
    (records, state), (others, other) = two.run(train_together)
    assert records == others
    identical(state, other)
    return records, state


def test_two_processes_train_as_one(together: tuple[list[Any], dict[str, Any]]) -> None:
    """Drop-path, auxiliary head, augmentation, clipping, averaged weights, uneven shares, an unused operation."""
    records, state = alone()
    for expected, metrics in zip(records, together[0], strict=True):
        assert metrics == pytest.approx(expected, rel=1e-10)
    same(state, together[1])
    assert together[1]["best"]["epoch"] == state["best"]["epoch"]
    earlier = alone(1)[1]["trained"]
    assert any(not torch.allclose(earlier[key], value, atol=1e-3) for key, value in state["trained"].items())


def test_resume_is_bit_exact(two: Two, together: tuple[list[Any], dict[str, Any]], tmp_path: Path) -> None:
    records, state = two.run(train_together, None, 1)[0]
    checkpoint.save(tmp_path / "two.pt", state)
    rest, state = two.run(train_together, str(tmp_path / "two.pt"))[0]
    assert records + rest == together[0]
    identical(state, together[1])


def test_two_processes_go_on_for_one(two: Two, together: tuple[list[Any], dict[str, Any]], tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "one.pt", alone(1)[1])
    records, state = two.run(train_together, str(tmp_path / "one.pt"))[0]
    for expected, metrics in zip(together[0][1:], records, strict=True):
        assert metrics == pytest.approx(expected, rel=1e-10)
    same(together[1], state)


def test_reduced_precision_and_drop_path_of_operations(two: Two) -> None:
    """bfloat16 rounds to 3 digits, so that the two trainings are near each other and no more."""
    settings = {"amp": "bf16", "drop_path_unit": "operation", "lr": 0.01, "epochs": 2}
    expected = [record.metrics["train/loss"] for record in build(ALONE, **settings).records()]
    assert two.run(losses_together, settings)[0] == pytest.approx(expected, rel=0.02)


def test_all_processes_notice_that_one_diverges(two: Two) -> None:
    first, second = two.run(diverge_together)
    assert first == second and "the loss is nan in step 0 of epoch 0" in first


def test_gathered_by_rank(two: Two) -> None:
    assert two.run(gather_together) == [[{"rank": 0}, {"rank": 1}]] * 2
    assert ALONE.gathered(5) == [5]


def test_a_process_without_images_is_refused() -> None:
    with pytest.raises(UserError, match="batch_size 23 leaves some of the 24 processes without an image: use 24"):
        build(Group(0, 24))
