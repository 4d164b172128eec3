"""How long a network's forward pass takes, measured: the median of many, and how far they lie apart."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from .export import Blueprint, Classifier, untrained, write_onnx

WARM_UP = 5
"""Passes before those that count: the first ones allocate memory and choose kernels."""


@dataclass(frozen=True)
class Latency:
    """How long one forward pass takes.

    Attributes:
        median: in ms.
        spread: from the first to the third quartile, in ms. Beside other work on the machine it is large.
    """

    median: float
    spread: float


def quartiles(seconds: list[float]) -> Latency:
    """Median and spread of measured times, by linear interpolation between the two nearest.

    Example:
        >>> quartiles([0.001, 0.002, 0.003, 0.004, 0.009])
        Latency(median=3.0, spread=2.0)
    """
    low, middle, high = torch.quantile(torch.tensor(seconds, dtype=torch.float64), _QUARTERS).tolist()
    return Latency(round(1000 * middle, 6), round(1000 * (high - low), 6))


_QUARTERS = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)


def measure(
    blueprint: Blueprint,
    runtime: Literal["torch", "onnxruntime"],
    device: str,
    batch: int,
    threads: int,
    passes: int,
) -> Latency:
    """Measure the network of a blueprint as it is exported: from images of 0..1 to logits, untrained.

    Args:
        blueprint: of the network.
        runtime: what runs it; onnxruntime on the CPU only.
        device: `cpu` or `cuda`.
        batch: images of one pass.
        threads: of the CPU.
        passes: that count.

    Raises:
        UserError: packages for ONNX are missing.
    """
    classifier = Classifier(untrained(blueprint, seed=0), blueprint.info)
    images = classifier.sample(batch)
    if runtime == "onnxruntime":
        return _timed(_onnx(classifier, images, threads), passes)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            return _timed(_torch(classifier, images, torch.device(device)), passes)
    finally:
        torch.set_num_threads(before)


def _torch(classifier: Classifier, images: torch.Tensor, device: torch.device) -> Callable[[], object]:
    classifier, images = classifier.to(device), images.to(device)
    if device.type != "cuda":
        return lambda: classifier(images)

    def run() -> None:
        classifier(images)
        torch.cuda.synchronize(device)

    return run


def _onnx(classifier: Classifier, images: torch.Tensor, threads: int) -> Callable[[], object]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        write_onnx(classifier, file)
        from onnxruntime import InferenceSession, SessionOptions

        options = SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        session = InferenceSession(file.read_bytes(), options, providers=["CPUExecutionProvider"])
    given = {"images": images.numpy()}
    return lambda: session.run(["logits"], given)


def _timed(run: Callable[[], object], passes: int) -> Latency:
    for _ in range(WARM_UP):
        run()
    seconds = []
    for _ in range(passes):
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    return quartiles(seconds)
