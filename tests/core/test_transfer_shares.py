"""Two processes that train a detector together against one that trains it alone: the same to within rounding."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import nn

from ddarts_core.genotypes.zoo import ZOO
from ddarts_core.ground.errors import UserError
from ddarts_core.training.parallel import ALONE, Group
from ddarts_core.transfer import shapes, training
from ddarts_core.transfer.model import MEAN, STD, build_detector
from ddarts_core.transfer.scan import read_splits
from ddarts_core.transfer.settings import Task, resolve
from ddarts_core.transfer.training import Transfer
from tests.core.test_transfer import SMALL, TINY
from tests.core.two import Two, float64

#: Batches of 3, in shares of 1 and 2, of images that are scaled to different sizes; 5 images score, 2 and 3 of them.
MORE = ["training.batch_size=3", "training.evaluate_every=1", "training.grad_clip=0.5", "training.lr=0.1"]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    two = Two(tmp_path_factory.mktemp("two"))
    yield two
    two.close()


def double(*arguments: Any) -> nn.Module:
    return build_detector(*arguments).double()


def build(task: Task, root: str, group: Group) -> Transfer:
    config = resolve({"task": task, "recipe": SMALL[task], "data": {"root": root}}, [*TINY, *MORE])
    splits = read_splits(config, lambda items, number, label: items)
    return Transfer(config, ZOO["ResNet18"].genotype, splits, None, MEAN, STD, group=group)


def trained(task: Task, root: str, group: Group, state: Any = None) -> tuple[list[Any], dict[str, Any]]:
    """Metrics of both epochs, or of those after a state, and the state at the end, in float64."""
    with float64(), mock.patch.object(training, "build_detector", double):
        run = build(task, root, group)
        if state is not None:
            run.load_state_dict(state)
        return [record.metrics for record in islice(run.records(), 2)], run.state_dict()


def together(task: Task, root: str) -> tuple[list[Any], dict[str, Any]]:
    return trained(task, root, Group.joined())


@pytest.mark.parametrize("task", SMALL)
def test_two_processes_train_what_one_trains(task: Task, two: Two, tmp_path: Path) -> None:
    shapes.write(task, tmp_path, 7, 5)
    expected, state = trained(task, str(tmp_path), ALONE)
    for metrics, found in two.run(together, task, str(tmp_path)):
        assert [one.keys() for one in metrics] == [one.keys() for one in expected]
        for one, other in zip(metrics, expected, strict=True):
            assert one == pytest.approx(other, rel=1e-6)
        assert list(found["detector"]) == list(state["detector"])
        for name, value in state["detector"].items():
            torch.testing.assert_close(found["detector"][name], value, rtol=1e-6, atol=1e-9, msg=name)


def test_more_processes_than_images_of_a_batch_are_refused(tmp_path: Path) -> None:
    shapes.write("coco-detection", tmp_path, 7, 5)
    with pytest.raises(UserError, match=r"training\.batch_size 3 leaves some of 4 processes no image"):
        build("coco-detection", str(tmp_path), Group(0, 4))
