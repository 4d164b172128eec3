"""Look at every image once: its size, its colours, whether it is broken, sums for the statistics, and its digest.

What is found is cached by the name, size and time of each image. So a later run, or a trial of the same sweep, opens
only the images that have changed. Torch-free.
"""

from __future__ import annotations

import contextlib
import contextvars
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..ground.errors import UserError
from . import cache, worker
from .sources import Found

#: Images that a process is given at once; so few are looked at without a process of their own.
CHUNK = 128
FEW = 512

#: Told of what is done, how many images of it are done, and of how many.
Tell = Callable[[str, int, int], None]
_tell: contextvars.ContextVar[Tell] = contextvars.ContextVar("tell", default=lambda what, done, total: None)


@contextlib.contextmanager
def watched(tell: Tell) -> Iterator[None]:
    """Within the block every scan reports its progress to `tell`."""
    token = _tell.set(tell)
    try:
        yield
    finally:
        _tell.reset(token)


@dataclass(frozen=True)
class Views:
    """What was found when the images were decoded and made squares of one size.

    Attributes:
        digests: the digests of the whole pictures, uint8 [number, 16].
        sums: the sum and the sum of squares of each channel's pixels, int64 [number, 2, channels].
        broken: why an image is broken, by the number of the image.
        pixels: the squares, uint8 [number, channels, size, size]; None if they were not asked for.
    """

    digests: np.ndarray[Any, np.dtype[np.uint8]]
    sums: np.ndarray[Any, np.dtype[np.int64]]
    broken: dict[int, str]
    pixels: np.ndarray[Any, np.dtype[np.uint8]] | None


def heads(found: Found) -> tuple[np.ndarray[Any, np.dtype[np.int64]], dict[int, str]]:
    """Return width, height and colour (1 or 0) of every image, and why an image has none.

    Returns:
        The table int64 [number, 3], and the reasons by the number of the image.
    """
    path = cache.path_of(found.root, "heads", found.origin)
    kept, old = _kept(path, found, ("heads",))
    table = np.zeros((len(found.names), 3), np.int64)
    broken: dict[int, str] = {}
    passing: dict[int, str] = {}
    if kept is not None:
        table[kept.new] = old["heads"][kept.old]
        broken = _reasons(old, kept)
    todo = _todo(found, kept)
    for number, answer in _asked(found, todo, {}, "looking at"):
        if isinstance(answer, list):
            table[number] = answer
        else:
            _note(answer, number, broken, passing)
    if len(todo) or kept is None or len(kept.old) < kept.total:
        cache.write(path, {**_names(found, passing), "heads": table, "broken": _as_json(broken)})
    return table, {**broken, **passing}


