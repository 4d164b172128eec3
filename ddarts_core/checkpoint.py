"""All state of a loop in one file that is whole, intact, or refused.

The file is what `torch.save` writes followed by the SHA-256 of it (78 bytes, which `torch.load` ignores). It is written
to a temporary name and renamed, so a crash leaves the previous checkpoint; the hash finds what happened to it later.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from .errors import UserError
from .files import write_atomic

_MARK = b"ddarts-sha256:"
_TRAILER = len(_MARK) + 64


def save(path: str | Path, state: Mapping[str, Any]) -> None:
    """Replace the checkpoint at `path` as a whole.

    The state holds tensors, numbers, text, None, and lists, tuples and dictionaries of them: what `load` accepts.
    """
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    content = buffer.getvalue()
    write_atomic(path, content + _MARK + hashlib.sha256(content).hexdigest().encode())


def load(path: str | Path, device: str | torch.device = "cpu") -> dict[str, Any]:
    """Read a checkpoint; nothing but plain data is unpickled.

    Raises:
        UserError: the file is missing, truncated or altered, or holds something else than plain data.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"cannot read checkpoint {str(path)!r}: {error.strerror or error}") from error
    content, trailer = data[:-_TRAILER], data[-_TRAILER:]
    if trailer != _MARK + hashlib.sha256(content).hexdigest().encode():
        raise UserError(
            f"checkpoint {str(path)!r} is damaged or not a checkpoint of ddarts: its SHA-256 does not match"
        )
    try:
        state = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
    except (pickle.UnpicklingError, struct.error, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise UserError(f"checkpoint {str(path)!r} does not hold plain data ({type(error).__name__})") from error
    if not isinstance(state, dict):
        raise UserError(f"checkpoint {str(path)!r} holds a {type(state).__name__}, not the state of a loop")
    return state
