"""Predictions from an exported file alone. MLflow's `pyfunc` loads a registered model through this module."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ..ground.errors import UserError
from .preprocessing import KEY, Array, Preprocessing, scaled

#: Images that are computed at a time.
BATCH = 64


class Predictor:
    """Turns pictures into logits, or into classes and their probabilities.

    Args:
        model: the file `weights.safetensors` or `model.onnx` of an export. Either is enough alone.

    Attributes:
        setup: how pictures are prepared, and the names of the classes.

    Raises:
        UserError: the file is missing or damaged, ddarts has not written it, or onnxruntime is not installed.

    Example:
        predictor = Predictor("export/weights.safetensors")
        predictor.classify(["cat.jpg"], top=2)  # [[("cat", 0.98), ("dog", 0.02)]]
    """

    def __init__(self, model: str | Path) -> None:
        load = _onnx if Path(model).suffix == ".onnx" else _safetensors
        self.setup, self._logits = load(Path(model))

    def predict(self, images: Any, params: Any = None) -> Any:
        """Return the logits [batch, classes] of images.

        Args:
            images: an array (see `Preprocessing.of_array`), the path of a file, the bytes of a file, or these bytes as
                a URI `data:image/png;base64,...` (RFC 2397); or a list of such images; or a table whose first column
                has them. Give arrays of different sizes as a list.
            params: the parameters that MLflow passes. They are ignored.

        Raises:
            UserError: an image is no picture or no fitting array, or there are no images.
        """
        found, waiting = [], []
        for image in _listed(images):
            waiting.append(self._prepared(image))
            if sum(map(len, waiting)) >= BATCH:
                found += self._computed(waiting)
                waiting = []
        found += self._computed(waiting) if waiting else []
        if not found:
            raise UserError("there are no images to predict: give one or more")
        return np.concatenate(found)

    def classify(self, images: Any, top: int = 3) -> list[list[tuple[str, float]]]:
        """Return for each image its most probable classes and their probabilities, the most probable first.

        Args:
            images: the images, as `predict` takes them.
            top: how many classes are returned for each image, at most.
        """
        return [self.best(row, top) for row in self.predict(images)]

    def best(self, logits: Array, top: int) -> list[tuple[str, float]]:
        """Return the most probable classes, at most `top`, and their probabilities (softmax), from logits [classes].

        Among equally probable classes the first comes first.
        """
        shifted = np.exp(logits.astype(np.float64) - logits.max())
        shares = shifted / shifted.sum()
        return [(self.setup.classes[i], float(shares[i])) for i in np.argsort(-shares, kind="stable")[:top]]

    def of_files(self, files: Iterable[Path]) -> Iterator[tuple[Path, Array | UserError]]:
        """Yield each file with its logits [classes], or with the reason why it is no picture.

        Threads read the files, a batch at a time.
        """

        def read(file: Path) -> Array | UserError:
            try:
                return self.setup.of_file(file)
            except UserError as error:
                return error

        waiting = iter(files)
        with ThreadPoolExecutor() as threads:
            while chunk := list(islice(waiting, BATCH)):
                found = list(threads.map(read, chunk))
                good = [one for one in found if not isinstance(one, UserError)]
                logits = iter(self._logits(scaled(np.stack(good))) if good else ())
                for file, one in zip(chunk, found, strict=True):
                    yield file, one if isinstance(one, UserError) else next(logits)

    def _prepared(self, image: Any) -> Array:
        """Prepare one image or an array of images: float32 [batch, channels, height, width] of 0..1."""
        if isinstance(image, str) and image.startswith("data:"):
            return scaled(self.setup.of_file(_of_data_uri(image)))[None]
        if isinstance(image, (str, Path)):
            return scaled(self.setup.of_file(Path(image)))[None]
        if isinstance(image, (bytes, bytearray, memoryview)):
            return scaled(self.setup.of_file(bytes(image)))[None]
        return self.setup.of_array(np.asarray(image))

    def _computed(self, prepared: Sequence[Array]) -> list[Array]:
        """Compute the logits of prepared images, at most `BATCH` images at a time."""
        images = np.concatenate(prepared)
        return [self._logits(images[start : start + BATCH]) for start in range(0, len(images), BATCH)]


def _of_data_uri(uri: str) -> bytes:
    """Return the bytes of a picture from a data URI, the form in which JSON carries them.

    Raises:
        UserError: the URI cannot be read.
    """
    kind, comma, text = uri.partition(",")
    try:
        if not (comma and kind.endswith(";base64")):
            raise ValueError("it begins with no data:image/png;base64,")
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise UserError(f"a picture as a URI of {len(uri)} characters cannot be read: {error}") from error


def _listed(images: Any) -> Sequence[Any]:
    """Return a sequence of images or arrays of images, from one of them or from several."""
    if hasattr(images, "iloc"):  # a table of pandas
        images = images.iloc[:, 0] if images.ndim == 2 else images
        return list(images)
    if isinstance(images, np.ndarray) and images.dtype.kind in "OSU":
        return list(images.ravel())
    if isinstance(images, (list, tuple)) and not _is_numbers(images):
        return images
    return [images]


def _is_numbers(images: Sequence[Any]) -> bool:
    """Whether nested lists are one array of numbers, and not a list of images."""
    while isinstance(images, (list, tuple)) and images:
        images = images[0]
    return isinstance(images, (int, float, np.number))


Logits = Callable[[Array], Array]


def _safetensors(path: Path) -> tuple[Preprocessing, Logits]:
    import torch

    from .export import Classifier, read_safetensors

    network, blueprint = read_safetensors(path)
    classifier = Classifier(network, blueprint.info)

    def logits(images: Array) -> Array:
        with torch.no_grad():
            found: Array = classifier(torch.from_numpy(images)).numpy()
        return found

    return Preprocessing.of(blueprint.info), logits


def _onnx(path: Path) -> tuple[Preprocessing, Logits]:
    try:
        from onnxruntime import InferenceSession
    except ImportError as error:
        raise UserError("ONNX needs onnxruntime, which is not here: pip install 'ddarts[onnx]'") from error
    try:
        session = InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own kinds, one for each way a file can be broken
        raise UserError(f"cannot read {str(path)!r} as an ONNX model: {str(error).splitlines()[0]}") from error
    metadata = session.get_modelmeta().custom_metadata_map
    if KEY not in metadata:
        raise UserError(f"{str(path)!r} was not written by ddarts: its metadata do not say how pictures are prepared")
    setup = Preprocessing.from_dict(json.loads(metadata[KEY]), str(path))
    return setup, lambda images: session.run(["logits"], {"images": images})[0]


def _load_pyfunc(path: str) -> Predictor:
    """Load a predictor. MLflow calls a function of this name with the path of the model's data."""
    return Predictor(path)
