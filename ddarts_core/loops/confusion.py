"""Confusion matrices: how many images of each class a network took for which, and the scores that follow from them.

A matrix is a list of rows of whole numbers, [true class][predicted class], in label order. Torch-free, but for `count`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..ground.errors import UserError
from ..ground.files import write_atomic
from .mistakes import Mistake

if TYPE_CHECKING:
    from torch import Tensor

Matrix = Sequence[Sequence[int]]

#: Name of the JSON file of matrices in the folder of a trial or of a retrain.
FILE = "confusion.json"

#: Version of the JSON file of matrices.
SCHEMA = 1


def count(labels: Tensor, predictions: Tensor, num_classes: int) -> Tensor:
    """Images by class and prediction, int64 [true, predicted], of two int64 [images].

    Example:
        >>> import torch
        >>> count(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), 2).tolist()
        [[1, 1], [0, 1]]
    """
    pairs = labels * num_classes + predictions
    return pairs.bincount(minlength=num_classes**2).view(num_classes, num_classes)


def accuracy(matrix: Matrix) -> float:
    """Share of the images whose prediction is right."""
    return sum(row[label] for label, row in enumerate(matrix)) / sum(map(sum, matrix))


def recalls(matrix: Matrix) -> list[float]:
    """Share of each class's images whose prediction is right; NaN for a class without images.

    Example:
        >>> recalls([[3, 1], [0, 2]])
        [0.75, 1.0]
    """
    return [row[label] / sum(row) if any(row) else math.nan for label, row in enumerate(matrix)]


def balanced_accuracy(matrix: Matrix) -> float:
    """Mean recall over the classes that have images.

    From Brodersen et al. 2010, "The balanced accuracy and its posterior distribution"; for more than two classes as
    scikit-learn's `balanced_accuracy_score`. A network that always says the largest class has 1 / classes, however
    large that class is.
    """
    found = [recall for recall in recalls(matrix) if not math.isnan(recall)]
    return math.fsum(found) / len(found)


@dataclass(frozen=True)
class Evaluation:
    """What a network did with a set of images.

    Attributes:
        loss: mean cross entropy of the images, nats, without smoothing or weights.
        matrix: images by class and prediction.
        recalibration_batches: that its batch normalisation was recalibrated from; 0 of running statistics.
        mistakes: that it is surest about, where they were asked for.
    """

    loss: float
    matrix: tuple[tuple[int, ...], ...]
    recalibration_batches: int
    mistakes: tuple[Mistake, ...] = ()

    @classmethod
    def of(
        cls, loss: float, counts: Tensor, recalibration_batches: int = 0, mistakes: Sequence[Mistake] = ()
    ) -> Evaluation:
        """The evaluation that has these counts [true, predicted], which may lie on any device."""
        return cls(loss, tuple(tuple(row) for row in counts.tolist()), recalibration_batches, tuple(mistakes))

    @property
    def metrics(self) -> dict[str, float]:
        """Numbers by name, to which a record adds the split."""
        return {
            "loss": self.loss,
            "accuracy": accuracy(self.matrix),
            "balanced_accuracy": balanced_accuracy(self.matrix),
            "recalibration_batches": float(self.recalibration_batches),
        }


@dataclass(frozen=True)
class Confusion:
    """A matrix in a file: of which network, on which images.

    Attributes:
        network: `genotype`, or `random` for the random genotype beside it.
        seed: of its training.
        split: of the images, `test` or `held_out`.
        matrix: images by class and prediction.
    """

    network: str
    seed: int
    split: str
    matrix: tuple[tuple[int, ...], ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, with what follows from the matrix; null for the recall of a class without images."""
        return {
            "network": self.network,
            "seed": self.seed,
            "split": self.split,
            "accuracy": accuracy(self.matrix),
            "balanced_accuracy": balanced_accuracy(self.matrix),
            "recall": [None if math.isnan(recall) else recall for recall in recalls(self.matrix)],
            "matrix": [list(row) for row in self.matrix],
        }


def write_confusion(path: str | Path, classes: Sequence[str], matrices: Sequence[Confusion]) -> None:
    """Write matrices of the same classes as JSON, one row of a matrix per line."""
    document = {"schema": SCHEMA, "classes": list(classes), "matrices": [found.to_dict() for found in matrices]}
    write_atomic(path, _with_short_rows(json.dumps(document, indent=1, ensure_ascii=False)) + "\n")


def _with_short_rows(text: str) -> str:
    """Indented JSON with each list of numbers on one line; no text in it has a line break of its own."""
    lines = re.compile(r"\[\n[-+\d.,\se]*(?:null[-+\d.,\se]*)*\]")
    return lines.sub(lambda found: "[" + " ".join(found[0][1:-1].split()) + "]", text)


def read_confusion(path: str | Path) -> tuple[tuple[str, ...], list[Confusion]]:
    """Classes and matrices of a file of `write_confusion`.

    Raises:
        UserError: the file is missing, damaged or of another version.
    """
    file = Path(path)
    try:
        document: Mapping[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if document["schema"] != SCHEMA:
            raise ValueError(f"schema {document['schema']!r}, this version reads {SCHEMA}")
        classes = tuple(str(name) for name in document["classes"])
        found = [
            Confusion(one["network"], one["seed"], one["split"], tuple(tuple(map(int, row)) for row in one["matrix"]))
            for one in document["matrices"]
        ]
        if any(len(one.matrix) != len(classes) or {len(row) for row in one.matrix} != {len(classes)} for one in found):
            raise ValueError(f"a matrix is not one of {len(classes)} classes")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} is damaged or unreadable: {error}") from error
    return classes, found
