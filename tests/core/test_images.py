"""Batches: order, normalisation, and augmentation that is seeded, per image, and what its name says."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ddarts_core.data.augment import Augment, Draws
from ddarts_core.data.images import Share
from ddarts_core.data.sets import DataInfo, ImageSet, augment_of
from ddarts_core.settings.data_settings import DataConfig
from ddarts_core.settings.retrain_settings import RetrainConfig
from ddarts_core.tensors.seeding import generator
from tests.core.numbered import numbered

INFO = DataInfo("toy", 3, 1, 6, (0.5,), (0.25,))


# --- batches --------------------------------------------------------------------------------------------------------


def spelled(x: torch.Tensor) -> list[int]:
    """Numbers of normalised, not augmented images of `numbered`."""
    pixels = ((x * INFO.std[0] + INFO.mean[0]) * 255).round().to(torch.int64)[:, 0, 0]
    return (pixels[:, 0] + 256 * pixels[:, 1]).tolist()


def test_without_a_generator_the_order_is_kept_and_nothing_is_left_out() -> None:
    batches = list(numbered([0, 1, 2] * 5).batches(4, info=INFO))
    assert [len(y) for _, y in batches] == [4, 4, 4, 3]
    assert [n for x, _ in batches for n in spelled(x)] == list(range(15))
    assert torch.cat([y for _, y in batches]).tolist() == [0, 1, 2] * 5
    assert batches[0][0].dtype == torch.float32


def test_drop_last() -> None:
    assert [len(y) for _, y in numbered([0] * 15).batches(4, info=INFO, drop_last=True)] == [4, 4, 4]
    assert list(numbered([0] * 3).batches(4, info=INFO, drop_last=True)) == []


@given(st.integers(1, 40), st.integers(1, 50), st.integers(0, 1000))
def test_an_epoch_is_a_reproducible_permutation(number: int, batch_size: int, seed: int) -> None:
    images = numbered([n % 3 for n in range(number)])

    def epoch(stream: int) -> list[int]:
        out = []
        for x, y in images.batches(batch_size, info=INFO, generator=generator(seed, "weights", stream)):
            found = spelled(x)
            assert y.tolist() == [n % 3 for n in found]
            out += found
        return out

    assert epoch(0) == epoch(0)
    assert sorted(epoch(0)) == list(range(number))
    assert number < 10 or epoch(0) != epoch(1)


def test_augmentation_does_not_change_the_order() -> None:
    images = numbered([n % 3 for n in range(9)])
    plain = [y.tolist() for _, y in images.batches(9, info=INFO, generator=generator(1))]
    changed = [y.tolist() for _, y in images.batches(9, info=INFO, generator=generator(1), augment=Augment(2, True, 3))]
    assert plain == changed


def test_normalisation_is_per_channel() -> None:
    info = DataInfo("two", 1, 2, 1, (0.5, 0.0), (0.5, 2.0))
    images = ImageSet(torch.tensor([[[[255]], [[255]]]], dtype=torch.uint8), torch.tensor([0]))
    ((x, _),) = images.batches(1, info=info)
    assert x.flatten().tolist() == pytest.approx([1.0, 0.5])
    floats = ImageSet(torch.ones(1, 2, 1, 1), torch.tensor([0]))
    ((x, _),) = floats.batches(1, info=info)
    assert x.flatten().tolist() == pytest.approx([1.0, 0.5])


def test_images_and_labels_must_match() -> None:
    with pytest.raises(ValueError, match="do not match"):
        ImageSet(torch.zeros(2, 1, 3, 3), torch.zeros(3, dtype=torch.int64))


def test_a_set_moves_to_a_device_once() -> None:
    images = numbered([0, 1])
    assert images.to("cpu") is images
    moved = images.to("meta")
    assert moved.images.device.type == "meta"
    assert images.to("meta") is moved


# --- augmentation ---------------------------------------------------------------------------------------------------

AUGMENTS = [Augment(crop_padding=2), Augment(flip=True), Augment(cutout=3), Augment(autoaugment=True),
            Augment(2, True, 3, True), Augment(resized_crop=True), Augment(color_jitter=0.4)]  # fmt: skip


def noise(number: int = 16, channels: int = 1, size: int = 6) -> ImageSet:
    pixels = torch.randint(1, 256, (number, channels, size, size), generator=generator(0), dtype=torch.uint8)
    return ImageSet(pixels, torch.zeros(number, dtype=torch.int64))


def draws(images: torch.Tensor) -> Draws:
    return Draws(generator(0), len(images), slice(None), images.device)


def augmented(images: ImageSet, augment: Augment, *stream: int) -> torch.Tensor:
    channels = images.images.shape[1]
    info = DataInfo("noise", 1, channels, 6, (0.5,) * channels, (0.25,) * channels)
    ((x, _),) = images.batches(len(images), info=info, generator=generator(3, *stream), augment=augment)
    return x


@pytest.mark.parametrize("augment", AUGMENTS, ids=repr)
@pytest.mark.parametrize("channels", [1, 3])
def test_augmentation_is_seeded_and_differs_by_image(augment: Augment, channels: int) -> None:
    images = noise(1, channels)
    images = ImageSet(images.images.repeat(24, 1, 1, 1), torch.zeros(24, dtype=torch.int64))
    torch.manual_seed(1)
    first = augmented(images, augment, 0)
    global_draw = torch.rand(1)
    torch.manual_seed(2)
    assert torch.equal(augmented(images, augment, 0), first)
    assert not torch.equal(augmented(images, augment, 1), first)
    assert len(first.flatten(1).unique(dim=0)) > 1  # the same image came out in several ways
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), global_draw)  # the global generator was not consumed


def test_the_stored_images_are_never_changed() -> None:
    images = noise()
    before = images.images.clone()
    for augment in AUGMENTS:
        augmented(images, augment)
    assert torch.equal(images.images, before)


def test_a_crop_is_a_window_of_the_padded_image() -> None:
    images = noise(200).images
    cropped = Augment(crop_padding=2).before_normalisation(images, draws(images))
    padded = torch.nn.functional.pad(images, (2, 2, 2, 2))
    places = set()
    for image, result in zip(padded, cropped, strict=True):
        found = [(y, x) for y in range(5) for x in range(5) if torch.equal(image[:, y : y + 6, x : x + 6], result)]
        assert len(found) == 1
        places.add(found[0])
    assert places == {(y, x) for y in range(5) for x in range(5)}


def test_a_flip_mirrors_about_half_left_to_right() -> None:
    images = noise(400).images
    result = Augment(flip=True).before_normalisation(images, draws(images))
    same = (result == images).flatten(1).all(1)
    mirrored = (result == images.flip(-1)).flatten(1).all(1)
    assert bool((same ^ mirrored).all())
    assert 150 < int(mirrored.sum()) < 250


@pytest.mark.parametrize("side", [1, 2, 3, 4])
def test_cutout_blanks_a_square_cut_at_the_border(side: int) -> None:
    images = torch.ones(500, 2, 6, 6)
    result = Augment(cutout=side).after_normalisation(images, draws(images))
    assert torch.equal(result[:, 0], result[:, 1])
    holes = set()
    for image in result[:, 0]:
        rows, columns = (image == 0).any(1).nonzero().flatten(), (image == 0).any(0).nonzero().flatten()
        assert int((image == 0).sum()) == len(rows) * len(columns) <= side * side
        assert rows.tolist() == list(range(int(rows[0]), int(rows[-1]) + 1))
        holes.add((len(rows), len(columns)))
    assert (side, side) in holes
    assert side == 1 or (side, side) != min(holes)  # some were cut at the border


def test_augmentation_needs_a_generator() -> None:
    with pytest.raises(ValueError, match="needs a generator"):
        next(iter(noise().batches(4, info=INFO, augment=Augment(flip=True))))


def test_augment_of_a_configuration() -> None:
    assert augment_of(DataConfig(), "digits") is None
    assert augment_of(DataConfig(crop_padding=4, flip=True, cutout=16), "digits") == Augment(4, True, 16)
    imagenet = augment_of(RetrainConfig(resized_crop=True, color_jitter=0.4), "imagenet")
    assert imagenet == Augment(resized_crop=True, color_jitter=0.4, policy="IMAGENET")


@pytest.mark.parametrize("augment", [None, *AUGMENTS], ids=repr)
def test_shares_of_a_batch_are_parts_of_the_whole_batch(augment: Augment | None) -> None:
    images = noise(22, 3)
    info = DataInfo("noise", 1, 3, 6, (0.5,) * 3, (0.25,) * 3)

    def epoch(share: Share) -> list[torch.Tensor]:
        found = images.batches(8, info=info, generator=generator(1), augment=augment, share=share)
        return [x for x, _ in found]

    parts = zip(epoch(Share(0, 3)), epoch(Share(1, 3)), epoch(Share(2, 3)), strict=True)
    for whole, shares in zip(epoch(Share()), parts, strict=True):
        assert torch.equal(torch.cat(shares), whole)


@pytest.mark.gpu
@pytest.mark.parametrize("augment", [None, *AUGMENTS[:3]], ids=repr)
def test_the_generator_and_not_the_device_of_the_images_decides(augment: Augment | None) -> None:
    images = noise(64)
    here, there = (
        [x for x, _ in images.batches(16, info=INFO, generator=generator(1), device=device, augment=augment)]
        for device in ("cpu", "cuda")
    )
    for x, y in zip(here, there, strict=True):
        assert y.is_cuda
        assert torch.allclose(x, y.cpu(), atol=1e-6)


@pytest.mark.gpu
@pytest.mark.parametrize("augment", AUGMENTS, ids=repr)
def test_batches_on_a_gpu_by_its_own_generator(augment: Augment) -> None:
    images = noise(64)
    first, again = (
        [
            x
            for x, _ in images.batches(
                16, info=INFO, generator=generator(1, device="cuda"), device="cuda", augment=augment
            )
        ]
        for _ in range(2)
    )
    assert all(torch.equal(x, y) for x, y in zip(first, again, strict=True))
