"""The facts that a run must know about its data, and keeps beside its settings in `data.json`. Torch-free.

A later export or report of the run reads that file. The images may be gone by then, or may have changed.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ..ground.errors import UserError
from ..ground.files import write_atomic

#: Name of the file in the folder of a search, a retrain, a study or an export.
FILE = "data.json"


@dataclass(frozen=True)
class DataInfo:
    """The facts of a data set: its classes, channels, size of the images, and statistics of the pixels.

    Attributes:
        name: the name of the entry in the table of data sets.
        num_classes: how many classes there are, which is how many outputs a network has.
        channels: 1 for grey, 3 for red, green and blue.
        image_size: the height and the width of the images in pixels.
        mean: the mean of each channel over the training images, of pixels in 0..1.
        std: the standard deviation of each channel over the training images, of pixels in 0..1.
        classes: the names of the classes in the order of the labels. If nobody has given names, they are the labels
            as text.

    Example:
        >>> DataInfo("toy", 2, 1, 8, (0.5,), (0.2,)).classes
        ('0', '1')
    """

    name: str
    num_classes: int
    channels: int
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.classes:
            object.__setattr__(self, "classes", tuple(map(str, range(self.num_classes))))
        if len(self.classes) != self.num_classes:
            raise ValueError(f"{len(self.classes)} names for {self.num_classes} classes")

    def to_dict(self) -> dict[str, Any]:
        """Return the facts as plain data for JSON."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> DataInfo:
        """Make the facts from what `to_dict` gave. `classes` may be missing, as in old files; other keys are ignored.

        Raises:
            ValueError: a key is missing, or its value is of another kind.
        """
        try:
            found: dict[str, Any] = {field.name: data[field.name] for field in fields(cls) if field.name in data}
            values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in found.items()}
            return cls(**values)
        except TypeError as error:
            raise ValueError(f"no facts of a data set: {error}") from error


def document(info: DataInfo, counts: Sequence[int], notes: Sequence[str] = (), copies: int = 0) -> dict[str, Any]:
    """Return the content of `data.json`.

    Args:
        info: the facts of the data set.
        counts: how many training images each class has, in the order of the labels.
        notes: what a user should know about the images, in sentences.
        copies: how many training images are copies of others.
    """
    return {**info.to_dict(), "train_counts": list(counts), "train_copies": copies, "notes": list(notes)}


#: What a `document` says of the images themselves: three facts of all images, and two of the training images.
OF_IMAGES = ("classes", "channels", "image_size", "train_counts", "train_copies")

#: What a document says of the list of the training images, and of the test images of a run that scores on them.
LISTINGS = {"train_listing": "training", "test_listing": "test"}

#: By how much a mean or deviation of the same pictures may differ: libraries round a JPEG or a resized image otherwise.
ROUNDING = 1e-4


def check_unchanged(folder: Path, today: Mapping[str, Any], begun: str = "", deals: bool = True) -> None:
    """Check that images are those that a run was begun with, as far as its `data.json` can tell.

    Other training images would be dealt to other splits, so that images which have trained would score; and labels
    would mean other classes. Scores on other test images could not be compared.

    Args:
        folder: the folder of the run.
        today: the `document` of the images that are there now.
        begun: what a message says was begun with the images, if not the folder.
        deals: whether the run deals the images to splits.

    Raises:
        UserError: the images have changed, or an earlier version has dealt copies of a picture to different splits.
    """
    before = read_facts(folder)
    if before is None:
        return
    begun = begun or str(folder)
    if "train_copies" not in before and today["train_copies"] and deals:
        raise UserError(
            f"{begun} was begun by a version that dealt copies of a picture to different splits, and this one does "
            f"not: begin anew in another folder (the images have {today['train_copies']:,} copies)"
        )
    # Earlier versions kept the counts of a study only, and not those of its trials.
    names = OF_IMAGES if "train_copies" in before else OF_IMAGES[:3]
    changed = [name for name in names if name in before and _composed(before[name]) != _composed(today[name])]
    for name in ("mean", "std"):
        pairs = zip(before[name], today[name], strict=False)
        changed += [name] if any(abs(was - now) > ROUNDING for was, now in pairs) else []
    if changed:
        name = changed[0]
        was, now = (str(one[name])[:60] for one in (before, today))
        images = "images" if name in OF_IMAGES[:3] else "training images"
        raise UserError(
            f"the {images} are not those that {begun} was begun with ({name} {was} then, {now} now): "
            "put those back, or begin anew in another folder"
        )
    for name, which in LISTINGS.items():
        if name in before and before[name] != today.get(name, before[name]):
            raise UserError(
                f"the {which} images are not those that {begun} was begun with (their names, their order, their "
                "classes or the sizes of their files differ): put those back, or begin anew in another folder"
            )


def other_images(folder: Path, today: Mapping[str, Any]) -> str:
    """Say that the training images of a user's own data set are not those that a genotype was found on.

    Of images without a test split that has become larger, some that trained then are test images now.

    Args:
        folder: the folder of the genotype.
        today: the `document` of the images that are there now.

    Returns:
        A sentence; empty text if the images are the same, or those of another data set, or nothing is known.
    """
    try:
        before = read_facts(folder) or {}
    except UserError:  # the file of another program
        return ""
    key = "train_listing" if "train_listing" in before else "train_counts"  # of earlier versions
    own = "train_listing" in today and key in before
    if not own or any(_composed(before.get(name)) != _composed(today[name]) for name in ("name", "classes")):
        return ""
    if before[key] == today[key]:
        return ""
    return (
        f"warning: the training images are not those of {folder / FILE}, beside the genotype: images that the genotype "
        "was found on may be test images now, and the test accuracy would flatter"
    )


def _composed(value: Any) -> str:
    """Return a value as text whose accents are in the form NFC: some file systems store names otherwise."""
    return unicodedata.normalize("NFC", json.dumps(value, ensure_ascii=False))


def write_facts(folder: Path, content: Mapping[str, Any]) -> Path:
    """Write a `document` into the file `data.json` of a folder, and return the path of the file."""
    write_atomic(folder / FILE, json.dumps(content, indent=1) + "\n")
    return folder / FILE


def read_facts(folder: Path) -> dict[str, Any] | None:
    """Read the `document` in a folder.

    Returns:
        The document; None if there is no file, as in a run that was begun before ddarts wrote such files.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        DataInfo.from_dict(content)
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is damaged: {error}") from error
    return content


def read_info(folder: Path) -> DataInfo | None:
    """Read the facts in a folder, or None if there is no file; see `read_facts`."""
    content = read_facts(folder)
    return None if content is None else DataInfo.from_dict(content)


def majority(counts: Sequence[int], classes: Sequence[str]) -> str:
    """Say which class is the largest, and its share of the images: what a network that always answers it would score.

    Args:
        counts: how many training images each class has.
        classes: the names of the classes, in the same order.

    Example:
        >>> majority([30, 90], ["cat", "dog"])
        'the largest of 2 classes, dog, has 75.0 % of the training images'
    """
    largest = max(range(len(counts)), key=lambda label: counts[label])
    share = 100 * counts[largest] / sum(counts)
    return f"the largest of {len(counts)} classes, {classes[largest]}, has {share:.1f} % of the training images"
