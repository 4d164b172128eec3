"""Where images of one's own lie: what is there, without opening a picture. Torch-free.

A source lists its images in the order of their names and says of each its class and its split. The order of a folder's
images is that of the files' names, whatever their classes: files that are numbered are in the order of their numbers.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import UserError
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
    """What a source has.

    Attributes:
        name: of the data set.
        root: its folder or file.
        classes: names in the order of the labels.
        names: of the images, each once.
        labels: int64 [number].
        test: whether an image is of the test split, bool [number]; None: nobody has chosen yet.
        stamps: what changes with an image: size in bytes and time in ns of its file, int64 [number, 2].
        open: number of an image -> its file, bytes or pixels.
        in_files: whether each image is a file of its own, which can be streamed.
        notes: what a user should know, in sentences.
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


def shown(names: Sequence[str], most: int = 3) -> str:
    """Some names for a sentence, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(repr(name) for name in names[:most]) + more


def check_classes(where: dict[str, set[str]], what: str) -> tuple[str, ...]:
    """The classes of all splits, sorted by name.

    Args:
        where: the classes by the split that has images of them.
        what: has the splits.

    Raises:
        UserError: there is one class or none, or a split lacks a class of another.
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
        raise UserError(f"{what} has {found}: a classifier needs two or more, each a folder of its images")
    for name in classes:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise UserError(f"{what}: the name {name!r} of a class is not valid UTF-8: rename it") from None
    return classes


# --- folders --------------------------------------------------------------------------------------------------------


def folder(root: Path) -> Found:
    """`ROOT/train/CLASS/FILE`, `ROOT/val/CLASS/FILE`, `ROOT/test/CLASS/FILE`, or `ROOT/CLASS/FILE` alone.

    `val` without `test` is the test split, as with ImageNet. Beside `test` its images are training images like those of
    `train`: a search holds out some of its own.

    Raises:
        UserError: the folder is missing, or is not laid out like that.
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
    rows: list[tuple[str, str, str, int, int]] = []  # name in its class, class, split, size, time
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
    stamps = np.array([row[3:] for row in rows], np.int64).reshape(-1, 2)
    return Found("folder", base, names, paths, labels, test, stamps, lambda i: base / paths[i], True, tuple(notes))


def _entries(path: Path) -> list[os.DirEntry[str]]:
    """What lies in a folder, without what is hidden or a system's own."""
    try:
        with os.scandir(path) as found:
            return [one for one in found if not one.name.startswith(".") and one.name.lower() not in _FOREIGN]
    except OSError as error:
        raise UserError(f"cannot read the folder {str(path)!r}: {error.strerror}") from error


def _classes(path: Path) -> tuple[list[str], int]:
    """Folders of classes, and the number of files that are no images.

    Raises:
        UserError: there are none, or images lie beside them.
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


def _files(path: Path) -> tuple[list[tuple[str, tuple[int, int]]], int]:
    """Images below the folder of a class with size and time, and the number of other files."""
    found: list[tuple[str, tuple[int, int]]] = []
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
                found.append((prefix + entry.name, (0, 0)))
                continue
            if stat.S_ISREG(status.st_mode) and _is_picture(entry.name):
                found.append((prefix + entry.name, (status.st_size, status.st_mtime_ns)))
            else:
                others += 1
    return found, others


def _is_picture(name: str) -> bool:
    """Whether Pillow opens files of this name's ending."""
    ending = os.path.splitext(name)[1].lower()
    kind = Image.registered_extensions().get(ending)
    return kind is not None and kind in Image.OPEN and kind not in ("PDF", "MPEG", "FITS", "HDF5")


# --- arrays ---------------------------------------------------------------------------------------------------------


