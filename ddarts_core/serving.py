"""Predictions from an exported weights file alone; MLflow's `pyfunc` loads a registered model through this module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from .errors import UserError
from .export import Classifier, read_safetensors


class Predictor:
    """Images as an array to logits as an array."""

    def __init__(self, weights: str | Path) -> None:
        network, blueprint = read_safetensors(weights)
        self.classifier = Classifier(network, blueprint.info)

    def predict(self, images: Any, params: Any = None) -> Any:
        """Logits [batch, classes] of images of 0..1, float32 [batch, channels, height, width].

        Raises:
            UserError: the images have another shape.
        """
        array = torch.from_numpy(np.ascontiguousarray(np.asarray(images, dtype=np.float32)))
        wanted = tuple(self.classifier.sample(1).shape[1:])
        if tuple(array.shape[1:]) != wanted:
            raise UserError(
                f"images of shape {list(array.shape)}: the model takes [batch, {', '.join(map(str, wanted))}]"
            )
        with torch.no_grad():
            return self.classifier(array).numpy()


def _load_pyfunc(path: str) -> Predictor:
    """The name that MLflow calls with the path of the model's data."""
    return Predictor(path)
