"""Training on another task: learning rate, resuming bit for bit, and scores as pycocotools counts them."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ddarts_core.genotypes.zoo import ZOO
from ddarts_core.ground.errors import UserError
from ddarts_core.loops import checkpoint
from ddarts_core.transfer import shapes
from ddarts_core.transfer.evaluation import Answer, average_precision
from ddarts_core.transfer.examples import Example
from ddarts_core.transfer.model import MEAN, STD
from ddarts_core.transfer.scan import read_splits
from ddarts_core.transfer.settings import RECIPES, resolve, settings_hash
from ddarts_core.transfer.training import Transfer, learning_rate

SMALL = {"coco-detection": "retinanet-small", "cityscapes-instances": "mask-rcnn-small"}
TINY = [
    "network.channels=2",
    "network.pyramid=8",
    "network.head_width=8",
    "training.epochs=2",
    "training.batch_size=2",
    "training.lr_epochs=[1]",
    "training.warmup_steps=2",
    "training.shortest_side=[48, 64]",
    "training.longest_side=96",
    "training.boxes_per_image=8",
    "training.evaluate_every=2",
    "detections.number=20",
]


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_says_everything_that_it_needs(recipe: str) -> None:
    config = resolve({"task": RECIPES[recipe]["task"], "recipe": recipe})
    assert config.recipe == recipe


def test_half_the_batch_has_half_the_learning_rate() -> None:
    """mmdetection's batch of 8 has 0.005 where 16 have 0.01."""
    assert resolve({}, ["training.batch_size=8"]).training.scaled_lr == 0.005
    assert resolve({}).training.scaled_lr == 0.01


def test_learning_rate_of_the_published_recipe() -> None:
    training = resolve({}).training
    rates = [learning_rate(training, step, epoch) for step, epoch in ((0, 0), (250, 0), (500, 0), (9, 1))]
    assert rates == pytest.approx([1e-5, 1e-5 + (0.01 - 1e-5) / 2, 0.01, 1e-5 + 9 / 500 * (0.01 - 1e-5)])
    late = [learning_rate(training, 10_000, epoch) for epoch in (7, 8, 10, 11)]
    assert late == pytest.approx([0.01, 0.001, 0.001, 0.0001])


def test_a_recipe_of_another_task_is_refused() -> None:
    with pytest.raises(UserError, match="for coco-detection choose one of retinanet-1x, retinanet-small"):
        resolve({"task": "coco-detection", "recipe": "mask-rcnn-small"})


def test_places_are_no_part_of_a_result() -> None:
    here, there = (resolve({"data": {"root": root, "num_workers": n}}) for root, n in (("a", 0), ("b", 4)))
    assert settings_hash(here) == settings_hash(there)
    assert settings_hash(here) != settings_hash(resolve({"seed": 1}))


