"""What depends on the kind of device, on machines without a GPU: its clock and its flags are stood in for."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ddarts_core.data.sets import load_train
from ddarts_core.genotypes.zoo import ZOO
from ddarts_core.ground.errors import UserError
from ddarts_core.settings.retrain_settings import RetrainConfig
from ddarts_core.supernets import execution
from ddarts_core.tensors import devices
from ddarts_core.tensors.devices import Stopwatch, check_amp, pick_device, set_float32
from ddarts_core.training.retrain import Retrain

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


class Gpu:
    """A GPU that lags: work takes its time when it is waited for, not when it is started."""

    def __init__(self) -> None:
        self.busy_until = 0.0

    def compute(self, milliseconds: float) -> None:
        self.busy_until += milliseconds

    def event(self, enable_timing: bool) -> Any:
        assert enable_timing
        event = SimpleNamespace(at=-1.0)
        event.record = lambda stream: setattr(event, "at", self.busy_until)
        event.elapsed_time = lambda other: other.at - event.at
        return event


def test_seconds_on_a_gpu_are_those_of_its_work(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu, waited = Gpu(), []
    monkeypatch.setattr(torch.cuda, "Event", gpu.event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    watch = Stopwatch(CUDA)
    for _ in range(2):
        gpu.compute(500)
        watch.lap("weights")
        gpu.compute(250)
        watch.lap("alphas")
    assert not waited  # no step waits for the GPU
    assert watch.seconds() == {"weights": 1.0, "alphas": 0.5}
    assert waited == [CUDA]


def test_seconds_make_up_the_whole_epoch(digits: Any, tiny_config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[float] = []

    def clock() -> float:
        looks.append(float(len(looks)))
        return looks[-1]

    monkeypatch.setattr(devices.time, "perf_counter", clock)
    (record,) = digits(tiny_config("search.epochs=1")).records()
    assert set(record.seconds) == {"data", "alphas", "weights", "recalibration", "evaluation"}
    assert sum(record.seconds.values()) == looks[-1] - looks[0]


@pytest.mark.parametrize("amp", ["tf32", "fp16"])
def test_a_precision_that_a_cpu_lacks_is_refused(amp: str) -> None:
    with pytest.raises(UserError, match=rf"retrain\.amp {amp} needs a GPU: use bf16 or none"):
        check_amp(amp, CPU, "retrain.amp")
    check_amp(amp, CUDA)


def test_a_gpu_that_is_not_here_is_taken_for_a_recent_one(monkeypatch: pytest.MonkeyPatch) -> None:
    check_amp("bf16", CUDA)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    with pytest.raises(UserError, match=r"search\.amp bf16: this GPU has no bfloat16"):
        check_amp("bf16", CUDA)
    with pytest.raises(UserError, match=r"search\.amp tf32 needs a GPU"):
        check_amp("tf32", pick_device("cpu"))


@pytest.mark.parametrize(("amp", "allowed"), [("none", False), ("tf32", True), ("bf16", False)])
def test_float32_is_float32_unless_tf32_is_asked_for(
    tiny_config: Any, digits: Any, monkeypatch: pytest.MonkeyPatch, amp: str, allowed: bool
) -> None:
    """torch's own default lets a GPU's convolutions drop 13 bits."""
    monkeypatch.setattr(execution, "check_amp", lambda *_: None)
    monkeypatch.setattr("ddarts_core.training.retrain.check_amp", lambda *_: None)
    other = "none" if allowed else "tf32"
    try:
        set_float32(other)
        digits(tiny_config(f"search.amp={amp}"))
        assert torch.backends.cudnn.allow_tf32 is allowed
        set_float32(other)
        info, train = load_train(tiny_config().data)
        Retrain(RetrainConfig(channels=2, amp=amp, device="cpu"), ZOO["ResNet18"].genotype, info, train, None, seed=0)
        assert torch.backends.cudnn.allow_tf32 is allowed
    finally:
        set_float32("none")


@pytest.mark.parametrize("setting", ["search.order=second", "method=ddarts-published"])
def test_no_lower_precision_where_gradients_are_subtracted(tiny_config: Any, setting: str) -> None:
    config = tiny_config(setting, "search.amp=tf32", "ablation.loss=monitor")
    with pytest.raises(UserError, match=r"search\.amp=none"):
        execution.choose(config, CUDA)


def test_every_pass_of_replayed_graphs_begins_a_step(
    digits: Any, tiny_config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step, and each batch of an evaluation and of its statistics: what a graph wrote is not read again."""
    begun: list[None] = []
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: begun.append(None))
    monkeypatch.setattr(execution, "_check_compile", lambda config, device: None)
    monkeypatch.setattr(execution, "CompiledForm", lambda mode: execution.readable)
    search = digits(tiny_config("search.epochs=1", "search.compile=reduce-overhead"))
    list(search.records())
    steps = len(search.splits.weights) // 24
    evaluated = -(-len(search.splits.held_out) // 24)
    assert len(begun) == 2 * steps + min(steps, search.config.search.recalibration_batches) + evaluated


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="this kernel forgets no peak")
def test_a_peak_is_that_of_the_epoch_and_not_of_the_process() -> None:
    large = torch.ones(50_000_000)  # 190 MiB
    before = devices.peak_memory(CPU)
    del large
    devices.forget_peak(CPU)
    assert devices.peak_memory(CPU) < before - 100 * 2**20