def views(found: Found, channels: int, size: int, in_memory: bool) -> Views:
    """Decode every image and return its view, the square that a network sees.

    Args:
        found: the images.
        channels: 1 for grey, 3 for red, green and blue.
        size: the side of the views in pixels.
        in_memory: whether the pixels of the views are returned too.
    """
    path = cache.path_of(found.root, f"{channels}x{size}", found.origin)
    file = path.with_suffix(f".{fingerprint(found)}.npy")
    number = len(found.names)
    kept, old = _kept(path, found, ("digests", "sums"))
    before = file if kept is None else path.with_suffix(f".{old['fingerprint'].tobytes().decode('ascii')}.npy")
    pixels = _read_pixels(before, kept.total if kept is not None else 0, channels, size) if in_memory else None
    if in_memory and pixels is None:
        kept = None  # the cache is that of a streamed set, or none
    digests, sums = np.zeros((number, 16), np.uint8), np.zeros((number, 2, channels), np.int64)
    broken: dict[int, str] = {}
    passing: dict[int, str] = {}
    if kept is not None:
        digests[kept.new], sums[kept.new] = old["digests"][kept.old], old["sums"][kept.old]
        broken = _reasons(old, kept)
    todo = _todo(found, kept)
    changed = len(todo) > 0 or kept is None or len(kept.old) < kept.total
    if not changed and pixels is not None and kept is not None and (kept.old == kept.new).all():
        return Views(digests, sums, broken, pixels)
    room, prefix = _room(file.parent), f"{path.stem}-"
    for left in file.parent.glob(f"{prefix}*") if room else ():  # of a process that was killed: only one is here
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=room) as place:
        out = None
        if in_memory:
            out = Path(place) / "pixels.npy"
            array = np.lib.format.open_memmap(out, "w+", np.uint8, (number, channels, size, size))
            if kept is not None and pixels is not None:
                array[kept.new] = pixels[kept.old]
            array.flush()
        task = {"channels": channels, "size": size, "out": None if out is None else str(out)}
        for image, answer in _asked(found, todo, task, "reading"):
            if not isinstance(answer, list):
                _note(answer, image, broken, passing)
            else:
                digests[image] = np.frombuffer(bytes.fromhex(answer[0]), np.uint8)
                sums[image] = answer[1:]
        if out is not None:
            pixels = np.load(out, allow_pickle=False)
        if changed or out is not None:
            if out is not None:
                with contextlib.suppress(OSError):
                    os.replace(out, file)
                    for other in file.parent.glob(f"{path.stem}.*.npy"):
                        if other != file:
                            other.unlink()
            known: dict[str, np.ndarray[Any, Any]] = {"digests": digests, "sums": sums, "broken": _as_json(broken)}
            cache.write(path, {**_names(found, passing), **known})
    return Views(digests, sums, {**broken, **passing}, pixels)


def _note(answer: Any, number: int, broken: dict[int, str], passing: dict[int, str]) -> None:
    """Note why an image cannot be read: `broken` for a reason that lies in the file, which the cache may keep."""
    if isinstance(answer, str):
        broken[number] = answer
    else:
        passing[number] = answer["now"]


def _room(wanted: Path) -> str | None:
    """Return the folder of the cache if it can be written, else None: the system's folder for temporary files."""
    try:
        wanted.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return str(wanted) if os.access(wanted, os.W_OK) else None


def _read_pixels(file: Path, rows: int, channels: int, size: int) -> np.ndarray[Any, Any] | None:
    try:
        pixels: np.ndarray[Any, Any] = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    whole = pixels.dtype == np.uint8 and pixels.shape == (rows, channels, size, size)
    return pixels if whole else None


# --- what is known --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Kept:
    """The rows of a cache that are still valid.

    Attributes:
        old: their places in the cache.
        new: their places in the list of images of today.
        total: how many rows the cache has in all.
    """

    old: np.ndarray[Any, np.dtype[np.int64]]
    new: np.ndarray[Any, np.dtype[np.int64]]
    total: int


def _kept(path: Path, found: Found, arrays: Sequence[str]) -> tuple[_Kept | None, dict[str, np.ndarray[Any, Any]]]:
    """Return what a file of the cache knows about these images.

    Returns:
        The rows that are still valid, and the arrays of the file by name. None and no arrays, if an array is missing or
        has another number of rows.
    """
    old = cache.read(path)
    if old is None or not {"names", "stamps", "fingerprint", "broken", *arrays} <= old.keys():
        return None, {}
    names, stamps = cache.as_texts(old["names"]), old["stamps"]
    if any(len(old[name]) != len(names) for name in ("stamps", *arrays)) or stamps.shape[1:] != found.stamps.shape[1:]:
        return None, {}
    if names == list(found.names):
        rows = np.flatnonzero((stamps == found.stamps).all(1))
        return _Kept(rows, rows, len(names)), old
    known = {name: row for row, name in enumerate(names)}
    pairs = [
        (known[name], row)
        for row, name in enumerate(found.names)
        if name in known and (stamps[known[name]] == found.stamps[row]).all()
    ]
    both = np.array(pairs, np.int64).reshape(-1, 2)
    return _Kept(both[:, 0], both[:, 1], len(names)), old


