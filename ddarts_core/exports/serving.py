"""Predictions from an exported file alone; MLflow's `pyfunc` loads a registered model through this module."""

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
    """Pictures to logits, to classes and their probabilities.

    Args:
        model: `weights.safetensors` or `model.onnx` of an export; each is all that is needed.

    Attributes:
        setup: how pictures are prepared, and the names of the classes.

    Raises:
        UserError: the file is missing, damaged or another's, or onnxruntime is not installed.

    Example:
        predictor = Predictor("export/weights.safetensors")
        predictor.classify(["cat.jpg"], top=2)  # [[("cat", 0.98), ("dog", 0.02)]]
    """

    def __init__(self, model: str | Path) -> None:
        load = _onnx if Path(model).suffix == ".onnx" else _safetensors
        self.setup, self._logits = load(Path(model))

    def predict(self, images: Any, params: Any = None) -> Any:
        """Logits [batch, classes] of images.

        Args:
            images: an array (see `Preprocessing.of_array`), the path of a file or its bytes, these also as a URI
                `data:image/png;base64,...` (RFC 2397), several of these, or a table whose first column has them.
                Arrays of different sizes come as a list.
            params: MLflow's; there are none.

        Raises:
            UserError: something is no picture, or an array of another kind.
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
        """For each image its most probable classes and their probabilities, best first; `images` as for `predict`."""
        return [self.best(row, top) for row in self.predict(images)]

    def best(self, logits: Array, top: int) -> list[tuple[str, float]]:
        """The most probable classes and their probabilities (softmax) of logits [classes]; of equals the first."""
        shifted = np.exp(logits.astype(np.float64) - logits.max())
        shares = shifted / shifted.sum()
        return [(self.setup.classes[i], float(shares[i])) for i in np.argsort(-shares, kind="stable")[:top]]

    def of_files(self, files: Iterable[Path]) -> Iterator[tuple[Path, Array | UserError]]:
        """Each file with its logits, or with the reason why it is no picture; read by threads, a batch at a time."""

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
        """float32 [batch, channels, height, width] of 0..1."""
        if isinstance(image, str) and image.startswith("data:"):
            return scaled(self.setup.of_file(_of_data_uri(image)))[None]
        if isinstance(image, (str, Path)):
            return scaled(self.setup.of_file(Path(image)))[None]
        if isinstance(image, (bytes, bytearray, memoryview)):
            return scaled(self.setup.of_file(bytes(image)))[None]
        return self.setup.of_array(np.asarray(image))

    def _computed(self, prepared: Sequence[Array]) -> list[Array]:
        """Logits, some images at a time."""
        images = np.concatenate(prepared)
        return [self._logits(images[start : start + BATCH]) for start in range(0, len(images), BATCH)]


def _of_data_uri(uri: str) -> bytes:
    """The bytes of a picture in a URI, in which JSON carries them."""
    kind, comma, text = uri.partition(",")
    try:
        if not (comma and kind.endswith(";base64")):
            raise ValueError("it begins with no data:image/png;base64,")
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise UserError(f"a picture as a URI of {len(uri)} characters cannot be read: {error}") from error


def _listed(images: Any) -> Sequence[Any]:
    """What is one image, one array of images or a sequence of either, as a sequence."""
    if hasattr(images, "iloc"):  # a table of pandas
        images = images.iloc[:, 0] if images.ndim == 2 else images
        return list(images)
    if isinstance(images, np.ndarray) and images.dtype.kind in "OSU":
        return list(images.ravel())
    if isinstance(images, (list, tuple)) and not _is_numbers(images):
        return images
    return [images]


def _is_numbers(images: Sequence[Any]) -> bool:
    """Whether nested lists are one array of numbers, and not images of their own."""
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
    """The name that MLflow calls with the path of the model's data."""
    return Predictor(path)
