"""A user's own images, many of them in one file: .npz arrays and Parquet. Torch-free."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..ground.errors import UserError
from .sources import SPLITS, Found, check_classes, stamp

# --- arrays ---------------------------------------------------------------------------------------------------------


def arrays(root: Path) -> Found:
    """List the images of one .npz file with `images` and `labels`, or of a folder with train.npz and maybe test.npz.

    Images are uint8 [n, height, width], [n, height, width, channels] or [n, channels, height, width] with 1 or 3
    channels. Labels are whole numbers or text, [n]. No pickle is ever loaded.

    Raises:
        UserError: a file is missing or damaged, or holds something else.
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
        if not zipfile.is_zipfile(path):
            raise ValueError("it is no .npz, which numpy.savez writes")
        with np.load(path, allow_pickle=False) as content:
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
    """Make one source of the images and labels of all splits.

    Labels that are whole numbers keep the order of numbers as classes: 2 comes before 10.
    """
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
        known = [[path.name, *stamp(path.stat())] for path in files[split]]
        digest = hashlib.sha256(json.dumps(known).encode(errors="surrogateescape")).digest()
        names += [f"{split}#{row}" for row in range(len(own))]
        stamps += [int.from_bytes(digest[:8], "big") % 2**63] * len(own)  # all rows move if one file does
        test += [split == "test"] * len(own)
    notes = () if len(parts) > 1 else ("there is no test split: of each class a fifth is the test split",)
    return Found(
        kind,
        root,
        classes,
        names,
        labels,
        np.array(test) if len(parts) > 1 else None,
        np.array(stamps, np.int64)[:, None],
        lambda i: images[i],
        False,
        notes,
    )


# --- Parquet --------------------------------------------------------------------------------------------------------


def parquet(root: Path) -> Found:
    """List the images of a Parquet file, or of a folder of Parquet files.

    The names of the files in a folder may begin with train, validation and test, as Hugging Face's do. The column of
    the images holds encoded bytes, or a struct with `bytes` (Hugging Face's has `path` beside it). The column of the
    labels holds whole numbers or text. The names of the classes are read from Hugging Face's metadata, if the file has
    them.

    Raises:
        UserError: there is no such file, or it has other columns.
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
            chunks = [chunk.field("bytes") for chunk in column.chunks]
            empty = pa.null()  # the type of a chunk without a value
            column = pa.chunked_array([one.cast(pa.binary()) if one.type == empty else one for one in chunks])
        text = pa.types.is_string(label.type) or pa.types.is_large_string(label.type)
        if not (text or pa.types.is_integer(label.type)):
            raise UserError(f"{str(path)!r}: the column {named[0]} is {label.type}, expected whole numbers or text")
        for name, values in ((pictures[0], column), (named[0], label)):
            if values.null_count:
                raise UserError(f"{str(path)!r}: the column {name} lacks {values.null_count:,} values")
        own = np.array(label.to_pylist(), object if text else np.int64)
        meta = (table.schema.metadata or {}).get(b"huggingface")
        known = None if meta is None or text else _class_names(meta, named[0])
        if known is not None:
            if own.size and not 0 <= own.min() <= own.max() < len(known):
                raise UserError(f"{str(path)!r}: labels {own.min()} to {own.max()}, but {len(known)} names")
            if len(set(known)) < len(known):
                raise UserError(f"{str(path)!r}: two classes have one name in its metadata ({', '.join(known)[:100]})")
            own = np.array([known[number] for number in own], object)
        images += column.to_pylist()
        labels.append(own)
    return images, np.concatenate(labels)


def _class_names(metadata: bytes, column: str) -> list[str] | None:
    """The names of the classes in Hugging Face's metadata; None if it has none for the column of the labels."""
    try:
        names = json.loads(metadata)["info"]["features"][column]["names"]
    except (ValueError, LookupError, TypeError):
        return None
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


def _has_bytes(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return any(kind.field(i).name == "bytes" for i in range(kind.num_fields))
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))
