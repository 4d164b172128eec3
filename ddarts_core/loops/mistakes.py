"""The mistakes that a network is surest about: images that it takes for another class. Torch-free, except `Surest`."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from ..ground.errors import UserError
from ..ground.files import write_atomic

if TYPE_CHECKING:
    from torch import Tensor

    from ..datasets.facts import DataInfo

#: Name of the JSON file of mistakes in the folder of a trial or of a retrain, and its version.
FILE = "mistakes.json"
SCHEMA = 1

#: Mistakes that are kept, and the longest side of their pictures in pixels.
MOST, SIDE = 12, 96


@dataclass(frozen=True)
class Mistake:
    """An image that a network took for another class.

    Attributes:
        true: the image's own class, as a place among the names of the classes.
        predicted: the class that the network took it for, as a place among the names.
        probability: the probability that the network gives the predicted class, by softmax.
        png: the image as the network sees it but not normalised, as a PNG file of at most `SIDE` pixels a side.
    """

    true: int
    predicted: int
    probability: float
    png: bytes

    def to_dict(self) -> dict[str, Any]:
        """Return the mistake as plain data for JSON."""
        return {
            "true": self.true,
            "predicted": self.predicted,
            "probability": round(self.probability, 4),
            "png": base64.b64encode(self.png).decode(),
        }

    @property
    def uri(self) -> str:
        """The picture as a data URI, which an HTML page can show."""
        return f"data:image/png;base64,{base64.b64encode(self.png).decode()}"


class Surest:
    """Keeps the mistakes that a network is surest about, at most `MOST`, among all batches that it is shown.

    Args:
        info: the facts of the data, with the statistics by which the images are normalised.
    """

    def __init__(self, info: DataInfo) -> None:
        self._info = info
        self._found: list[Mistake] = []

    def see(self, images: Tensor, labels: Tensor, logits: Tensor) -> None:
        """Look at a batch, and keep its mistakes if they are among the surest so far.

        Args:
            images: the normalised images, [batch, channels, height, width].
            labels: the class of each image, [batch].
            logits: the answers of the network, [batch, classes].
        """
        predicted = logits.argmax(1)
        sure = logits.float().softmax(1).gather(1, predicted[:, None])[:, 0].where(predicted != labels, -1.0)
        values, places = sure.topk(min(MOST, len(sure)))
        for value, place in zip(values.tolist(), places.tolist(), strict=True):
            if value < 0 or (len(self._found) >= MOST and value <= self._found[-1].probability):
                break
            picture = self._png(images[place])
            self._found.append(Mistake(int(labels[place]), int(predicted[place]), value, picture))
            self._found = surest(self._found)

    @property
    def found(self) -> tuple[Mistake, ...]:
        """The mistakes that were kept, the surest first."""
        return tuple(self._found)

    def _png(self, image: Tensor) -> bytes:
        mean, std = (image.new_tensor(values)[:, None, None] for values in (self._info.mean, self._info.std))
        pixels = (image * std + mean).mul(255).round().clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy()
        picture = Image.fromarray(pixels[..., 0] if self._info.channels == 1 else pixels)
        picture.thumbnail((SIDE, SIDE))
        file = io.BytesIO()
        picture.save(file, "PNG")
        return file.getvalue()


def surest(mistakes: Iterable[Mistake]) -> list[Mistake]:
    """Return the surest mistakes, at most `MOST`, the surest first. Among equally sure ones the earlier comes first."""
    return sorted(mistakes, key=lambda one: -one.probability)[:MOST]


def write_mistakes(path: str | Path, classes: Sequence[str], mistakes: Sequence[Mistake]) -> None:
    """Write mistakes with the names of the classes as JSON."""
    document = {"schema": SCHEMA, "classes": list(classes), "mistakes": [one.to_dict() for one in mistakes]}
    write_atomic(path, json.dumps(document, indent=1, ensure_ascii=False) + "\n")


def read_mistakes(path: str | Path) -> tuple[tuple[str, ...], list[Mistake]]:
    """Read the names of the classes and the mistakes from a file that `write_mistakes` wrote.

    Raises:
        UserError: the file is missing, damaged or of another version.
    """
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
        if document["schema"] != SCHEMA:
            raise ValueError(f"schema {document['schema']!r}, this version reads {SCHEMA}")
        classes = tuple(str(name) for name in document["classes"])
        found = [
            Mistake(
                one["true"], one["predicted"], float(one["probability"]), base64.b64decode(one["png"], validate=True)
            )
            for one in document["mistakes"]
        ]
        if any(not 0 <= place < len(classes) for one in found for place in (one.true, one.predicted)):
            raise ValueError("a mistake is of no class")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged or unreadable: {error}") from error
    return classes, found
