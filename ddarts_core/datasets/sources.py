"""Lists a user's own images where they lie, without opening a picture. Torch-free.

A source lists its images in a fixed order, and says the class and the split of each. The images of a folder are in the
order of the names of the files, whatever their classes are: files whose names are numbers of equal length are in the
order of these numbers.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..ground.errors import UserError
from .decode import Source

#: Folders of a split, and what others call them.
SPLITS = ("train", "val", "test")
_MISNAMED = {
    **dict.fromkeys(("training",), "train"),
    **dict.fromkeys(("valid", "validation", "dev", "eval"), "val"),
    **dict.fromkeys(("testing",), "test"),
}

#: What systems leave in folders, beside what begins with a dot.
_FOREIGN = frozenset({"thumbs.db", "desktop.ini", "__macosx"})


@dataclass(frozen=True)
class Found:
    """The images that a source has.

    Attributes:
        name: the name of the data set.
        root: its folder or file.
        classes: the names of the classes in the order of the labels.
        names: the names of the images, each once.
        labels: the class of each image, int64 [number].
        test: whether an image belongs to the test split, bool [number]; None if the images come without a test split.
        stamps: numbers that show when an image's file is another one or has changed, int64 [number, any]; see `stamp`.
            If each image is a file of its own, the first number is the size in bytes.
        open: a function from the number of an image to its file, its bytes or its pixels.
        in_files: whether each image is a file of its own, which can be streamed.
        notes: what a user should know, in sentences.
        origin: what reads the images: the name of the entry, and the contents of plug-ins if it comes from one.
    """

    name: str
    root: Path
    classes: tuple[str, ...]
    names: Sequence[str]
    labels: np.ndarray[Any, np.dtype[np.int64]]
    test: np.ndarray[Any, np.dtype[np.bool_]] | None
    stamps: np.ndarray[Any, np.dtype[np.int64]]
    open: Callable[[int], Source]
    in_files: bool
    notes: tuple[str, ...] = ()
    origin: str = ""


def stamp(status: os.stat_result) -> tuple[int, int, int, int]:
    """Return the size in bytes of a file, its times of writing and of change in ns, and its number in the file system.

    The size and the time of writing alone would be those of another file if two files without compression, which were
    unpacked at one time, change their names.
    """
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino % 2**63


def shown(names: Sequence[str], most: int = 3) -> str:
    """Return the first names for a sentence, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(repr(name) for name in names[:most]) + more


def check_classes(where: dict[str, set[str]], what: str) -> tuple[str, ...]:
    """Return the classes of all splits, sorted by name, and check that every split has all of them.

    Args:
        where: the classes of which a split has images, by the name of the split.
        what: the place that has the splits, for messages.

    Raises:
        UserError: there is one class or none, a split lacks a class that another split has, or the name of a class is
            not valid UTF-8.
    """
    classes = tuple(sorted(set().union(*where.values())))
    for split, own in where.items():
        if absent := sorted(set(classes) - own):
            other = next(name for name, there in where.items() if absent[0] in there)
            raise UserError(
                f"{what}: {split} lacks the class{'es' if len(absent) > 1 else ''} {shown(absent)} that {other} has: "
                "every split needs the same classes, under the same names"
            )
    if len(classes) < 2:
        found = f"only the class {classes[0]!r}" if classes else "no class"
        raise UserError(f"{what} has {found}: a classifier needs two classes or more, and images of each")
    for name in classes:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise UserError(f"{what}: the name {name!r} of a class is not valid UTF-8: rename it") from None
    return classes


# --- folders --------------------------------------------------------------------------------------------------------


