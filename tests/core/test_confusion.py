"""Confusion matrices and what follows from them, against scikit-learn; losses with class weights, against torch."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, recall_score
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional as F

from ddarts_core.ground.errors import UserError
from ddarts_core.loops.confusion import (
    Confusion,
    Evaluation,
    accuracy,
    balanced_accuracy,
    count,
    read_confusion,
    recalls,
    write_confusion,
)
from ddarts_core.loops.losses import balanced_weights, weighted_cross_entropy


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_scores_are_scikit_learns(classes: int) -> None:
    random = np.random.default_rng(classes)
    labels = random.choice(classes, 200, p=(weights := random.random(classes)) / weights.sum())
    predictions = np.where(random.random(200) < 0.6, labels, random.integers(classes, size=200))
    matrix = count(torch.from_numpy(labels), torch.from_numpy(predictions), classes).tolist()
    np.testing.assert_array_equal(matrix, confusion_matrix(labels, predictions, labels=range(classes)))
    np.testing.assert_allclose(recalls(matrix), recall_score(labels, predictions, average=None, labels=range(classes)))
    assert accuracy(matrix) == accuracy_score(labels, predictions)
    assert balanced_accuracy(matrix) == pytest.approx(balanced_accuracy_score(labels, predictions), rel=1e-14)


def test_a_class_without_images_counts_for_nothing() -> None:
    matrix = [[8, 2, 0], [0, 0, 0], [1, 0, 1]]
    assert recalls(matrix)[0] == 0.8 and math.isnan(recalls(matrix)[1])
    assert balanced_accuracy(matrix) == pytest.approx((0.8 + 0.5) / 2)
    always = [[90, 0, 0], [9, 0, 0], [1, 0, 0]]  # says the largest class whatever it sees
    assert accuracy(always) == 0.9 and balanced_accuracy(always) == pytest.approx(1 / 3)


def test_a_file_of_matrices_is_read_again(tmp_path: Path) -> None:
    path, classes = tmp_path / "confusion.json", ("cat, dog", 'a "b" [c]')
    written = [Confusion("genotype", 3, "test", ((2, 1), (0, 4))), Confusion("random", 3, "test", ((3, 0), (0, 0)))]
    write_confusion(path, classes, written)
    assert read_confusion(path) == (classes, written)
    document = json.loads(path.read_text())
    assert document["matrices"][0]["recall"] == [2 / 3, 1.0] and document["matrices"][1]["recall"] == [1.0, None]
    assert "[2, 1],\n" in path.read_text()  # a row of the matrix on a line
    path.write_text(path.read_text().replace("[2, 1]", "[2]"))
    with pytest.raises(UserError, match="not one of 2 classes"):
        read_confusion(path)


def test_metrics_follow_from_the_matrix() -> None:
    found = Evaluation.of(0.25, torch.tensor([[3, 1], [0, 1]]))
    scores = {"loss": 0.25, "accuracy": 0.8, "balanced_accuracy": 0.875, "recalibration_batches": 0.0}
    assert found.metrics == scores


def test_balanced_weights_are_scikit_learns() -> None:
    labels = torch.tensor([0] * 12 + [1] * 3 + [3])
    weights = balanced_weights(labels, 4)
    expected = compute_class_weight("balanced", classes=np.array([0, 1, 3]), y=labels.numpy())
    np.testing.assert_allclose(weights[[0, 1, 3]], expected, rtol=1e-6)
    assert weights[2] == 0 and weights[labels].mean() == pytest.approx(1)
    assert balanced_weights(torch.arange(10).repeat(7), 10).tolist() == [1.0] * 10


def test_the_weighted_loss_is_the_mean_of_the_classes_and_shares_add_up() -> None:
    """Over the training images it is the mean over the classes of torch's own loss of each class."""
    draws = torch.Generator().manual_seed(0)
    labels = torch.tensor([0] * 40 + [1] * 8 + [2] * 2)
    logits = torch.randn(50, 3, generator=draws, dtype=torch.float64)
    weights = balanced_weights(labels, 3).double()
    for smoothing in (0.0, 0.2):

        def torchs(which: torch.Tensor, smoothing: float = smoothing) -> float:
            return float(F.cross_entropy(logits[which], labels[which], label_smoothing=smoothing))

        def ours(which: slice, weights: torch.Tensor = weights, smoothing: float = smoothing) -> float:
            return float(weighted_cross_entropy(logits[which], labels[which], weights, smoothing))

        whole = ours(slice(None))
        assert whole == pytest.approx(sum(torchs(labels == label) for label in range(3)) / 3, rel=1e-6)
        assert 0.4 * ours(slice(0, 20)) + 0.6 * ours(slice(20, 50)) == pytest.approx(whole, rel=1e-12)
        assert ours(slice(None), torch.ones(3)) == pytest.approx(torchs(labels >= 0), rel=1e-12)
