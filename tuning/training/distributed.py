"""One training by several workers: Ray Train's TorchTrainer starts them, and again when one dies.

What the workers train is a `Job`, and `worker.py` what each of them does: here a derived network, in `transfer.py` a
detector on such a network. After the death of a worker, all go on from the checkpoint that the first one wrote.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow.fs
import ray
import ray.train
import ray.train.torch

from ddarts_core.data.sets import for_cores, load_test, load_train
from ddarts_core.genotypes.genotype import AnyGenotype
from ddarts_core.ground import plugins
from ddarts_core.ground.errors import Diverged, UserError
from ddarts_core.ground.plugin_files import Source
from ddarts_core.loops import checkpoint
from ddarts_core.loops.confusion import Evaluation
from ddarts_core.loops.records import EpochRecord
from ddarts_core.settings.config import ExperimentConfig
from ddarts_core.settings.found import data_of
from ddarts_core.training.experiment import dealt
from ddarts_core.training.parallel import Group
from ddarts_core.training.retrain import Retrain

from ..cluster.connection import start_ray
from ..store.locks import await_workers
from .process_group import ClusterConfig, LoopbackConfig
from .worker import SCRATCH, Job, Tell, go_on, run_epochs, train_worker, unanimous

WEIGHTS = "weights.pt"
#: Deaths of a worker after which a training is given up.
MAX_FAILURES = 3

#: Seconds that the driver waits for news before it looks whether the workers are still there.
POLL_SECONDS = 1.0


@dataclass(frozen=True)
class Workers:
    """How many workers run a training, and what each worker gets.

    Attributes:
        number: how many workers there are; each is a process.
        cpus: how many CPUs each worker has.
        gpu: whether each worker has a GPU of its own.
        loopback: whether all workers are on this machine and talk over loopback only.
    """

    number: int
    cpus: int
    gpu: bool
    loopback: bool


class Settings(Protocol):
    """The settings of a training that concern its workers."""

    @property
    def batch_size(self) -> int:
        """How many images a step takes."""

    @property
    def device(self) -> str:
        """The device that the training runs on."""


def plan_workers(number: int, group: str, settings: Settings, num_readers: int, address: str | None = None) -> Workers:
    """Start Ray on this machine, or join the cluster at `address`, and check that the workers have a place there.

    Args:
        number: how many workers there are to be.
        group: the name of the group of settings, for messages.
        settings: the settings of the training.
        num_readers: how many processes read images for each worker.
        address: the address of a cluster; None starts Ray on this machine.

    Raises:
        UserError: the batch, the cluster or the setting of the device does not allow so many workers, or there is no
            cluster.
    """
    if number > settings.batch_size:
        raise UserError(
            f"--num-workers {number} exceeds {group}.batch_size {settings.batch_size}: "
            "each worker needs an image of every batch"
        )
    start_ray(address=address)
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]  # ray
    gpu = uses_gpu(settings.device, nodes, group)
    cpus = cpus_per_worker(nodes, number, gpu, 1 + num_readers, group)
    return Workers(number, cpus, gpu, loopback=address is None)


def await_earlier(folder: Path) -> None:
    """Wait until Ray has ended the workers of a driver that was killed: until then they go on, and write checkpoints.

    Raises:
        UserError: the workers do not end.
    """
    if (folder / SCRATCH).exists():
        await_workers(folder / SCRATCH, f"workers of an earlier run in {folder}")


def sources() -> tuple[Source, ...]:
    """The sources of the plug-ins that are loaded here."""
    return tuple(plugin.source for plugin in plugins.loaded())


def rooted(root: str) -> str:
    """The folder of a data set as workers can find it, whose working folder is another one."""
    return str(Path(root).expanduser().absolute())


class Together:
    """The driver's side of a training that workers run together.

    Args:
        job: what the workers train.
        workers: how many workers train, and what each gets.

    Attributes:
        restarts: how often the workers were started again, from the last checkpoint, because one had died.
        test: what the network does with the test images, if the job reads them; it does so once, after the training.
    """

    def __init__(self, job: Job, workers: Workers) -> None:
        self.restarts = 0
        self.test: Evaluation | None = None
        self.job = job
        self.folder = job.folder
        self.workers = workers

    def records(self) -> Iterator[EpochRecord]:
        """Train to the last epoch, and yield a record per epoch, and another if a worker's death repeats the epoch.

        A generator that is closed or interrupted before its end ends Ray in this process, and the workers with it.

        Raises:
            UserError: the data, the checkpoint or the network cannot be used.
            Diverged: a loss is not finite.
            ray.train.TrainingFailedError: workers died more than `MAX_FAILURES` times.
        """
        from ray.util.queue import Empty, Queue

        scratch = self.folder / SCRATCH
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        queue = Queue(actor_options={"num_cpus": 0})
        fit = _Fit(self._trainer(queue, scratch))
        fit.start()
        starts = 0
        try:
            while True:
                running = fit.is_alive()  # asked before the queue: what was told before the end is still read
                try:
                    kind, content = queue.get(timeout=POLL_SECONDS)
                except Empty:
                    if running:
                        continue
                    break
                if kind == "start":
                    self.restarts = starts
                    starts += 1
                elif kind == "epoch":
                    yield EpochRecord.from_dict(content)
                elif kind == "test":
                    self.test = content
                else:
                    raise Diverged(content) if kind == "diverged" else UserError(content)
            if fit.error is not None:
                raise fit.error
        except (KeyboardInterrupt, GeneratorExit):
            ray.shutdown()
            raise
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _trainer(self, queue: Any, scratch: Path) -> ray.train.torch.TorchTrainer:
        return ray.train.torch.TorchTrainer(
            train_worker,
            train_loop_config={"job": self.job, "queue": queue},
            torch_config=LoopbackConfig(folder=str(scratch)) if self.workers.loopback else ClusterConfig(),
            scaling_config=ray.train.ScalingConfig(
                num_workers=self.workers.number,
                use_gpu=self.workers.gpu,
                resources_per_worker={"CPU": self.workers.cpus, **({"GPU": 1} if self.workers.gpu else {})},
            ),
            run_config=ray.train.RunConfig(
                name="run",
                storage_path=str(scratch),
                storage_filesystem=pyarrow.fs.LocalFileSystem(),  # else a path with a % in it would be decoded
                failure_config=ray.train.FailureConfig(max_failures=MAX_FAILURES),
            ),
        )


class DistributedRetrain(Together):
    """A training of a derived network from scratch by several workers, who leave `weights.pt` in its folder.

    Args:
        config: the configuration of the experiment.
        genotype: the genotype of the network.
        seed: the seed that decides everything random.
        folder: the folder of the training.
        workers: how many workers train, and what each gets.
    """

    def __init__(
        self, config: ExperimentConfig, genotype: AnyGenotype, seed: int, folder: Path, workers: Workers
    ) -> None:
        data = data_of(config, genotype).model_copy(update={"root": rooted(config.data.root)})
        own = for_cores(config.model_copy(update={"data": data}), workers.cpus)
        super().__init__(_Job(folder.absolute(), sources(), own, genotype, seed), workers)


class _Fit(threading.Thread):
    """`trainer.fit()` in the background, so that the driver can show the epochs; `error` is what it raised."""

    def __init__(self, trainer: ray.train.torch.TorchTrainer) -> None:
        super().__init__(daemon=True)
        self.trainer = trainer
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.trainer.fit()
        except BaseException as error:  # raised again by who waits for the end
            self.error = error


# --- resources ------------------------------------------------------------------------------------------------------


def uses_gpu(device: str, nodes: Sequence[Mapping[str, float]], group: str = "retrain") -> bool:
    """Whether each worker gets a GPU: with `cuda`, and with `auto` on a cluster that has one.

    Raises:
        UserError: `device` names one GPU.
    """
    if ":" in device:
        raise UserError(f"{group}.device {device!r} names one GPU: with --num-workers use auto, cuda or cpu")
    return device == "cuda" or (device == "auto" and any(node.get("GPU", 0) for node in nodes))


def cpus_per_worker(
    nodes: Sequence[Mapping[str, float]], num_workers: int, gpu: bool, with_gpu: int, group: str = "retrain"
) -> int:
    """How many CPUs each worker can have: as many as fit, but at most `with_gpu` for a worker with a GPU.

    Args:
        nodes: the resources of each machine, `CPU` and `GPU`.
        num_workers: how many workers are wanted.
        gpu: whether each worker needs a GPU.
        with_gpu: how many CPUs are of use to a worker with a GPU.
        group: the name of the group of settings, for messages.

    Raises:
        UserError: so many workers do not fit, even with one CPU each.

    Example:
        >>> cpus_per_worker([{"CPU": 8}, {"CPU": 3}], 3, False, 1)
        3
    """

    def places(cpus: int) -> int:
        by_cpu = [int(node.get("CPU", 0) // cpus) for node in nodes]
        return sum(min(p, int(node.get("GPU", 0))) if gpu else p for p, node in zip(by_cpu, nodes, strict=True))

    most = max((int(node.get("CPU", 0)) for node in nodes), default=0)
    for cpus in range(min(most, with_gpu) if gpu else most, 0, -1):
        if places(cpus) >= num_workers:
            return cpus
    kind, most = "GPUs" if gpu else "CPUs", places(1)
    advice = f"use at most {most}" if most > 1 else "leave --num-workers out"
    raise UserError(
        f"--num-workers {num_workers} exceeds the {most} {kind} that Ray has: {advice}"
        f"{f', or --set {group}.device=cpu' if gpu else ''}"
    )


@dataclass(frozen=True)
class _Job(Job):
    config: ExperimentConfig
    genotype: AnyGenotype
    seed: int

    def train(self, group: Group, tell: Tell) -> None:
        run, records = unanimous(group, lambda: self._begin(group))
        run_epochs(run, records, self, "retrain", self.config.retrain.checkpoint_every, group, tell)
        if run.validation is not None:
            run.load_best()
        test = run.evaluate(unanimous(group, lambda: load_test(self.config.data)), mistakes=True)
        weights = run.weights()  # in every worker: they may have to estimate statistics together
        if group.rank == 0:
            checkpoint.save(self.folder / WEIGHTS, {"weights": weights, "genotype": self.genotype.to_json()})
        tell(("test", test))

    def _begin(self, group: Group) -> tuple[Retrain, list[dict[str, Any]]]:
        """The loop, at its begin or where its checkpoint was taken, and its records so far."""
        config = self.config.retrain
        info, images = load_train(self.config.data)
        train, validation = dealt(config, info, images, self.seed)
        device = ray.train.torch.get_device()
        run = Retrain(config, self.genotype, info, train, validation, self.seed, device, group)
        return run, go_on(run, self, "retrain")