@pytest.mark.parametrize("task", SMALL)
def test_a_training_resumes_bit_for_bit(task: Any, tmp_path: Path) -> None:
    """In another process's place: a new object from the file, after something else drew from the global generator."""
    shapes.write(task, tmp_path, 6, 2)
    config = resolve({"task": task, "recipe": SMALL[task], "data": {"root": str(tmp_path)}}, TINY)
    splits = read_splits(config, lambda items, number, label: items)
    genotype = ZOO["ResNet18"].genotype

    def fresh() -> Transfer:
        return Transfer(config, genotype, splits, None, MEAN, STD)

    whole = fresh()
    records = []
    for record in whole.records():
        records.append(record)
        if record.epoch == 0:
            checkpoint.save(tmp_path / "checkpoint.pt", {"run": whole.state_dict()}, packed=True)
    assert len(records) == 2 and 0 < records[0].metrics["train/loss"] < 50
    assert "held_out/box_ap50" in records[1].metrics and "held_out/box_ap50" not in records[0].metrics
    torch.rand(17)
    later = fresh()
    later.load_state_dict(checkpoint.load(tmp_path / "checkpoint.pt")["run"])
    assert [*later.records()] == records[1:]
    for one, other in zip(whole.detector.state_dict().values(), later.detector.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    other_settings = Transfer(config.model_copy(update={"seed": 1}), genotype, splits, None, MEAN, STD)
    with pytest.raises(UserError, match="other settings or another genotype"):
        other_settings.load_state_dict(whole.state_dict())
    for change in CHANGES[task]:
        with changed(tmp_path, change):
            now = read_splits(config, lambda items, number, label: items)
            again = Transfer(config, genotype, now, None, MEAN, STD)
            if change is _sky:  # which neither trains nor scores
                again.load_state_dict(whole.state_dict())
                continue
            with pytest.raises(UserError, match=r"made with other images \(names, sizes, objects or classes of some"):
                again.load_state_dict(whole.state_dict())


Change = Callable[[Path], object]


@contextlib.contextmanager
def changed(root: Path, change: Change) -> Iterator[None]:
    """A set that `change` has changed, which is as it was afterwards."""
    before = {path: path.read_bytes() for path in root.rglob("*.*") if path.suffix in (".json", ".jpg", ".png")}
    change(root)
    assert any(path.read_bytes() != content for path, content in before.items())
    yield
    for path, content in before.items():
        path.write_bytes(content)


def _annotations(change: Callable[[dict[str, Any]], object]) -> Change:
    def apply(root: Path) -> None:
        for file in root.glob("annotations/*.json"):
            data = json.loads(file.read_text())
            change(data)
            file.write_text(json.dumps(data))

    return apply


def _ids(change: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]) -> Change:
    def apply(root: Path) -> None:
        for file in root.glob("gtFine/val/*/*.png"):
            Image.fromarray(change(np.asarray(Image.open(file)).astype(np.uint16))).save(file)

    return apply


def _longer(root: Path) -> None:
    file = max(root.rglob("*00003*.[jp][pn]g"))  # an image, not its ids
    file.write_bytes(file.read_bytes() + b"\0")


_sky = _ids(lambda ids: np.where(ids == shapes.SKY, 7, ids).astype(np.uint16))