def folder(root: Path) -> Found:
    """List the images of a folder with a folder for each class.

    The layout is `ROOT/train/CLASS/FILE`, `ROOT/val/CLASS/FILE` and `ROOT/test/CLASS/FILE`, or `ROOT/CLASS/FILE` alone.
    `val` without `test` is the test split, as with ImageNet. If there is `test` too, the images of `val` are training
    images like those of `train`, because a search holds out some images itself.

    Raises:
        UserError: the folder is missing, or has another layout.
    """
    if not root.is_dir():
        raise UserError(f"data.root {str(root)!r} is {'no folder' if root.exists() else 'not there'}: name the folder")
    below = {entry.name for entry in _entries(root) if entry.is_dir()}
    splits = [name for name in SPLITS if name in below]
    for name in sorted(below):
        if name.lower() in _MISNAMED and (splits or len(below & set(_MISNAMED)) > 1):
            raise UserError(
                f"data.root {str(root)!r} has the folder {name!r} beside {shown(sorted(below - {name}))}: call it "
                f"{_MISNAMED[name.lower()]!r}, the folders of the splits are train, val and test"
            )
    if splits and "train" not in splits:
        raise UserError(f"data.root {str(root)!r} has the folder {splits[0]!r} but none that is called 'train'")
    if splits == ["train"]:
        splits, notes = [], ["there is no val or test: of each class a fifth of train is the test split"]
        base = root / "train"
    else:
        base = root
        notes = [] if splits else ["there is no train, val or test: of each class a fifth is the test split"]
    held = "test" if "test" in splits else "val"
    if len(splits) == 3:
        notes.append("val has training images too: a search and a retrain hold out their own")
    elif splits:
        notes.append(f"{held} is the test split")
    rows: list[tuple[Any, ...]] = []  # name in its class, class, split, stamp
    where: dict[str, set[str]] = {}
    ignored = 0
    for split in splits or [""]:
        classes, others = _classes(base / split)
        ignored += others
        where[split or str(base.name)] = set(classes)
        for name in classes:
            files, others = _files(base / split / name)
            ignored += others
            if not files:
                raise UserError(f"{str(base / split / name)!r} is the folder of a class and has no images: remove it")
            rows += [(file, name, split, *stamp) for file, stamp in files]
    names = check_classes(where, f"data.root {str(root)!r}")
    if ignored:
        notes.append(f"{ignored:,} file{'s' if ignored > 1 else ''} ignored: hidden, foreign, or no pictures by name")
    rows.sort(key=lambda row: (row[0].rpartition("/")[2], row[1], row[0], row[2]))
    number = {name: label for label, name in enumerate(names)}
    paths = [f"{split}/{name}/{file}".lstrip("/") for file, name, split, *_ in rows]
    test = np.array([split == held for _, _, split, *_ in rows]) if splits else None
    labels = np.array([number[row[1]] for row in rows], np.int64)
    stamps = np.array([row[3:] for row in rows], np.int64).reshape(-1, 4)
    return Found("folder", base, names, paths, labels, test, stamps, lambda i: base / paths[i], True, tuple(notes))


def _entries(path: Path) -> list[os.DirEntry[str]]:
    """Return what lies in a folder, without hidden files and without what an operating system has put there."""
    try:
        with os.scandir(path) as found:
            return [one for one in found if not one.name.startswith(".") and one.name.lower() not in _FOREIGN]
    except OSError as error:
        raise UserError(f"cannot read the folder {str(path)!r}: {error.strerror}") from error


def _classes(path: Path) -> tuple[list[str], int]:
    """Return the names of the folders of classes, and the number of files beside them that are no images.

    Raises:
        UserError: there is no such folder, or images lie beside the folders.
    """
    folders, others = [], 0
    loose = []
    for entry in _entries(path):
        if entry.is_dir():
            folders.append(entry.name)
        elif _is_picture(entry.name):
            loose.append(entry.name)
        else:
            others += 1
    if loose:
        beside = "beside the folders of the classes" if folders else "and no folder"
        raise UserError(
            f"{len(loose):,} image{'s lie' if len(loose) > 1 else ' lies'} in {str(path)!r} {beside} "
            f"({shown(sorted(loose), 1)}): an image is of the class whose folder it lies in"
        )
    if not folders:
        raise UserError(f"{str(path)!r} has no folders: give each class a folder of its images")
    return sorted(folders), others


def _files(path: Path) -> tuple[list[tuple[str, tuple[int, ...]]], int]:
    """Return the images below the folder of a class, each with the stamp of its file, and count other files."""
    found: list[tuple[str, tuple[int, ...]]] = []
    others = 0
    seen = set()
    stack = [(path, "")]
    while stack:
        place, prefix = stack.pop()
        real = os.path.realpath(place)
        if real in seen:  # a link to a folder above it
            continue
        seen.add(real)
        for entry in _entries(place):
            if entry.is_dir():
                stack.append((place / entry.name, f"{prefix}{entry.name}/"))
                continue
            try:
                status = entry.stat()
            except OSError:  # a link to nothing: decoding will say so
                found.append((prefix + entry.name, (0, 0, 0, 0)))
                continue
            if stat.S_ISREG(status.st_mode) and _is_picture(entry.name):
                found.append((prefix + entry.name, stamp(status)))
            else:
                others += 1
    return found, others


def _is_picture(name: str) -> bool:
    """Whether Pillow opens files whose names end like this name."""
    ending = os.path.splitext(name)[1].lower()
    kind = Image.registered_extensions().get(ending)
    return kind is not None and kind in Image.OPEN and kind not in ("PDF", "MPEG", "FITS", "HDF5")


def counts(labels: np.ndarray[Any, np.dtype[np.int64]], number: int) -> list[int]:
    """Count the images of each class.

    Args:
        labels: the class of each image, [images].
        number: how many classes there are.
    """
    found = Counter(labels.tolist())
    return [found[label] for label in range(number)]
