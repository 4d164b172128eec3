"""Reads the heads of many pictures, or decodes them. It is also the program of a process that does so. Torch-free.

Such a process is a fresh interpreter. It reads from standard input what it shall do, one JSON document per line, and
answers each line with one line. It is never a fork, because the process that asks may have threads, locks and a GPU.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from . import decode


def heads(sources: list[decode.Source]) -> list[Any]:
    """Return [width, height, colour] of each picture, or the reason why the picture cannot be read, see `_tried`."""
    return [_tried(lambda source=source: [*decode.head(source)]) for source in sources]


def views(sources: list[decode.Source], channels: int, size: int, out: Any, rows: list[int]) -> list[Any]:
    """Decode each picture, and make its view, the square that a network sees.

    Args:
        sources: the pictures.
        channels: how many channels a view has, 1 or 3.
        size: the side of a view in pixels.
        out: an array uint8 [number, channels, size, size] into which the pixels of the views are written; None keeps
            no pixels.
        rows: for each picture its row in `out`.

    Returns:
        For each picture [digest of the whole picture as hex, sums, sums of squares of the view's channels], or the
        reason why the picture cannot be read, see `_tried`.
    """

    def one(source: decode.Source, row: int) -> list[Any]:
        image = decode.upright(source)
        array = decode.pixels(decode.view(image, channels, size))
        if out is not None:
            out[row] = array
        return [decode.digest(image).hex(), *decode.sums(array)]

    return [_tried(lambda source=source, row=row: one(source, row)) for source, row in zip(sources, rows, strict=True)]


def _tried(make: Any) -> Any:
    """Return what `make` gives, or why it failed: whatever error a decoder raises, the picture cannot be read.

    A reason that lies in the file is a text. A reason that lies in this machine, and may be gone at the next look, is
    {"now": text}.
    """
    try:
        return make()
    except MemoryError:
        return {"now": "it does not fit into memory"}
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            return {"now": error.strerror or str(error)}
        if "Ghostscript" in str(error):  # a program that Pillow calls
            return {"now": str(error)[:200]}
        reason = str(error)
        if "cannot identify image file" in reason:
            reason = "it is no picture that Pillow can read"
        return reason.splitlines()[0][:200] if reason else type(error).__name__


def answer(task: dict[str, Any]) -> list[Any]:
    """Do what one line asks for.

    Args:
        task: `paths` of the pictures; for views also `channels`, `size`, `out` (a .npy file or None) and `rows`.
    """
    sources: list[decode.Source] = [Path(name) for name in task["paths"]]
    if "size" not in task:
        return heads(sources)
    out = None if task["out"] is None else np.load(task["out"], mmap_mode="r+")
    return views(sources, task["channels"], task["size"], out, task["rows"])


def main() -> None:
    """Answer each line of standard input, until there is no more to read."""
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