def arrays(root: Path) -> Found:
    """One .npz file with `images` and `labels`, or a folder with train.npz and, if there is one, test.npz.

    Images are uint8 [n, height, width], [n, height, width, channels] or [n, channels, height, width] with 1 or 3
    channels; labels whole numbers or text.

    Raises:
        UserError: a file is missing or damaged, or holds something else. No pickle is ever loaded.
    """
    files = {"train": root} if root.is_file() else {name: root / f"{name}.npz" for name in ("train", "test")}
    if not root.is_file():
        files = {name: path for name, path in files.items() if path.is_file()}
    if "train" not in files:
        raise UserError(f"data.root {str(root)!r}: expected one .npz file, or a folder with train.npz")
    parts = {name: _read_arrays(path) for name, path in files.items()}
    return _joined("arrays", root, {split: [path] for split, path in files.items()}, parts)


def _read_arrays(path: Path) -> tuple[list[np.ndarray[Any, Any]], np.ndarray[Any, Any]]:
    try:
        with np.load(path, allow_pickle=False) as content:
            if not hasattr(content, "files"):
                raise ValueError("it is one array and no .npz")
            absent = [name for name in ("images", "labels") if name not in content.files]
            if absent:
                raise ValueError(f"it has no array {absent[0]!r}, only {', '.join(content.files) or 'nothing'}")
            images, labels = content["images"], content["labels"]
    except Exception as error:  # zipfile, zlib and numpy raise many kinds
        raise UserError(f"cannot read {str(path)!r}: {str(error).splitlines()[0]}") from error
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or 0 in images.shape:
        raise UserError(
            f"{str(path)!r}: images is {images.dtype} {list(images.shape)}, expected uint8 [n, height, width], "
            "[n, height, width, channels] or [n, channels, height, width]"
        )
    if images.ndim == 4 and images.shape[3] not in (1, 3):
        if images.shape[1] not in (1, 3):
            raise UserError(f"{str(path)!r}: images is {list(images.shape)}, and neither end has 1 or 3 channels")
        images = images.transpose(0, 2, 3, 1)
    if images.ndim == 4 and images.shape[3] == 1:
        images = images[..., 0]
    if labels.ndim != 1 or labels.dtype.kind not in "iuU":
        raise UserError(
            f"{str(path)!r}: labels is {labels.dtype} {list(labels.shape)}, expected whole numbers or text [n]"
        )
    if len(labels) != len(images):
        raise UserError(f"{str(path)!r} has {len(images):,} images but {len(labels):,} labels")
    return list(images), labels


def _joined(
    kind: str, root: Path, files: dict[str, list[Path]], parts: Mapping[str, tuple[Sequence[Any], np.ndarray[Any, Any]]]
) -> Found:
    """Images and labels by split as one source. Whole numbers keep their order as classes: 2 before 10."""
    kinds = {"text" if labels.dtype.kind in "UO" else "numbers" for _, labels in parts.values()}
    if len(kinds) > 1:
        raise UserError(f"data.root {str(root)!r}: the labels of one split are numbers and those of another are text")
    where = {split: set(map(str, labels.tolist())) for split, (_, labels) in parts.items()}
    classes = check_classes(where, f"data.root {str(root)!r}")
    if kinds == {"numbers"}:
        classes = tuple(sorted(classes, key=int))
    number = {name: label for label, name in enumerate(classes)}
    images = [image for own, _ in parts.values() for image in own]
    labels = np.array([number[str(label)] for _, own in parts.values() for label in own.tolist()], np.int64)
    names, stamps, test = [], [], []
    for split, (own, _) in parts.items():
        status = [path.stat() for path in files[split]]
        names += [f"{split}#{row}" for row in range(len(own))]
        stamps += [(sum(one.st_size for one in status), max(one.st_mtime_ns for one in status))] * len(own)
        test += [split == "test"] * len(own)
    notes = () if len(parts) > 1 else ("there is no test split: of each class a fifth is the test split",)
    return Found(
        kind,
        root,
        classes,
        names,
        labels,
        np.array(test) if len(parts) > 1 else None,
        np.array(stamps, np.int64).reshape(-1, 2),
        lambda i: images[i],
        False,
        notes,
    )


# --- Parquet --------------------------------------------------------------------------------------------------------


