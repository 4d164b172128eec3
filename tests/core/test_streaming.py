"""Images kept in files: what their batches are, and that neither workers nor reading ahead decide it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torchvision.transforms.v2 import functional

from ddarts_core.data.augment import Augment
from ddarts_core.data.images import Share
from ddarts_core.data.sets import data_info, load_test, load_train
from ddarts_core.data.splits import split
from ddarts_core.data.streaming import StreamedSet
from ddarts_core.genotypes.zoo import ZOO
from ddarts_core.ground.errors import UserError
from ddarts_core.search.search import Search, build_search
from ddarts_core.settings.config import resolve
from ddarts_core.settings.data_settings import DataConfig
from ddarts_core.tensors.seeding import generator
from ddarts_core.training.retrain import Retrain
from tests.core.test_data import write_imagenet

ALL = Augment(2, True, 9, True, True, 0.4, "IMAGENET")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("imagenet")
    write_imagenet(folder, pytest.MonkeyPatch())
    return folder


def config(root: Path, num_workers: int = 0, size: int = 32) -> DataConfig:
    return DataConfig(name="imagenet", root=str(root), num_workers=num_workers, image_size=size)


def test_evaluation_sees_the_centre_of_every_image_in_order(root: Path) -> None:
    info, images = load_train(config(root))
    assert isinstance(images, StreamedSet)
    (x, labels), (rest, _) = images.batches(20, info=info)
    assert x.shape == (20, 3, 32, 32) and rest.shape == (4, 3, 32, 32)
    assert labels.tolist() == [number // 8 for number in range(20)]
    image, label = images.files[9]
    pixels = functional.pil_to_tensor(functional.center_crop(functional.resize(image, [37]), [32])) / 255
    expected = functional.normalize(pixels, list(info.mean), list(info.std))
    assert label == 1
    torch.testing.assert_close(x[9], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("augment", [None, ALL])
def test_neither_workers_nor_an_unfinished_pass_change_a_batch(root: Path, augment: Augment | None) -> None:
    info = data_info(config(root))
    epochs = []
    for num_workers in (0, 2):
        images = load_train(config(root, num_workers))[1]
        before = torch.random.get_rng_state()
        for abandoned in (True, False):
            batches = images.batches(5, info=info, generator=generator(1, "x"), augment=augment, drop_last=True)
            if abandoned:
                next(iter(batches))
            else:
                epochs.append(list(batches))
        assert torch.equal(torch.random.get_rng_state(), before)
    assert [len(y) for _, y in epochs[0]] == [5] * 4
    for (x, y), (same_x, same_y) in zip(*epochs, strict=True):
        assert torch.equal(x, same_x) and torch.equal(y, same_y)
    other = next(iter(images.batches(5, info=info, generator=generator(2, "x"), augment=augment)))
    assert not torch.equal(other[0], epochs[0][0][0])


def test_shares_are_parts_of_the_whole_batch(root: Path) -> None:
    info, images = load_train(config(root))

    def epoch(share: Share) -> list[torch.Tensor]:
        found = images.batches(6, info=info, generator=generator(1), augment=ALL, share=share)
        return [x for x, _ in found]

    for whole, first, second in zip(epoch(Share()), epoch(Share(0, 2)), epoch(Share(1, 2)), strict=True):
        assert torch.equal(torch.cat([first, second]), whole)


def test_a_share_of_the_last_batch_may_hold_no_image(root: Path) -> None:
    info, images = load_train(config(root))
    first, second = ([x for x, _ in images.batches(23, info=info, share=Share(rank, 2))] for rank in (0, 1))
    assert [len(x) for x in first] == [11, 0] and [len(x) for x in second] == [12, 1]
    assert first[1].shape[1:] == second[1].shape[1:]


def test_splits_are_disjoint_and_join(root: Path) -> None:
    data = config(root)
    parts = split(load_train(data)[1], data, seed=0)
    places = [part.positions.tolist() for part in (parts.weights, parts.alphas, parts.held_out)]
    assert sorted(place for part in places for place in part) == list(range(24))
    joined = parts.weights.joined(parts.alphas)
    assert joined.labels.tolist() == [*parts.weights.labels.tolist(), *parts.alphas.labels.tolist()]
    assert len(load_test(data)) == 6


def test_a_search_and_a_training_in_the_form_for_imagenet(root: Path) -> None:
    """One epoch each on generated files, twice: the same to the bit."""
    experiment = resolve(
        {
            "data": {"name": "imagenet", "root": str(root), "num_workers": 0, "image_size": 32, "resized_crop": True},
            "search": {"form": "imagenet", "num_cells": 4, "channels": 2, "steps": 2, "epochs": 1, "batch_size": 4},
            "retrain": {"recipe": "imagenet-darts", "channels": 2, "num_cells": 3, "epochs": 1, "batch_size": 8},
        },
        ["ablation.loss=centered", "search.device=cpu", "retrain.device=cpu"],
    )

    def run() -> tuple[Search, dict[str, float], dict[str, float]]:
        search = build_search(experiment)
        found = next(search.records())
        images = load_train(experiment.data)[1]
        training = Retrain(experiment.retrain, ZOO["DARTS_V2"].genotype, search.info, images, None, seed=0)
        return search, dict(found.metrics), dict(next(training.records()).metrics)

    (search, *found), (again, *same) = run(), run()
    assert found == same
    assert torch.equal(search.alphas, again.alphas)
    assert search.net.stem(torch.zeros(1, 3, 32, 32))[1].shape == (1, 2, 4, 4)


def test_an_archive_is_not_unpacked_and_a_broken_folder_is_named(root: Path, tmp_path: Path) -> None:
    (tmp_path / "ILSVRC2012_img_train.tar").write_bytes(b"")
    with pytest.raises(UserError, match=r"cannot read imagenet .*no folder train.*folders train and val"):
        load_train(config(tmp_path))
    (tmp_path / "train").mkdir()
    with pytest.raises(UserError, match="cannot read imagenet"):
        load_train(config(tmp_path))
