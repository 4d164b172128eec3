"""Measures how long a network's forward pass takes: the median of many passes, and how far they lie apart."""

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
"""How many passes run before the passes that count: the first passes allocate memory and choose kernels."""


@dataclass(frozen=True)
class Latency:
    """How long one forward pass takes.

    Attributes:
        median: the median time in ms.
        spread: the distance from the first to the third quartile in ms. It is large if the machine does other work.
    """

    median: float
    spread: float


def quartiles(seconds: list[float]) -> Latency:
    """Return the median and the spread of measured times.

    A quartile that lies between two times is interpolated linearly between them.

    Args:
        seconds: the measured times in seconds.

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
    """Measure the untrained network of a blueprint as it is exported: from images of 0..1 to logits.

    Args:
        blueprint: the blueprint of the network.
        runtime: the program that runs the network. onnxruntime always runs it on the CPU.
        device: `cpu` or `cuda`, for torch.
        batch: how many images one pass has.
        threads: how many threads of the CPU are used.
        passes: how many passes are measured, after those that warm up.

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
