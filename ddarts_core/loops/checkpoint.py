"""A checkpoint is the whole state of a loop in one file. A file that is not whole is refused.

The file has what `torch.save` writes, followed by the SHA-256 of that (78 bytes, which `torch.load` ignores). It is
written under a temporary name and then renamed, so a crash leaves the previous checkpoint in place. The hash shows
whether the file was damaged or changed later.

The state of a supernet has thousands of small tensors, which pickle takes one by one. A packed checkpoint holds the
elements of all tensors of a type end to end in one flat tensor, and beside it the shapes. It is written in every epoch,
and takes a third of the time.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import struct
from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..ground.errors import UserError
from ..ground.files import write_atomic

_MARK = b"ddarts-sha256:"
_TRAILER = len(_MARK) + 64


def save(path: str | Path, state: Mapping[str, Any], *, packed: bool = False) -> None:
    """Replace the checkpoint at `path` as a whole.

    Args:
        path: the file to write.
        state: tensors, numbers, text, None, and lists, tuples and dictionaries of these. `load` accepts nothing else.
        packed: whether tensors are packed, which is faster. `torch.load` alone can only read a state that is not
            packed.
    """
    buffer = io.BytesIO()
    torch.save(_pack(state) if packed else dict(state), buffer)
    content = buffer.getvalue()
    write_atomic(path, content + _MARK + hashlib.sha256(content).hexdigest().encode())


def load(path: str | Path, device: str | torch.device = "cpu") -> dict[str, Any]:
    """Read a checkpoint. Only plain data are unpickled.

    Args:
        path: the file to read.
        device: the device on which the tensors are wanted.

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
    return _unpack(state) if state.keys() == _PACKED else state


# --- packing --------------------------------------------------------------------------------------------------------

_PACKED = {"flat", "layouts", "tree"}
_HOLE = "\0tensor"
"""The text that stands in the tree in place of each tensor."""


def _pack(state: Mapping[str, Any]) -> dict[str, Any]:
    """Pack a state.

    Returns:
        `flat`: one flat tensor for each type; `layouts`: type, shape and strides of every tensor, in order; `tree`: the
        state with `_HOLE` in place of each tensor.
    """
    tensors: list[Tensor] = []

    def without_tensors(value: Any) -> Any:
        if isinstance(value, Tensor):
            value = value.detach()
            dense = value.is_contiguous() or value.is_contiguous(memory_format=torch.channels_last)
            tensors.append(value if dense else value.contiguous())
            return _HOLE
        if isinstance(value, Mapping):
            return {key: without_tensors(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(without_tensors(item) for item in value)
        return value

    tree = without_tensors(state)
    by_type: dict[str, list[Tensor]] = defaultdict(list)
    for tensor in tensors:
        by_type[_name(tensor.dtype)].append(tensor)
    layouts = [(_name(tensor.dtype), tuple(tensor.shape), tensor.stride()) for tensor in tensors]
    return {"flat": {name: _end_to_end(group) for name, group in by_type.items()}, "layouts": layouts, "tree": tree}


def _end_to_end(tensors: list[Tensor]) -> Tensor:
    sizes = [tensor.numel() for tensor in tensors]
    flat = tensors[0].new_empty(sum(sizes))
    starts = accumulate(sizes[:-1], initial=0)
    parts = [
        flat.as_strided(tensor.shape, tensor.stride(), start) for tensor, start in zip(tensors, starts, strict=True)
    ]
    torch._foreach_copy_(parts, tensors)
    return flat.cpu()


def _unpack(packed: Mapping[str, Any]) -> dict[str, Any]:
    positions = dict.fromkeys(packed["flat"], 0)

    def tensors() -> Iterator[Tensor]:
        for name, shape, strides in packed["layouts"]:
            part = packed["flat"][name].as_strided(shape, strides, positions[name])
            positions[name] += part.numel()
            yield part.clone()

    found = tensors()

    def with_tensors(value: Any) -> Any:
        if isinstance(value, str) and value == _HOLE:
            return next(found)
        if isinstance(value, dict):
            return {key: with_tensors(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(with_tensors(item) for item in value)
        return value

    state: dict[str, Any] = with_tensors(packed["tree"])
    return state


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
