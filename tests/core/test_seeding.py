"""Streams are a function of seed and name, and leave the global generator alone."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ddarts_core.tensors.seeding import generator, seeded_init, stream_seed

names = st.lists(st.one_of(st.text(max_size=5), st.integers(-10, 10)), max_size=3)


@given(st.integers(0, 2**31 - 1), names)
def test_a_stream_is_reproducible(seed: int, stream: list[str | int]) -> None:
    first = torch.rand(4, generator=generator(seed, *stream))
    assert torch.equal(first, torch.rand(4, generator=generator(seed, *stream)))


@given(st.integers(0, 100), names, st.integers(0, 100), names)
def test_different_names_give_different_streams(a: int, x: list[str | int], b: int, y: list[str | int]) -> None:
    assert (stream_seed(a, *x) == stream_seed(b, *y)) == ([a, *x] == [b, *y])


def test_names_are_not_joined_ambiguously() -> None:
    seeds = {
        stream_seed(1, "a", "b"),
        stream_seed(1, "ab"),
        stream_seed(1, "a b"),
        stream_seed(11, "b"),
        stream_seed(1, "1"),
    }
    assert len(seeds | {stream_seed(1, 1)}) == 6


def test_the_seed_of_a_stream_never_changes() -> None:
    """A stored study must mean the same stream in a later version: the value is pinned."""
    assert stream_seed(7, "weights", 0) == 6_319_659_090_225_000_143


def test_hash_randomisation_of_the_interpreter_is_without_effect() -> None:
    code = "from ddarts_core.tensors.seeding import stream_seed; print(stream_seed(3, 'alphas', 5))"
    for hash_seed in ("0", "1"):
        out = subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": hash_seed}, capture_output=True, text=True, check=True
        )
        assert int(out.stdout) == stream_seed(3, "alphas", 5)


def test_seeded_init_is_reproducible_and_restores_the_global_generator() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    with seeded_init(5, "init"):
        first = nn.Linear(3, 3)
    assert torch.equal(torch.rand(3), expected)
    with seeded_init(5, "init"):
        second = nn.Linear(3, 3)
    with seeded_init(6, "init"):
        other = nn.Linear(3, 3)
    assert torch.equal(first.weight, second.weight)
    assert not torch.equal(first.weight, other.weight)


def test_seeded_init_restores_after_an_error() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    with pytest.raises(RuntimeError, match="inside"), seeded_init(5):
        torch.rand(10)
        raise RuntimeError("inside")
    assert torch.equal(torch.rand(3), expected)
