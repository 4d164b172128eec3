"""Training of a derived network on another task, from its folder to its files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ddarts_cli.console import say, watch
from ddarts_cli.folders import TransferFolder
from ddarts_cli.loop import run_loop, run_together
from ddarts_cli.output import write_json, write_records, write_timings, write_yaml
from ddarts_core.genotypes.genotype import Genotype
from ddarts_core.ground.errors import UserError
from ddarts_core.ground.files import write_atomic
from ddarts_core.loops import checkpoint
from ddarts_core.loops.records import EpochRecord
from ddarts_core.studies.provenance import git_commit, versions
from ddarts_core.tensors.devices import check_amp
from ddarts_core.transfer import evaluation
from ddarts_core.transfer.detectors import num_parameters
from ddarts_core.transfer.model import MEAN, STD, body_of, build_detector, read_weights, with_weights
from ddarts_core.transfer.pictures import draw
from ddarts_core.transfer.scan import Splits, read_splits
from ddarts_core.transfer.settings import TransferConfig, settings_hash
from ddarts_core.transfer.training import Transfer

#: Held-out images in the picture.
DRAWN = 4


def plain(config: TransferConfig) -> dict[str, Any]:
    """A configuration as JSON-like data."""
    return config.model_dump(mode="json")


def train(
    genotype: Genotype,
    config: TransferConfig,
    place: TransferFolder,
    weights: Path | None,
    *,
    resume: bool = False,
    force: bool = False,
    tracking_uri: str | None = None,
    num_workers: int = 1,
    address: str | None = None,
) -> dict[str, Any]:
    """Look at the data, train, score on the held-out images, and write all files.

    Everything that can be refused is refused before the folder is made or written. A training that is resumed although
    it is finished is not run again.

    Args:
        genotype: the genotype of the backbone.
        config: the settings of the training.
        place: the folder of the training.
        weights: trained weights of the backbone to begin with: a folder of `ddarts export`, or its file
            `weights.safetensors`. None begins without such weights.
        resume: whether to go on with the training that the folder holds.
        force: whether to replace the training that the folder holds.
        tracking_uri: the MLflow store that the finished training is logged to; None logs it to none.
        num_workers: how many processes run the training together.
        address: the address of the Ray cluster that several workers run on; None takes this machine.

    Returns:
        The content of `transfer.json`.

    Raises:
        UserError: the folder may not be written, the weights do not fit, the data have a fault, or so many workers do
            not fit.
    """
    network = None
    mean: Sequence[float] = MEAN
    std: Sequence[float] = STD
    if weights is not None:
        network, blueprint = read_weights(weights, genotype)
        config = with_weights(config, blueprint, weights)
        mean, std = blueprint.info.mean, blueprint.info.std
    elif config.weights is not None:
        raise UserError("these settings are of a training that began with trained weights: name them with --weights")
    place.check(config, resume=resume, force=force, genotype=genotype)
    if resume and place.result.exists():
        say(f"{place.path} holds this transfer, finished")
        found: dict[str, Any] = json.loads(place.result.read_text(encoding="utf-8"))
        return found
    evaluation.require()
    with torch.device("meta"):
        build_detector(config, genotype, 1, None if network is None else network.to("meta"), mean, std)
    splits = read_splits(config, watch)
    for sentence in splits.sentences:
        say(sentence)
    workers = None
    own = config  # of this process, which with workers only builds the network and draws
    if num_workers > 1:
        from ddarts_tuning.training.distributed import plan_workers

        workers = plan_workers(num_workers, "training", config.training, config.data.num_workers, address)
        check_amp(config.training.amp, torch.device("cuda" if workers.gpu else "cpu"), "training.amp")
        own = config.model_copy(
            update={"training": config.training.model_copy(update={"amp": "none", "device": "cpu"})}
        )
    run = Transfer(own, genotype, splits, network, mean, std)
    backbone = body_of(run.detector)
    size, body = num_parameters(run.detector), num_parameters(backbone)
    taps = ", ".join(f"{tap.name} ({tap.channels})" for tap in backbone.taps)
    say(f"{size:,} parameters, of which the backbone has {body:,}; it is read at {taps}")
    if force:
        place.clear()
    place.make()
    write_yaml(place.config, plain(config))
    write_atomic(place.genotype, genotype.to_json())
    every = config.training.checkpoint_every
    title = place.path.name
    if workers is None:
        records = run_loop(run, "transfer", title, place.checkpoint, resume=resume, every=every)
    else:
        from ddarts_tuning.training.transfer import DistributedTransfer

        together = DistributedTransfer(config, genotype, weights, splits, place.path, workers)
        records = run_together(together, config.training.epochs, title, place.checkpoint, resume=resume)
        run.detector.load_state_dict(checkpoint.load(place.checkpoint)["transfer"]["detector"])
    checkpoint.save(place.weights, {"detector": run.detector.state_dict(), "genotype": genotype.to_json()})
    write_records(place.records, records)
    write_timings(place.timings, records)
    _draw(run, splits, place)
    result = _result(config, genotype, splits, records, {"detector": size, "backbone": body})
    say(scores_sentence(result["scores"], len(splits.held_out)))
    if tracking_uri is not None:
        from ddarts_tuning.tracking.transfer_run import log_transfer

        log_transfer(tracking_uri, place.path.name, plain(config), genotype, records, [place.picture, place.config])
    write_json(place.result, result)
    return result


def _draw(run: Transfer, splits: Splits, place: TransferFolder) -> None:
    """Draw the first `DRAWN` held-out images that have objects, with the answers of the detector, to a file."""
    looks = splits.looks[1]
    shown = [index for index, look in enumerate(looks) if look.objects][:DRAWN] or [0]
    draw([*run.answers(shown)], splits.held_out.classes, place.picture)


def scores_sentence(scores: Mapping[str, float], images: int) -> str:
    """A sentence for people on average precisions, in percent.

    Args:
        scores: the average precisions, as fractions of 1, by name.
        images: the number of held-out images.
    """
    parts = [f"{name.replace('_', ' ').replace('ap', 'AP')} {100 * value:.1f}" for name, value in scores.items()]
    return f"on {images:,} held-out images, percent: {', '.join(parts)}"


def _result(
    config: TransferConfig,
    genotype: Genotype,
    splits: Splits,
    records: list[EpochRecord],
    parameters: Mapping[str, int],
) -> dict[str, Any]:
    last = records[-1].metrics
    return {
        "schema": 1,
        "config_hash": settings_hash(config),
        "git_commit": git_commit(),
        "versions": versions(),
        "task": config.task,
        "recipe": config.recipe,
        "seed": config.seed,
        "genotype_hash": genotype.hash,
        "classes": list(splits.train.classes),
        "images": {"train": len(splits.used), "held_out": len(splits.held_out)},
        "parameters": dict(parameters),
        "scores": {
            name.removeprefix("held_out/"): value for name, value in last.items() if name.startswith("held_out/")
        },
    }
