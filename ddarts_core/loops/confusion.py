"""Confusion matrices, and the scores that follow from them.

A confusion matrix says how many images of each class a network took for which class. It is a list of rows of whole
numbers, [true class][predicted class], in the order of the labels. Torch-free, except for `count`.
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
    """Count images by their true and their predicted class.

    Args:
        labels: the true class of each image, int64 [images].
        predictions: the predicted class of each image, int64 [images].
        num_classes: how many classes there are.

    Returns:
        The counts, int64 [true, predicted].

    Example:
        >>> import torch
        >>> count(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), 2).tolist()
        [[1, 1], [0, 1]]
    """
    pairs = labels * num_classes + predictions
    return pairs.bincount(minlength=num_classes**2).view(num_classes, num_classes)


def accuracy(matrix: Matrix) -> float:
    """Return the share of the images whose prediction is right."""
    return sum(row[label] for label, row in enumerate(matrix)) / sum(map(sum, matrix))


def recalls(matrix: Matrix) -> list[float]:
    """Return for each class the share of its images whose prediction is right; NaN for a class without images.

    Example:
        >>> recalls([[3, 1], [0, 2]])
        [0.75, 1.0]
    """
    return [row[label] / sum(row) if any(row) else math.nan for label, row in enumerate(matrix)]


def balanced_accuracy(matrix: Matrix) -> float:
    """Return the mean recall over the classes that have images.

    Source: Brodersen et al. 2010, "The balanced accuracy and its posterior distribution". For more than two classes it
    is computed as by scikit-learn's `balanced_accuracy_score`. A network that always answers the largest class has a
    balanced accuracy of 1 / classes, however large that class is.
    """
    found = [recall for recall in recalls(matrix) if not math.isnan(recall)]
    return math.fsum(found) / len(found)


@dataclass(frozen=True)
class Evaluation:
    """The result of evaluating a network on a set of images.

    Attributes:
        loss: the mean cross entropy of the images in nats, without label smoothing and class weights.
        matrix: the confusion matrix, [true class][predicted class].
        recalibration_batches: from how many batches the statistics of batch normalisation were estimated anew. 0: the
            network was evaluated with its running statistics.
        mistakes: the mistakes that the network is surest about, if they were asked for.
    """

    loss: float
    matrix: tuple[tuple[int, ...], ...]
    recalibration_batches: int
    mistakes: tuple[Mistake, ...] = ()

    @classmethod
    def of(
        cls, loss: float, counts: Tensor, recalibration_batches: int = 0, mistakes: Sequence[Mistake] = ()
    ) -> Evaluation:
        """Make the evaluation that has these counts [true, predicted], which may lie on any device."""
        return cls(loss, tuple(tuple(row) for row in counts.tolist()), recalibration_batches, tuple(mistakes))

    @property
    def metrics(self) -> dict[str, float]:
        """The scores by name. A record puts the name of the split before each name."""
        return {
            "loss": self.loss,
            "accuracy": accuracy(self.matrix),
            "balanced_accuracy": balanced_accuracy(self.matrix),
            "recalibration_batches": float(self.recalibration_batches),
        }


@dataclass(frozen=True)
class Confusion:
    """A confusion matrix in a file, with the network and the images that it is about.

    Attributes:
        network: the name of the network: `genotype`, or `random` for the random genotype beside it.
        seed: the seed of the network's training.
        split: the split of the images, `test` or `held_out`.
        matrix: the confusion matrix, [true class][predicted class].
    """

    network: str
    seed: int
    split: str
    matrix: tuple[tuple[int, ...], ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON, with the scores that follow from the matrix.

        The recall of a class without images is null.
        """
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
    """Put each list of numbers in indented JSON on one line. No text in JSON has a line break of its own."""
    lines = re.compile(r"\[\n[-+\d.,\se]*(?:null[-+\d.,\se]*)*\]")
    return lines.sub(lambda found: "[" + " ".join(found[0][1:-1].split()) + "]", text)


def read_confusion(path: str | Path) -> tuple[tuple[str, ...], list[Confusion]]:
    """Read the classes and the matrices from a file that `write_confusion` wrote.

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