#: Other images, with as many files, of the same names and sizes in pixels, and as many objects in each.
CHANGES: dict[str, list[Change]] = {
    "coco-detection": [
        _longer,
        _annotations(
            lambda d: [one.update(category_id={1: 7, 7: 90, 90: 1}[one["category_id"]]) for one in d["annotations"]]
        ),
        _annotations(lambda d: [one["bbox"].__setitem__(2, one["bbox"][2] * 0.5) for one in d["annotations"]]),
        _annotations(lambda d: d["annotations"][0].update(area=1)),
        _annotations(lambda d: d["categories"].__setitem__(0, {"id": 1, "name": "disc"})),
    ],
    "cityscapes-instances": [
        _longer,
        _sky,
        _ids(lambda ids: np.where(ids // 1000 == 24, ids + 1000, ids).astype(np.uint16)),
        _ids(lambda ids: np.roll(ids, 3, 1)),
    ],
}


def guesses(seed: int, masks: bool) -> list[Answer]:
    """Answers to drawn scenes: objects shifted, some with a wrong class, some missing, and some that are not there."""
    draws = np.random.default_rng(seed)
    answers = []
    for number in range(24):
        _, drawn = shapes.scene(seed, "guess", number, (192, 160))
        crowds = torch.tensor([shape.crowd for shape in drawn], dtype=torch.bool)
        boxes = torch.tensor([[x, y, x + w, y + h] for x, y, w, h in (s.box for s in drawn)]).float().reshape(-1, 4)
        pixels = (
            torch.stack([torch.from_numpy(s.mask) for s in drawn]) if drawn else torch.zeros(0, 160, 192, dtype=bool)
        )
        example = Example(
            Path(str(number)),
            torch.zeros(3, 160, 192, dtype=torch.uint8),
            boxes,
            torch.tensor([shape.kind for shape in drawn], dtype=torch.int64),
            pixels.sum((1, 2)).float(),
            crowds,
            pixels.to(torch.uint8) if masks else None,
        )
        kept = [i for i in range(len(drawn)) if draws.random() < 0.85]
        shifts = [(int(draws.integers(-6, 7)), int(draws.integers(-6, 7))) for _ in kept]
        moved = [np.roll(drawn[i].mask, shift, (0, 1)) for i, shift in zip(kept, shifts, strict=True)]
        stray = np.zeros((160, 192), dtype=bool)
        stray[10:50, 20:70] = True
        moved.append(stray)
        found = [shapes.Shape(0, False, mask) for mask in moved]
        labels = [drawn[i].kind if draws.random() < 0.9 else 2 for i in kept] + [1]
        answers.append(
            Answer(
                example,
                torch.tensor([[x, y, x + w, y + h] for x, y, w, h in (s.box for s in found)]).float(),
                torch.tensor(labels),
                torch.from_numpy(draws.random(len(found))).float(),
                torch.from_numpy(np.stack(moved)) if masks else None,
            )
        )
    return answers


def by_pycocotools(answers: list[Answer], kind: str) -> list[float]:
    """The first six numbers of its summary: AP, AP50, AP75, small, medium, large."""
    from pycocotools import mask as encoder
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def shape(box: Any, pixels: Any) -> dict[str, Any]:
        x1, y1, x2, y2 = box.tolist()
        one: dict[str, Any] = {"bbox": [x1, y1, x2 - x1, y2 - y1]}
        if kind == "segm":
            one["segmentation"] = encoder.encode(np.asfortranarray(pixels.numpy().astype(np.uint8)))
        return one

    truth: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for number, answer in enumerate(answers, 1):
        example = answer.example
        for i, label in enumerate(example.labels.tolist()):
            own = shape(example.boxes[i], None if example.masks is None else example.masks[i])
            own |= {"area": float(example.areas[i]), "iscrowd": int(example.crowds[i]), "category_id": label + 1}
            truth.append({"id": len(truth) + 1, "image_id": number, **own})
        for i, label in enumerate(answer.labels.tolist()):
            own = shape(answer.boxes[i], None if answer.masks is None else answer.masks[i])
            own |= {"area": own["bbox"][2] * own["bbox"][3], "category_id": label + 1, "score": float(answer.scores[i])}
            if kind == "segm":
                own["area"] = float(answer.masks[i].sum())
            found.append({"id": len(found) + 1, "image_id": number, "iscrowd": 0, **own})
    with contextlib.redirect_stdout(io.StringIO()):
        images = [{"id": number + 1, "height": 160, "width": 192} for number in range(len(answers))]
        sets = []
        for annotations in (truth, found):
            coco = COCO()
            categories = [{"id": 1}, {"id": 2}, {"id": 3}]
            coco.dataset = {"images": images, "annotations": annotations, "categories": categories}
            coco.createIndex()
            sets.append(coco)
        counted = COCOeval(*sets, kind)
        counted.evaluate()
        counted.accumulate()
        counted.summarize()
    return [float(value) for value in counted.stats[:6]]


@pytest.mark.parametrize("masks", [False, True], ids=["boxes", "masks"])
def test_scores_are_those_of_pycocotools(masks: bool) -> None:
    """Crowds and areas included: with either left out the numbers are others."""
    answers = guesses(3, masks)
    names = ["ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"]
    found = average_precision(answers)
    for kind, own in (("bbox", "box"), *([("segm", "mask")] if masks else [])):
        expected = {f"{own}_{name}": value for name, value in zip(names, by_pycocotools(answers, kind), strict=True)}
        expected = {name: value for name, value in expected.items() if value >= 0}
        assert {name: found[name] for name in found if name.startswith(own)} == pytest.approx(expected, abs=1e-6)
        assert len(expected) >= 5 and 0.1 < expected[f"{own}_ap"] < 0.9
