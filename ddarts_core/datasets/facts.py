"""What a run must know of its data, and keeps beside its settings in `data.json`. Torch-free.

Whoever exports or reports a run later reads that file: the images need not be there any more, and if they are, they may
have changed.
"""

from __future__ import annotations

import json
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
    """Facts of a data set: classes, channels, image side in pixels, channel statistics of pixels in 0..1.

    Attributes:
        name: of the entry in the table of data sets.
        num_classes: outputs of a network.
        channels: 1 for grey, 3 for red, green, blue.
        image_size: height and width in pixels.
        mean: of each channel, over the training images.
        std: standard deviation of each channel, over the training images.
        classes: names in the order of the labels; the labels themselves as text where nobody has given names.

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
        """Plain data for JSON."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> DataInfo:
        """What `to_dict` gave, also before there were `classes`; other keys are left alone.

        Raises:
            ValueError: a key is missing, or of another kind.
        """
        try:
            found: dict[str, Any] = {field.name: data[field.name] for field in fields(cls) if field.name in data}
            values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in found.items()}
            return cls(**values)
        except TypeError as error:
            raise ValueError(f"no facts of a data set: {error}") from error


def document(info: DataInfo, counts: Sequence[int], notes: Sequence[str] = ()) -> dict[str, Any]:
    """The content of `data.json`: the facts, how many training images each class has, and what a user should know."""
    return {**info.to_dict(), "train_counts": list(counts), "notes": list(notes)}


def write_facts(folder: Path, content: Mapping[str, Any]) -> Path:
    """Write a `document` into a folder."""
    write_atomic(folder / FILE, json.dumps(content, indent=1) + "\n")
    return folder / FILE


def read_facts(folder: Path) -> dict[str, Any] | None:
    """The `document` in a folder; None of a run that was begun before there were such files.

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
    """The facts in a folder; see `read_facts`."""
    content = read_facts(folder)
    return None if content is None else DataInfo.from_dict(content)


def majority(counts: Sequence[int], classes: Sequence[str]) -> str:
    """The largest class and its share in words: what a network that always answers it would score.

    Example:
        >>> majority([30, 90], ["cat", "dog"])
        'the largest of 2 classes, dog, has 75.0 % of the training images'
    """
    largest = max(range(len(counts)), key=lambda label: counts[label])
    share = 100 * counts[largest] / sum(counts)
    return f"the largest of {len(counts)} classes, {classes[largest]}, has {share:.1f} % of the training images"
