"""`ddarts estimate`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ddarts_cli.options import json_option, print_json, set_option
from ddarts_core.ground.errors import UserError

if TYPE_CHECKING:
    from ddarts_tuning.settings.config import SweepConfig
    from ddarts_tuning.settings.tune import TuneConfig

    from ddarts_core.genotypes.genotype import Genotype
    from ddarts_core.settings.config import ExperimentConfig


#: What the memory of a process has beside its tensors.
WHOLE = "with what the libraries and the allocator take"


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@set_option
@json_option
@click.option("--time/--no-time", "timed", default=True, help="Time a few steps on this machine.")
@click.option("--truth", is_flag=True, help="FILE is that of ddarts truth: time is that of the middle network.")
def command(file: Path, overrides: tuple[str, ...], as_json: bool, timed: bool, truth: bool) -> None:
    """Print what FILE will take: parameters, multiply-adds, memory, steps, and the expected time.

    Memory and sizes are counted without computing anything. Memory is given twice: that of the tensors, and an upper
    bound of that of the whole process, which is what a machine can run out of.

    FILE is an experiment or a sweep. The training of an experiment is that of `ddarts retrain`. The training of a sweep
    is that within a trial, without the held-out images. The numbers of a sweep are those of its own settings, not of
    what its space draws, and its time is that of all trials if none is stopped early. With tune.resources auto, the
    command says what share of this machine a trial would get.

    \b
    Examples:
      ddarts estimate experiments/quickstart.yaml
      ddarts estimate experiments/quickstart_sweep.yaml --set search.channels=16 --json
      ddarts estimate experiments/truth_digits.yaml --truth
    """
    from ddarts_tuning.settings.budget import within
    from ddarts_tuning.settings.config import SweepConfig
    from ddarts_tuning.settings.truth import load_truth

    from ddarts_cli.files import load
    from ddarts_core.estimates.estimate import estimate, time_steps
    from ddarts_core.estimates.memory import resident_memory
    from ddarts_core.tensors.devices import pick_device

    config = load_truth(file, overrides) if truth else load(file, overrides)
    device = pick_device(config.search.device)
    tune, refusal = fixed(config)
    of_trial = isinstance(config, SweepConfig)
    if isinstance(config, SweepConfig):
        config = config.model_copy(update={"search": within(config, config.tune)[0].search})
    found = estimate(config, device, trial=of_trial)
    memory = found.memory
    document: dict[str, Any] = {
        "device": str(device),
        "parameters": found.parameters,
        "macs": found.macs,
        "memory": {
            "parameters": memory.parameters,
            "gradients": memory.gradients,
            "optimiser": memory.optimiser,
            "activations": memory.activations,
            "weight_step": memory.weight_step,
            "alpha_step": memory.alpha_step,
            "search": memory.peak,
            "retrain": found.retrain_memory,
            "resident": {
                "search": resident_memory(memory.peak, device),
                "retrain": resident_memory(found.retrain_memory, device),
            },
        },
        "images": dict(zip(("weights", "alphas", "held_out"), found.images, strict=True)),
        "steps": {"search": found.steps, "retrain": found.retrain_steps},
        "resources": None,
        "seconds": None,
    }
    if tune is not None:
        document["resources"] = {**tune.fixed_resources.model_dump(), "parallel": parallel(tune)}
    if timed and not refusal:
        timing = time_steps(config, device, trial=of_trial, genotype=middle_genotype(config) if truth else None)
        seconds = {"search": 0.0 if truth else timing.search(config, found), "training": timing.retrain(found)}
        if tune is not None:
            trial = seconds["search"] + (seconds["training"] if tune.objective != "supernet" else 0)
            seconds["sweep"] = trial * -(-tune.num_samples // parallel(tune))
        document["seconds"] = seconds
    if truth and isinstance(config, SweepConfig):
        document = of_truth(document, config)
    if as_json:
        print_json(document)
    else:
        (print_truth if truth else print_text)(document)
    if refusal:
        raise UserError(refusal)


def of_truth(document: Mapping[str, Any], config: SweepConfig) -> dict[str, Any]:
    """The document of a truth: how many trainings it has, of how many genotypes, and nothing of a search."""
    from ddarts_core.settings.config import enumeration_of

    memory, seconds = document["memory"], document["seconds"]
    return {
        **{
            "trainings": config.tune.num_samples,
            "genotypes": len(enumeration_of(config)),
            "device": document["device"],
        },
        "memory": {"retrain": memory["retrain"], "resident": {"retrain": memory["resident"]["retrain"]}},
        "images": document["images"],
        "steps": {"retrain": document["steps"]["retrain"]},
        "resources": document["resources"],
        "seconds": seconds and {name: seconds[name] for name in ("training", "sweep")},
    }


def print_truth(document: Mapping[str, Any]) -> None:
    """The same document in sentences."""
    memory, seconds = document["memory"], document["seconds"]
    click.echo(f"{document['trainings']:,} trainings; the space has {document['genotypes']:,} distinct genotypes")
    click.echo(f"memory of a training step, heaviest network: {mib(memory['retrain'])}, on {document['device']}")
    click.echo(f"of the whole process, at most: {mib(memory['resident']['retrain'])}, {WHOLE}")
    click.echo(f"steps: {document['steps']['retrain']:,} of each training")
    print_resources(document["resources"])
    if seconds:
        click.echo(f"expected time of a training: {duration(seconds['training'])}")
        click.echo(f"expected time of all trainings: {duration(seconds['sweep'])}")


def middle_genotype(config: ExperimentConfig) -> Genotype:
    """The genotype with the middle number of multiply-adds, of all that a truth trains."""
    from ddarts_core.data.sets import data_info
    from ddarts_core.networks.cost import retrain_cost
    from ddarts_core.settings.config import enumeration_of

    info = data_info(config.data)
    ordered = sorted(enumeration_of(config), key=lambda genotype: retrain_cost(genotype, config, info).macs["A"])
    return ordered[len(ordered) // 2]


def print_text(document: Mapping[str, Any]) -> None:
    """The same document in sentences."""
    memory, steps = document["memory"], document["steps"]
    click.echo(
        f"supernet: {document['parameters']:,} parameters, {document['macs']:,} multiply-adds per image, "
        f"on {document['device']}"
    )
    click.echo(
        f"memory of a search step: {mib(memory['search'])} (parameters {mib(memory['parameters'])}, gradients "
        f"{mib(memory['gradients'])}, optimiser {mib(memory['optimiser'])}, activations {mib(memory['activations'])})"
    )
    click.echo(f"memory of a training step, heaviest derived network: {mib(memory['retrain'])}")
    resident = memory["resident"]
    click.echo(
        f"of the whole process, at most: {mib(resident['search'])} in the search, {mib(resident['retrain'])} in the "
        f"training, {WHOLE}"
    )
    click.echo(f"steps: {steps['search']:,} of the search, {steps['retrain']:,} of the training")
    print_resources(document["resources"])
    for what, value in (document["seconds"] or {}).items():
        click.echo(f"expected time of the {what}: {duration(value)}")


def print_resources(resources: Mapping[str, Any] | None) -> None:
    """What a trial of a sweep gets of this machine; nothing of a search, which is no trial."""
    from ddarts_cli.commands.sweep import in_words

    if resources is not None:
        taken = in_words(resources["cpu"], resources["gpu"])
        click.echo(f"a trial takes {taken}: {resources['parallel']} at a time on this machine")


def fixed(config: ExperimentConfig) -> tuple[TuneConfig | None, str]:
    """How a sweep runs its trials, with `auto` replaced for this machine; None of a search, or with why none fits."""
    from ddarts_tuning.cluster.resources import with_resources
    from ddarts_tuning.settings.config import SweepConfig

    if not isinstance(config, SweepConfig):
        return None, ""
    try:
        return with_resources(config, config.build_space()).tune, ""
    except UserError as error:
        return None, str(error)


def parallel(tune: TuneConfig) -> int:
    """Trials of a sweep that this machine runs at a time."""
    import os

    import torch

    resources = tune.fixed_resources
    fits = [int((os.cpu_count() or 1) / resources.cpu)]
    if resources.gpu:
        fits.append(int(torch.cuda.device_count() / resources.gpu + 1e-6))
    return max(1, min([*fits, tune.num_samples, tune.max_concurrent or tune.num_samples]))


def mib(size: int) -> str:
    """Bytes in MiB or GiB."""
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"


def duration(seconds: float) -> str:
    """Seconds in the largest unit that leaves a number above 1."""
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} seconds"