def parquet(root: Path) -> Found:
    """A Parquet file, or a folder of them whose names begin with train, validation and test as Hugging Face's do.

    The images' column holds encoded bytes, or a struct of `bytes` and `path`; the labels' whole numbers or text. Names
    of classes are read from Hugging Face's metadata if there are some.

    Raises:
        UserError: there is no such file, or its columns are others.
    """
    paths = [root] if root.is_file() else sorted(path for path in root.rglob("*.parquet") if path.is_file())
    if not paths:
        raise UserError(f"data.root {str(root)!r}: expected a Parquet file, or a folder with files *.parquet")
    by_split: dict[str, list[Path]] = {}
    for path in paths:
        start = path.name.split("-")[0].split(".")[0].lower()
        by_split.setdefault({"validation": "val", "valid": "val"}.get(start, start), []).append(path)
    known = {split: by_split[split] for split in SPLITS if split in by_split}
    if known and (len(known) < len(by_split) or "train" not in known):
        raise UserError(
            f"data.root {str(root)!r}: names of Parquet files begin with {', '.join(sorted(by_split))}; expected "
            "train, and beside it validation or test, or names without splits"
        )
    held = "test" if "test" in known else "val"
    files = {"train": known.get("train", paths) + (known.get("val", []) if held == "test" else [])}
    if known.get(held):
        files["test"] = known[held]
    parts = {split: _read_parquet(own) for split, own in files.items()}
    return _joined("parquet", root, files, parts)


def _read_parquet(paths: Sequence[Path]) -> tuple[Sequence[Any], np.ndarray[Any, Any]]:
    import json

    import pyarrow as pa
    import pyarrow.parquet as pq

    images: list[Any] = []
    labels: list[np.ndarray[Any, Any]] = []
    for path in paths:
        try:
            table = pq.read_table(path, partitioning=None)
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"cannot read {str(path)!r} as Parquet: {str(error).splitlines()[0]}") from error
        columns = ", ".join(f"{field.name} ({field.type})" for field in table.schema)
        pictures = [field.name for field in table.schema if _has_bytes(field.type)]
        named = [name for name in ("label", "labels", "class", "target", "fine_label") if name in table.column_names]
        if len(pictures) != 1 or not named:
            raise UserError(
                f"{str(path)!r} has the columns {columns}: expected one of images (bytes, or a struct with bytes), and "
                "one that is called label"
            )
        column, label = table.column(pictures[0]), table.column(named[0])
        if pa.types.is_struct(column.type):
            column = pa.chunked_array([chunk.field("bytes") for chunk in column.chunks], pa.binary())
        text = pa.types.is_string(label.type) or pa.types.is_large_string(label.type)
        if not (text or pa.types.is_integer(label.type)):
            raise UserError(f"{str(path)!r}: the column {named[0]} is {label.type}, expected whole numbers or text")
        for name, values in ((pictures[0], column), (named[0], label)):
            if values.null_count:
                raise UserError(f"{str(path)!r}: the column {name} lacks {values.null_count:,} values")
        own = np.array(label.to_pylist(), object if text else np.int64)
        meta = (table.schema.metadata or {}).get(b"huggingface")
        if meta is not None and not text:
            known = json.loads(meta).get("info", {}).get("features", {}).get(named[0], {}).get("names")
            if known is not None:
                if own.size and not 0 <= own.min() <= own.max() < len(known):
                    raise UserError(f"{str(path)!r}: labels {own.min()} to {own.max()}, but {len(known)} names")
                own = np.array([known[number] for number in own], object)
        images += column.to_pylist()
        labels.append(own)
    return images, np.concatenate(labels)


def _has_bytes(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return any(kind.field(i).name == "bytes" for i in range(kind.num_fields))
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def counts(labels: np.ndarray[Any, np.dtype[np.int64]], number: int) -> list[int]:
    """Images of each class."""
    found = Counter(labels.tolist())
    return [found[label] for label in range(number)]