def _todo(found: Found, kept: _Kept | None) -> np.ndarray[Any, np.dtype[np.int64]]:
    everything = np.arange(len(found.names))
    return everything if kept is None else np.setdiff1d(everything, kept.new)


def _names(found: Found, again: Iterable[int]) -> dict[str, np.ndarray[Any, Any]]:
    """What the cache keeps of the list of images; those of `again` are to be read again."""
    own, stamps = np.frombuffer(fingerprint(found).encode("ascii"), np.uint8), found.stamps.copy()
    stamps[list(again)] = -1
    return {"names": cache.as_array(found.names), "stamps": stamps, "fingerprint": own}


def fingerprint(found: Found) -> str:
    """Return a hash of the names and stamps of all images. Files of the cache with the same hash belong together."""
    return hashlib.sha256(found.stamps.tobytes() + cache.as_array(found.names).tobytes()).hexdigest()[:16]


def _as_json(broken: dict[int, str]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return cache.as_array([text for number, reason in broken.items() for text in (str(number), reason)])


def _reasons(old: dict[str, np.ndarray[Any, Any]], kept: _Kept) -> dict[int, str]:
    texts = cache.as_texts(old["broken"])
    here = dict(zip(kept.old.tolist(), kept.new.tolist(), strict=True))
    pairs = zip(map(int, texts[::2]), texts[1::2], strict=True)
    return {here[number]: reason for number, reason in pairs if number in here}


# --- many at once ---------------------------------------------------------------------------------------------------


def _asked(
    found: Found, todo: np.ndarray[Any, np.dtype[np.int64]], task: dict[str, Any], what: str
) -> Iterator[tuple[int, Any]]:
    """Yield the number and the answer of each image; see `worker.answer`.

    Many files are read by processes of their own. A few files, or images in memory, are read by threads.

    Args:
        found: the images.
        todo: the numbers of the images to look at.
        task: what is asked about each image, as `worker.answer` takes it.
        what: the name of this work, for reports of progress.

    Raises:
        UserError: a process died while it read an image.
    """
    tell, total = _tell.get(), len(todo)
    if not total:
        return
    chunks = [todo[start : start + CHUNK].tolist() for start in range(0, total, CHUNK)]
    cores = min(len(os.sched_getaffinity(0)), len(chunks))
    few = not found.in_files or total <= FEW
    local = threading.local()
    started: list[subprocess.Popen[str]] = []

    def here(chunk: list[int]) -> list[Any]:
        sources = [found.open(number) for number in chunk]
        if "size" not in task:
            return worker.heads(sources)
        out = None if task["out"] is None else np.load(task["out"], mmap_mode="r+")
        return worker.views(sources, task["channels"], task["size"], out, chunk)

    def there(chunk: list[int]) -> list[Any]:
        if not hasattr(local, "process"):
            local.process = _start()
            started.append(local.process)
        names = [str(found.open(number)) for number in chunk]
        try:
            local.process.stdin.write(json.dumps({**task, "paths": names, "rows": chunk}) + "\n")
            local.process.stdin.flush()
            line = local.process.stdout.readline()
        except OSError:
            line = ""
        if not line:
            raise UserError(
                f"a process that reads images died at one of {names[0]!r} and the {len(names) - 1} files after it: one "
                "of them is larger than the memory, or breaks the library that decodes it"
            )
        answers: list[Any] = json.loads(line)
        return answers

    pool = ThreadPoolExecutor(max(1, cores))
    try:
        done = 0
        tell(what, 0, total)
        for chunk, answers in zip(chunks, pool.map(here if few else there, chunks), strict=True):
            yield from zip(chunk, answers, strict=True)
            done += len(chunk)
            tell(what, done, total)
    finally:
        pool.shutdown(cancel_futures=True)
        for process in started:
            process.communicate()  # closes its input: it ends


def _start() -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "ddarts_core.datasets.worker"]
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
    )
