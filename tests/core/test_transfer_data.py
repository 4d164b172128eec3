"""COCO's and Cityscapes' formats: what is read, and every fault as one sentence with the file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ddarts_core.ground.errors import UserError
from ddarts_core.transfer import shapes
from ddarts_core.transfer.cityscapes import THINGS, CityscapesImages
from ddarts_core.transfer.coco import CocoImages
from ddarts_core.transfer.copies import HEAD
from ddarts_core.transfer.scan import Splits, read_splits, score_splits
from ddarts_core.transfer.settings import Task, resolve


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("coco")
    shapes.write("coco-detection", root, 21, 3)
    return root


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("street")
    shapes.write("cityscapes-instances", root, 21, 3)
    return root


def scanned(task: str, root: Path, *overrides: str) -> Splits:
    small = {"coco-detection": "retinanet-small", "cityscapes-instances": "mask-rcnn-small"}[task]
    config = resolve({"task": task, "recipe": small, "data": {"root": str(root)}}, overrides)
    return read_splits(config, lambda items, number, label: items)


def test_coco_is_read_with_its_traps(coco: Path) -> None:
    """Ids with gaps, an image without objects, crowds, and a box without width: what is drawn is what is found."""
    splits = scanned("coco-detection", coco)
    assert splits.train.classes == ("circle", "square", "triangle")
    for number in range(21):
        _, drawn = shapes.scene(0, "train2017", number, (128, 112))
        example = splits.train[number]
        flat = number == 1
        assert example.labels.tolist() == [shape.kind for shape in drawn] + [0] * flat
        assert example.crowds.tolist() == [shape.crowd for shape in drawn] + [False] * flat
        boxes = [[x, y, x + w, y + h] for x, y, w, h in (shape.box for shape in drawn)] + [[9, 9, 9, 13]] * flat
        assert example.boxes.tolist() == boxes
        assert example.boxes.shape[1] == 4 and example.image.shape == (3, 112, 128)
        assert len(example.of_training().labels) == sum(not shape.crowd for shape in drawn)
    assert 19 not in splits.used and 1 in splits.used
    assert len(scanned("coco-detection", coco, "training.drop_empty=false").used) == 21


def test_cityscapes_is_read_with_its_traps(street: Path) -> None:
    """Ids of 1000 and more are objects, smaller ones of the same classes crowds; sky and caravans are neither."""
    assert list(THINGS) == [24, 25, 26, 27, 28, 31, 32, 33]
    splits = scanned("cityscapes-instances", street)
    for number in range(21):
        _, drawn = shapes.scene(0, "train", number, (192, 96))
        example = splits.train[number]
        order = sorted(
            range(len(drawn)),
            key=lambda i: (
                shapes.CITYSCAPES_IDS[drawn[i].kind] * (1 if drawn[i].crowd else 1000) + i * (not drawn[i].crowd)
            ),
        )
        expected = [drawn[i] for i in order]
        names = [splits.train.classes[label] for label in example.labels]
        assert names == [("person", "car", "bicycle")[shape.kind] for shape in expected]
        assert example.crowds.tolist() == [shape.crowd for shape in expected]
        assert example.masks is not None and example.masks.dtype == torch.uint8
        assert all(np.array_equal(m, s.mask) for m, s in zip(example.masks.bool(), expected, strict=True))
        assert example.boxes.tolist() == [[x, y, x + w, y + h] for x, y, w, h in (shape.box for shape in expected)]
        assert example.areas.tolist() == [shape.mask.sum() for shape in expected]


def test_an_object_of_one_pixel_has_a_box(street: Path) -> None:
    """torchvision's `masks_to_boxes` gives it no width."""
    file = min((street / "gtFine" / "val").glob("*/*.png"))
    original = file.read_bytes()
    ids = np.full((96, 192), 7, dtype=np.uint16)
    ids[5, 8] = 26_000
    Image.fromarray(ids).save(file)
    try:
        example = CityscapesImages(street, "val")[0]
    finally:
        file.write_bytes(original)
    assert example.boxes.tolist() == [[8, 5, 9, 6]]


def test_a_mirrored_example_is_mirrored_whole(street: Path) -> None:
    example = CityscapesImages(street, "train")[2]
    mirrored = example.mirrored()
    assert mirrored.masks is not None
    for box, mask in zip(mirrored.boxes.int().tolist(), mirrored.masks, strict=True):
        rows, columns = mask.nonzero().T
        assert box == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert torch.equal(mirrored.mirrored().image, example.image)
    assert torch.equal(mirrored.mirrored().boxes, example.boxes)


