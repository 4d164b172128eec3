"""Random streams that are a function of a seed and a name, so that nothing depends on what was drawn before.

A loop that asks for `generator(seed, "weights", epoch)` draws the same numbers whether it started at epoch 0 or was
resumed at this epoch. So no random state has to be stored, and the draws of one stream never change those of another
stream.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def stream_seed(seed: int, *stream: str | int) -> int:
    """63-bit seed of a named stream: SHA-256 of the seed and the names; equal on every machine and version."""
    text = json.dumps([seed, *stream])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *stream: str | int, device: str | torch.device = "cpu") -> torch.Generator:
    """A fresh generator at the start of a named stream.

    Generators of different devices draw different numbers; use the CPU's (the default) where a result must not
    depend on the device.

    Example:
        >>> first = torch.rand(3, generator=generator(7, "weights", 0))
        >>> torch.equal(first, torch.rand(3, generator=generator(7, "weights", 0)))
        True
    """
    return torch.Generator(device=device).manual_seed(stream_seed(seed, *stream))


@contextmanager
def seeded_init(seed: int, *stream: str | int) -> Iterator[None]:
    """Within the block, torch's global generators start at the start of a named stream; then they are put back.

    This is for code that takes no generator: the initialisation of modules, and modules that draw when they compute.
    """
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(stream_seed(seed, *stream))
        yield
