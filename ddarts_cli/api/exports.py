"""Exported networks."""

from __future__ import annotations

from pathlib import Path

from ddarts_core.exports.serving import Predictor
from ddarts_core.ground.errors import UserError


def load_export(path: str | Path) -> Predictor:
    """Load the network of an export. Its method `classify` names what pictures show.

    Args:
        path: the folder of an export with trained weights, or its `weights.safetensors` or `model.onnx`.

    Raises:
        UserError: there are no such weights, or their file is damaged or was not written by an export.

    Example:
        >>> import numpy as np
        >>> from ddarts_core.settings.config import resolve
        >>> from ddarts_core.exports.export import Blueprint, untrained, write_safetensors
        >>> from ddarts_core.genotypes.zoo import ZOO
        >>> blueprint = Blueprint.of(ZOO["ResNet18"].genotype, resolve({"retrain": {"channels": 2}}))
        >>> write_safetensors(untrained(blueprint, seed=0), blueprint, "weights.safetensors")
        >>> (answers,) = load_export(".").classify(np.zeros((8, 8), np.uint8), top=2)
        >>> len(answers)
        2
    """
    found = Path(path)
    if found.suffix not in (".safetensors", ".onnx"):
        files = [found / name for name in ("weights.safetensors", "model.onnx") if (found / name).is_file()]
        if not files:
            raise UserError(f"{found} has neither weights.safetensors nor model.onnx: train its genotype and export it")
        found = files[0]
    return Predictor(found)