Change = Callable[[dict[str, Any]], object]

#: What is done to COCO's file, and the sentence that follows.
WRONG: list[tuple[Change, str]] = [
    (
        lambda d: d["annotations"][0].update(image_id=999),
        r"annotation 1 is of image 999, which the file does not declare",
    ),
    (
        lambda d: d["annotations"][0].update(category_id=2),
        r"annotation 1 of 0+\.jpg has category 2, which the file does not",
    ),
    (
        lambda d: d["annotations"][0].update(bbox=[100, 0, 40, 9]),
        r"annotation 1 .* outside its image of 128 x 112 pixels",
    ),
    (lambda d: d["annotations"][0].update(bbox=[1, 2, 3]), r"annotation 1 .* has no bbox of four numbers"),
    (lambda d: d["annotations"][0].pop("category_id"), r"category_id is None in .* must be a whole number"),
    (lambda d: d["images"][0].update(file_name="no.jpg"), r"no\.jpg is missing: its annotations are there"),
    (lambda d: d["images"][0].update(width=640), r"0\.jpg has 128 x 112 pixels and .* declares 640 x 112"),
    (lambda d: d["images"].append(d["images"][0]), r"two images have the id 5"),
    (lambda d: d["annotations"].append(d["annotations"][0]), r"two annotations have the id 1"),
    (lambda d: d["annotations"][0].pop("id"), r"id is None in .* must be a whole number"),
    (lambda d: d["categories"].pop(), r"has category 90, which the file does not declare"),
    (
        lambda d: d["categories"].append({"id": 91, "name": "star"}),
        r"instances_val2017\.json declares other categories",
    ),
    (lambda d: d.pop("annotations"), r"is not in COCO's format: it has no list 'annotations'"),
    (lambda d: d.update(images=[]), r"instances_train2017\.json declares no images|is of image"),
]


@pytest.mark.parametrize(("change", "sentence"), WRONG, ids=[sentence[:30] for _, sentence in WRONG])
def test_every_fault_of_coco_is_one_sentence_with_the_file(coco: Path, change: Change, sentence: str) -> None:
    file = coco / "annotations" / "instances_train2017.json"
    original = file.read_text()
    data = json.loads(original)
    change(data)
    file.write_text(json.dumps(data))
    try:
        with pytest.raises(UserError, match=sentence) as refused:
            scanned("coco-detection", coco)
    finally:
        file.write_text(original)
    assert ".jpg" in str(refused.value) or ".json" in str(refused.value)


def test_files_that_are_not_there(coco: Path, street: Path) -> None:
    with pytest.raises(UserError, match=r"instances_train2014\.json is missing: COCO's format has"):
        scanned("coco-detection", coco, "data.train=train2014")
    with pytest.raises(UserError, match="both 'val2017': images that score must not train"):
        scanned("coco-detection", coco, "data.train=val2017")
    with pytest.raises(UserError, match="leftImg8bit/test is missing"):
        scanned("cityscapes-instances", street, "data.held_out=test")


def test_an_image_of_both_splits_is_refused(coco: Path) -> None:
    """A link is the same file."""
    file = coco / "annotations" / "instances_val2017.json"
    original = file.read_text()
    data = json.loads(original)
    data["images"].append({"id": 1000, "file_name": "again.jpg", "width": 128, "height": 112})
    file.write_text(json.dumps(data))
    link = coco / "val2017" / "again.jpg"
    link.symlink_to(coco / "train2017" / f"{3:012d}.jpg")
    try:
        with pytest.raises(UserError, match="is in both splits"):
            scanned("coco-detection", coco)
    finally:
        link.unlink()
        file.write_text(original)


def test_copies_of_training_images_that_score_are_told_of(tmp_path: Path) -> None:
    """Byte by byte: not an image of the same size in bytes, and not the copy of an image that is left out."""
    shapes.write("coco-detection", tmp_path, 21, 9)
    folders = [tmp_path / split for split in ("train2017", "val2017")]
    assert not any("warning" in line for line in scanned("coco-detection", tmp_path).sentences)
    for number, other in ((1, 2), (3, 7), (4, 19)):
        (folders[1] / f"{number:012d}.jpg").write_bytes((folders[0] / f"{other:012d}.jpg").read_bytes())
    near = bytearray((folders[0] / f"{5:012d}.jpg").read_bytes())
    near[-40] ^= 1
    (folders[1] / f"{5:012d}.jpg").write_bytes(near)
    splits = scanned("coco-detection", tmp_path)
    assert 19 not in splits.used and len(near) > HEAD
    assert splits.sentences[-1] == (
        "warning: 2 of 9 images of val2017 are among those of train2017 too, byte by byte "
        "('000000000001.jpg' is '000000000002.jpg'): the scores will flatter"
    )


