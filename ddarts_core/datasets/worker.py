"""What is done with many pictures: their heads, or all of them. Also the process that does it. Torch-free.

A process of its own is a fresh interpreter that is told on standard input what to read, one JSON document per line, and
answers each line with one. It is never forked: the process that asks may have threads, locks and a GPU.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from . import decode


def heads(sources: list[decode.Source]) -> list[Any]:
    """[width, height, colour] of each picture, or the reason why it has none."""
    return [_tried(lambda source=source: [*decode.head(source)]) for source in sources]


def views(sources: list[decode.Source], channels: int, size: int, out: Any, rows: list[int]) -> list[Any]:
    """[digest as hex, sums, sums of squares] of each picture's view, or the reason why it has none.

    Args:
        sources: the pictures.
        channels: of the view.
        size: of the view.
        out: takes the views' pixels, uint8 [number, channels, size, size]; None keeps none.
        rows: where in `out`.
    """

    def one(source: decode.Source, row: int) -> list[Any]:
        image = decode.upright(source)
        array = decode.pixels(decode.view(image, channels, size))
        if out is not None:
            out[row] = array
        return [decode.digest(image).hex(), *decode.sums(array)]

    return [_tried(lambda source=source, row=row: one(source, row)) for source, row in zip(sources, rows, strict=True)]


def _tried(make: Any) -> Any:
    """What `make` gives, or the reason as text: whatever a decoder raises, the picture is broken."""
    try:
        return make()
    except MemoryError:
        return "it does not fit into memory"
    except Exception as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        if "cannot identify image file" in reason:
            reason = "it is no picture that Pillow can read"
        return reason.splitlines()[0][:200] if reason else type(error).__name__


def answer(task: dict[str, Any]) -> list[Any]:
    """Do what a line asks for."""
    sources: list[decode.Source] = [Path(name) for name in task["paths"]]
    if "size" not in task:
        return heads(sources)
    out = None if task["out"] is None else np.load(task["out"], mmap_mode="r+")
    return views(sources, task["channels"], task["size"], out, task["rows"])


def main() -> None:
    """Answer until there is no more to read."""
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
