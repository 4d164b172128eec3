"""The names of `ddarts`: every example runs as it stands, and what they refuse is one sentence."""

from __future__ import annotations

import doctest
import inspect
import os
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ddarts
import pytest
import torch
from torch.utils.data import TensorDataset

from ddarts_core.ground.errors import UserError
from ddarts_core.search.search import build_search
from ddarts_core.settings.config import resolve

PAGE = Path(__file__).parents[1] / "docs" / "python.md"

#: The name whose example makes the study that others look at.
MAKES = "sweep"


def examples(name: str) -> list[doctest.Example]:
    """The examples of a name, or of the module, run; there is at least one."""
    found = getattr(ddarts, name, ddarts)
    finder = doctest.DocTestFinder(recurse=False)
    (test,) = finder.find(found, name, globs=dict(vars(inspect.getmodule(found))))
    assert test.examples, f"{name} has no example"
    failed = doctest.DocTestRunner().run(test)
    assert failed.failed == 0
    return test.examples


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The source of the example that makes a study, in a folder that is the working one until the module ends."""
    import ray

    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("examples"))
    yield "".join(example.source for example in examples(MAKES))
    os.chdir(before)
    ray.shutdown()


@pytest.mark.parametrize("name", ["ddarts", *(name for name in ddarts.__all__ if name != MAKES)])
def test_the_example_of_a_name(name: str, made: str, capsys: pytest.CaptureFixture[str]) -> None:
    examples(name)


def test_the_page_runs_from_top_to_bottom(made: str) -> None:
    text = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.+?)```", text, re.DOTALL)
    rows = re.findall(r"^\| (`.+?) \|", text, re.MULTILINE)
    assert sorted(re.findall(r"`(\w+)`", " ".join(rows))) == sorted(ddarts.__all__)
    space: dict[str, Any] = {}
    for block in blocks:
        if "ddarts.sweep(" in block:  # the example of its name, which ran
            wanted = textwrap.dedent(made).partition("study = ")[0]
            assert block.partition("study = ")[0] == wanted
        else:
            exec(compile(block, str(PAGE), "exec"), space)
    assert Path("found.svg").is_file() and Path("front.png").is_file()


def test_a_study_shows_its_table_and_its_front(made: str) -> None:
    shown = ddarts.open_study("example")._repr_html_()
    assert "COMPLETED" in shown and "<svg" in shown


TINY = {"search": {"num_cells": 3, "channels": 2, "steps": 1, "epochs": 1, "batch_size": 20}}


def digits(count: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    from ddarts_core.data.sets import load_train
    from ddarts_core.settings.data_settings import DataConfig

    images: Any = load_train(DataConfig(num_train=count))[1]
    return images.images, images.labels


def test_tensors_a_data_set_and_the_settings_are_dealt_alike() -> None:
    """Bytes, floats and pixels in rows and columns are the same images, of the same splits as the settings' own."""
    images, labels = digits()
    given = ddarts.build_search(TINY, (images, labels))
    floats = ddarts.build_search(TINY, TensorDataset(images.float() / 255, labels))
    arrays: Any = [(image[0].numpy(), int(label)) for image, label in zip(images, labels, strict=True)]
    own = build_search(resolve({**TINY, "data": {"num_train": 60}}))
    assert given.info == floats.info == ddarts.build_search(TINY, arrays).info
    assert abs(given.info.mean[0] - own.info.mean[0]) < 0.01 and abs(given.info.std[0] - own.info.std[0]) < 0.01
    for name in ("weights", "alphas", "held_out"):
        ours, others, known = (getattr(search.splits, name) for search in (given, floats, own))
        assert torch.equal(ours.images, known.images) and torch.equal(ours.labels, known.labels)
        assert torch.equal(ours.images.float() / 255, others.images)


IMAGES, LABELS = torch.zeros(9, 1, 8, 8, dtype=torch.uint8), torch.arange(9) % 3


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ((IMAGES[:, 0], LABELS), r"\[number, channels, height, width\]"),
        ((IMAGES[:, :, :4], LABELS), "as high as wide"),
        ((IMAGES, LABELS[:5]), r"labels \[5\]"),
        ((IMAGES.float() - 1, LABELS), "from -1 to -1.*before any normalisation"),
        ((IMAGES, LABELS.float()), "as integers"),
        ((IMAGES + LABELS.byte()[:, None, None, None], LABELS - 1), "labels from -1 to 1"),
        ((IMAGES, LABELS), "channel 0 of the images has the same value everywhere"),
        ([(IMAGES[0], 0), (IMAGES[0, :, :4], 1)], "image 1 is"),
    ],
)
def test_images_that_cannot_be_used_are_a_sentence(data: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        ddarts.search(TINY, data)


def test_other_mistakes_are_sentences() -> None:
    images, labels = digits()
    with pytest.raises(UserError, match="16 pixels a side"):
        ddarts.retrain(
            ddarts.load_genotype("zoo:ResNet18"),
            {"retrain": {"channels": 2, "epochs": 1, "batch_size": 30}},
            (images, labels),
            test=(IMAGES.repeat(1, 1, 2, 2), LABELS),
        )
    with pytest.raises(UserError, match="needs the group `space`"):
        ddarts.sweep(TINY)
    with pytest.raises(AttributeError, match="'searhc': it has Genotype"):
        ddarts.searhc  # noqa: B018
    with pytest.raises(UserError, match="has neither weights"):
        ddarts.load_export("nothing")