@pytest.mark.parametrize("task", ["coco-detection", "cityscapes-instances"])
def test_copies_of_an_image_are_in_one_part(task: Task, tmp_path: Path) -> None:
    """Those of one image train or score together; images without a copy are divided as they always were."""
    shapes.write(task, tmp_path, 24, 1)
    small = "retinanet-small" if task == "coco-detection" else "mask-rcnn-small"
    config = resolve({"task": task, "recipe": small, "data": {"root": str(tmp_path)}})
    before = {seed: score_splits(config.model_copy(update={"seed": seed}), 0.25) for seed in range(4)}
    if task == "coco-detection":
        assert [int(path.stem) for path in before[0].held_out.paths] == [1, 3, 7, 12, 14, 17]
    paths = sorted((*before[0].train.paths, *before[0].held_out.paths))
    for first in (0, 8, 16):
        for copy in range(first + 1, first + 5):
            paths[copy].write_bytes(paths[first].read_bytes())
    for seed, earlier in before.items():
        splits = score_splits(config.model_copy(update={"seed": seed}), 0.25)
        train, scored = ({path.read_bytes() for path in part.paths} for part in (splits.train, splits.held_out))
        assert not train & scored and len(train | scored) == 12
        assert len(splits.train) + len(splits.held_out) == 24
        single = {paths[number] for number in range(24) if number % 8 in (0, 5, 6, 7)}
        assert {*splits.held_out.paths} & single == {*earlier.held_out.paths} & single
        assert splits.looks[1][0] == splits.held_out.look(0) and len(splits.looks[1]) == len(splits.held_out)


def _ids(change: Callable[[np.ndarray[Any, Any]], object]) -> Callable[[Path], object]:
    def apply(file: Path) -> None:
        ids = np.asarray(Image.open(file)).astype(np.uint16)
        Image.fromarray(change(ids)).save(file)

    return apply


def _class_99(ids: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    ids[0, 0] = 64_000
    return ids


#: What is done to the ids of one image, and the sentence.
BROKEN: list[tuple[Callable[[Path], object], str]] = [
    (lambda file: file.unlink(), r"has no annotation: .*_gtFine_instanceIds\.png is missing"),
    (
        lambda file: file.with_name(f"b{file.name}").write_bytes(file.read_bytes()),
        r"is of no image: .*_leftImg8bit\.png is",
    ),
    (_ids(_class_99), r"has the id 64000: class 64 is none of Cityscapes'"),
    (_ids(lambda ids: ids[:, :100]), r"has 100 x 96 pixels and its image 192 x 96"),
    (_ids(lambda ids: ids.clip(0, 255).astype(np.uint8)), r"is a picture of kind 'L' and must have more than 8 bits"),
    (lambda file: file.write_bytes(b"no picture"), r"cannot be read as an image"),
]


@pytest.mark.parametrize(("change", "sentence"), BROKEN, ids=[sentence[:30] for _, sentence in BROKEN])
def test_every_fault_of_cityscapes_is_one_sentence_with_the_file(
    street: Path, change: Callable[[Path], object], sentence: str
) -> None:
    file = next((street / "gtFine" / "train").glob("*/*.png"))
    before = {path: path.read_bytes() for path in file.parent.iterdir()}
    change(file)
    try:
        with pytest.raises(UserError, match=sentence):
            scanned("cityscapes-instances", street)
    finally:
        for path in file.parent.iterdir():
            if path not in before:
                path.unlink()
        for path, content in before.items():
            path.write_bytes(content)


def test_a_box_that_rounding_put_beyond_its_image_is_cut(coco: Path) -> None:
    file = coco / "annotations" / "instances_val2017.json"
    original = file.read_text()
    data = json.loads(original)
    data["annotations"][0]["bbox"] = [100, 50, 28.5, 20]
    file.write_text(json.dumps(data))
    try:
        assert CocoImages(coco, "val2017")[0].boxes[0].tolist() == [100, 50, 128, 70]
    finally:
        file.write_text(original)
