"""Sweeps that run on one machine at the same time: what each of them takes of its cores and GPUs.

A sweep that starts Ray here writes what its trials can take at a time into a file of its own, and holds this file's
lock while the trials run. A later sweep leaves these cores and GPUs to the earlier one, and takes the rest. The lock
goes with the process, however the process ends, and a file whose lock nobody holds counts for nothing. Two sweeps see
each other only if they have the same user and the same folder for temporary files.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from ..settings.tune import TuneConfig

VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Claim:
    """What a sweep takes of this machine.

    Attributes:
        study: the folder or URI of the sweep's study.
        cores: the numbers of the cores that the sweep's process may run on.
        cpus: how many of these cores the sweep's trials can take at a time.
        gpus: the GPUs that the trials can take, as CUDA_VISIBLE_DEVICES names them.
    """

    study: str
    cores: tuple[int, ...]
    cpus: int
    gpus: tuple[str, ...]


_log = logging.getLogger(__name__)

_mine: IO[str] | None = None
"""The file of this process, which is open and locked while the process has a claim."""


def share(study: str, config: TuneConfig, num_cpus: int | None) -> int | None:
    """Take a sweep's part of this machine before Ray is started on it; say so if other sweeps leave less than all.

    Args:
        study: folder or URI of the study.
        config: the group `tune` of the sweep, with the resources of a trial.
        num_cpus: how many cores the user asked for; None stands for those that other sweeps leave.

    Returns:
        How many cores Ray gets; None means all.
    """
    visible = _visible() if config.fixed_resources.gpu else []
    found, others = take(study, config, visible)
    alone = claim(study, config, visible, found.cores, [])
    if not others or (found == alone and num_cpus is None):
        return num_cpus
    if found.gpus:
        rest = [gpu for gpu in visible if gpu not in found.gpus and not any(gpu in other.gpus for other in others)]
        os.environ[VISIBLE] = ",".join([*found.gpus, *rest])  # Ray gives the first ones first
    if num_cpus is None:
        _log.warning("%s", sentence(found, alone, others))
    return num_cpus or found.cpus


def sentence(found: Claim, alone: Claim, others: Sequence[Claim]) -> str:
    """The sentence of a sweep that gets less of a machine than it would have had alone."""
    names = sorted({Path(other.study).name for other in others})
    running = f"study {names[0]} is" if len(names) == 1 else f"studies {' and '.join(names)} are"
    taken = f"{found.cpus} of {alone.cpus} cores that it could use"
    if alone.gpus:
        shared = any(gpu in other.gpus for gpu in found.gpus for other in others)
        which = f"GPU {', '.join(found.gpus)}"
        taken += f", and {which}" + (", which they use too and whose memory may not suffice" if shared else "")
    return (
        f"{running} running on this machine: this sweep takes {taken}; tune.max_concurrent says how many trials "
        "a sweep runs, and so what it leaves"
    )


def _visible() -> list[str]:
    """The GPUs of this process."""
    given = os.environ.get(VISIBLE)
    if given is not None:
        return [gpu for gpu in given.split(",") if gpu]
    import torch

    return [str(gpu) for gpu in range(torch.cuda.device_count())]


def take(study: str, config: TuneConfig, visible: Sequence[str]) -> tuple[Claim, list[Claim]]:
    """Take for a sweep's trials what other sweeps leave of this machine, but at least what one trial needs.

    Args:
        study: folder or URI of the study.
        config: the group `tune` of the sweep, with the resources of a trial.
        visible: the GPUs that this process sees.

    Returns:
        What this sweep takes until `release`, and what the other sweeps have.
    """
    global _mine
    folder = Path(tempfile.gettempdir()) / f"ddarts-sweeps-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    with (folder / ".lock").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        others = list(_others(folder))
        found = claim(study, config, visible, tuple(sorted(os.sched_getaffinity(0))), others)
        release()
        _mine = (folder / f"{os.getpid()}.json").open("w", encoding="utf-8")
        fcntl.flock(_mine, fcntl.LOCK_EX)
        _mine.write(json.dumps(asdict(found)))
        _mine.flush()
    return found, others


def release() -> None:
    """Give back what this process took, so that other sweeps can take it."""
    global _mine
    if _mine is not None:
        Path(_mine.name).unlink(missing_ok=True)
        _mine.close()
        _mine = None


def _others(folder: Path) -> Iterator[Claim]:
    """The claims of the processes that are alive; the files of processes that have ended are deleted."""
    for path in sorted(folder.glob("*.json")):
        with contextlib.suppress(FileNotFoundError), path.open(encoding="utf-8") as file:
            if path.name == f"{os.getpid()}.json":
                continue
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                found = json.load(file)
                yield Claim(found["study"], tuple(found["cores"]), found["cpus"], tuple(found["gpus"]))
            else:
                path.unlink()


def claim(
    study: str, config: TuneConfig, visible: Sequence[str], cores: tuple[int, ...], others: Sequence[Claim]
) -> Claim:
    """What a sweep takes of cores and GPUs beside other sweeps. A pure function.

    It takes the cores that are left, but at least as many as a trial needs, and the GPUs that no other sweep has;
    if all GPUs are taken, it shares all of them. It takes no more than its trials can use at a time.

    Args:
        study: folder or URI of the study.
        config: the group `tune` of the sweep, with the resources of a trial.
        visible: the GPUs that this process sees.
        cores: the numbers of the cores that this process may run on.
        others: what the other sweeps have.
    """
    wanted = config.fixed_resources
    together = min(config.max_concurrent or config.num_samples, config.num_samples)
    # A sweep that is bound to other cores, as a job of Slurm is, takes none of these.
    taken = sum(min(other.cpus, len({*other.cores} & {*cores})) for other in others)
    left = min(len(cores), max(len(cores) - taken, math.ceil(wanted.cpu)))
    free = [gpu for gpu in visible if not any(gpu in other.gpus for other in others)] or list(visible)
    gpus = math.ceil(together / int(1 / wanted.gpu + 1e-6)) if wanted.gpu else 0
    return Claim(study, cores, min(left, math.ceil(together * wanted.cpu)), tuple(free[:gpus]))
