"""Training of a derived network over seeds, beside a random genotype with as many operations when asked."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from ddarts_analysis.statistics import Comparison, comparison, mean_interval, verdict

from ddarts_cli.console import follow, say
from ddarts_cli.files import RetrainFolder, make_folder, plain
from ddarts_cli.images import read_train, say_data
from ddarts_cli.loop import run_loop
from ddarts_cli.output import write_json, write_records, write_timings, write_yaml
from ddarts_cli.threads import limit_threads
from ddarts_core.data.images import DataInfo
from ddarts_core.data.sets import Images, data_facts, data_notes, hold_out, load_test
from ddarts_core.datasets.facts import write_facts
from ddarts_core.estimates import room
from ddarts_core.genotypes.dead_cells import dead_sentence
from ddarts_core.genotypes.derive import trained
from ddarts_core.genotypes.genotype import AnyGenotype, Genotype
from ddarts_core.genotypes.random_genotype import random_genotype, space_of
from ddarts_core.ground import plugins
from ddarts_core.ground.errors import UserError
from ddarts_core.ground.files import write_atomic
from ddarts_core.loops import checkpoint
from ddarts_core.loops.confusion import Confusion, Evaluation, write_confusion
from ddarts_core.loops.mistakes import write_mistakes
from ddarts_core.loops.records import EpochRecord
from ddarts_core.networks.building import build_network
from ddarts_core.networks.cost import retrain_cost
from ddarts_core.settings.config import ExperimentConfig
from ddarts_core.settings.hashing import config_hash
from ddarts_core.studies.provenance import git_commit, versions
from ddarts_core.tensors.devices import check_amp, pick_device
from ddarts_core.training.retrain import Retrain, check_batches

if TYPE_CHECKING:
    from ddarts_tuning.training.distributed import Workers


@dataclass(frozen=True)
class Score:
    """Test accuracy (a fraction of 1) of one genotype over seeds, and what stands beside it.

    Attributes:
        accuracies: by seed.
        balanced_accuracies: mean recall of the classes, by seed.
        images: number of the test images, the same for all seeds.
        recalibration_batches: that batch normalisation was recalibrated from after a very short training, else 0.
    """

    accuracies: tuple[float, ...]
    balanced_accuracies: tuple[float, ...] = ()
    images: int | None = None
    recalibration_batches: int = 0

    @property
    def mean(self) -> float:
        """Mean over the seeds."""
        return statistics.fmean(self.accuracies)

    @property
    def interval(self) -> float | None:
        """Half of the 95 % interval of the mean, over seeds and test images; None for a single seed."""
        found = mean_interval(self.accuracies, images=self.images)
        return None if found.count < 2 else found.high - found.mean

    def __str__(self) -> str:
        if self.interval is None:
            return f"{100 * self.mean:.2f} %"
        of = f"{len(self.accuracies)} seeds" + ("" if self.images is None else f", {self.images} test images")
        return f"{100 * self.mean:.2f} ± {100 * self.interval:.2f} % (95 % interval, {of})"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "accuracies": list(self.accuracies),
            "mean": self.mean,
            "interval_95": self.interval,
            "balanced_accuracies": list(self.balanced_accuracies),
            "test_images": self.images,
            "recalibration_batches": self.recalibration_batches,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Score:
        """Of `result.json`; one of an earlier version has only accuracies, and is of running statistics."""
        return cls(
            tuple(data["accuracies"]),
            tuple(data.get("balanced_accuracies", ())),
            data.get("test_images"),
            data.get("recalibration_batches", 0),
        )


def run_seeds(
    genotype: AnyGenotype,
    config: ExperimentConfig,
    out: Path,
    *,
    num_seeds: int = 1,
    random_baseline: bool = False,
    resume: bool = False,
    force: bool = False,
    num_workers: int = 1,
    address: str | None = None,
) -> dict[str, Score]:
    """Train with seeds `config.seed`, `config.seed + 1`, ...; read the test split once each, after the last epoch.

    With several workers each training is run by that many processes together, on the Ray cluster at `address`, or on
    this machine. Everything that can be refused is refused before the folder is made or written. A retrain that is
    resumed keeps the seeds and the random genotype that it has; with nothing left to train its scores are returned.

    Returns:
        The scores by the contender's name: `genotype`, and `random` when asked.

    Raises:
        UserError: the folder may not be written, the data are missing, the genotype does not fit, or so many workers
            do not.
    """
    place = RetrainFolder(out)
    place.check(config, resume=resume, force=force)
    done = None
    if resume:
        _check_genotype(place, genotype)
        done = place.read_result()
    if done is not None:
        num_seeds = max(num_seeds, len(done["seeds"]))
        random_baseline = random_baseline or "random" in done["test"]
    seeds = range(config.seed, config.seed + num_seeds)
    contenders = {"genotype": genotype}
    if random_baseline:
        cells = Genotype.narrowed(genotype, "--random-baseline")
        contenders["random"] = random_genotype(cells, config.seed, space_of(cells, config.search.space))
    if done is not None and done["seeds"] == list(seeds) and done["test"].keys() == contenders.keys():
        say(f"{out} holds this retrain, finished")
        return {name: Score.from_dict(test) for name, test in done["test"].items()}
    info, images = read_train(config.data)
    limit_threads(config.retrain.batch_size, config.retrain.channels, info.image_size)
    check_training(config, info, images, seeds)
    for contender in contenders.values():
        with torch.device("meta"):
            built = build_network(config.retrain, contender, info).genotype
        if dead := built.dead_cells:
            words = "the network of the genotype" if contender is genotype else "the random genotype's network"
            say(f"{words}: {dead_sentence(dead, built.num_cells)}; retrain.on_dead_cell=connect gives them a reader")
    workers = None
    if num_workers > 1:
        from ddarts_tuning.training.distributed import plan_workers

        workers = plan_workers(config, num_workers, address)
        check_amp(config.retrain.amp, torch.device("cuda" if workers.gpu else "cpu"), "retrain.amp")
    else:
        check_device(config)
        for contender in contenders.values():
            room.check_training(config, contender, info, pick_device(config.retrain.device, "retrain.device"))
    if force:
        place.clear()
    make_folder(out)
    plugins.write_records(out)
    write_yaml(place.config, plain(config))
    write_facts(out, data_facts(info, images, data_notes(config.data)))
    say_data(config.data, info, images)
    scores: dict[str, Score] = {}
    matrices: list[Confusion] = []
    for name, contender in contenders.items():
        write_atomic(out / f"{name}.json", contender.to_json())
        found = []
        for seed in seeds:
            folder = out / f"{name}-seed-{seed}"
            if workers is None:
                records, test = _train(contender, config, info, images, seed, folder, resume)
            else:
                records, test = _train_together(contender, config, workers, seed, folder, resume)
            metrics = test.metrics
            say(
                f"{folder.name}: test accuracy {100 * metrics['accuracy']:.2f} %, balanced "
                f"{100 * metrics['balanced_accuracy']:.2f} %, loss {test.loss:.4f}"
            )
            write_records(folder / "records.parquet", records)
            write_timings(folder / "timings.csv", records)
            found.append(metrics)
            matrices.append(Confusion(name, seed, "test", test.matrix))
            if len(matrices) == 1:  # of the genotype's first seed
                write_mistakes(place.mistakes, info.classes, test.mistakes)
        accuracies, balanced = (tuple(one[key] for one in found) for key in ("accuracy", "balanced_accuracy"))
        scores[name] = Score(accuracies, balanced, sum(map(sum, test.matrix)), test.recalibration_batches)
    for name, score in scores.items():
        size = f"{retrain_cost(contenders[name], config, info).parameters:,} parameters"
        words = "the genotype" if name == "genotype" else "a random genotype with as many operations"
        say(f"test accuracy of {words} ({size}): {score}")
    if random_baseline:
        say(_verdict(_compared(seeds, scores)))
    write_confusion(place.confusion, info.classes, matrices)
    write_json(place.result, _result(config, info, contenders, seeds, scores))
    return scores


def check_training(config: ExperimentConfig, info: DataInfo, images: Images, seeds: Iterable[int]) -> None:
    """Refuse training images that do not suffice for a batch, or for the images that choose an epoch.

    Raises:
        UserError: they do not, with one of the seeds.
    """
    for seed in seeds:
        train, _ = _dealt(config, info, images, seed)
        check_batches(config.retrain, len(train))


def check_device(config: ExperimentConfig) -> None:
    """Refuse a device that is not here, or that lacks the precision.

    Raises:
        UserError: it is.
    """
    check_amp(config.retrain.amp, pick_device(config.retrain.device, "retrain.device"), "retrain.amp")


def _check_genotype(place: RetrainFolder, genotype: AnyGenotype) -> None:
    if place.genotype.exists() and (begun := AnyGenotype.load(place.genotype).hash) != genotype.hash:
        raise UserError(
            f"the retrain in {place.path} is of another genotype (hash {begun}, this one is {genotype.hash}): write "
            "elsewhere with --out, or start again with --force"
        )


def _dealt(config: ExperimentConfig, info: DataInfo, images: Images, seed: int) -> tuple[Images, Images | None]:
    """Images that train, and those that choose an epoch if there are any."""
    fraction = config.retrain.validation_fraction
    return hold_out(images, fraction, seed, info.classes) if fraction else (images, None)


def _train(
    genotype: AnyGenotype,
    config: ExperimentConfig,
    info: DataInfo,
    images: Images,
    seed: int,
    folder: Path,
    resume: bool,
) -> tuple[list[EpochRecord], Evaluation]:
    """Train one network, keep its weights, and return its records and what it does with the test images."""
    train, validation = _dealt(config, info, images, seed)
    run = Retrain(config.retrain, genotype, info, train, validation, seed)
    state_file = folder / "checkpoint.pt"
    every = config.retrain.checkpoint_every
    records = run_loop(run, "retrain", folder.name, state_file, resume=resume, every=every)
    if validation is not None:
        run.load_best()
    test = run.evaluate(load_test(config.data), mistakes=True)
    checkpoint.save(folder / "weights.pt", {"weights": run.weights(), "genotype": genotype.to_json()})
    return records, test


def _train_together(
    genotype: AnyGenotype, config: ExperimentConfig, workers: Workers, seed: int, folder: Path, resume: bool
) -> tuple[list[EpochRecord], Evaluation]:
    """As `_train`, by several workers, who read the data and write the checkpoint and the weights."""
    from ddarts_tuning.training.distributed import CHECKPOINT, DistributedRetrain, await_earlier

    await_earlier(folder)
    records: list[EpochRecord] = []
    total = config.retrain.epochs
    if resume and (folder / CHECKPOINT).exists():
        records = [EpochRecord.from_dict(record) for record in checkpoint.load(folder / CHECKPOINT)["records"]]
        say(f"{folder.name}: resuming after epoch {len(records)} of {total}")
    else:
        (folder / CHECKPOINT).unlink(missing_ok=True)
    run = DistributedRetrain(config, genotype, seed, folder, workers)
    try:
        for record in follow(run.records(), total, folder.name, len(records)):
            records = [*records[: record.epoch], record]
    except KeyboardInterrupt:
        say(f"{folder.name}: stopped after {len(records)} of {total} epochs")
        raise
    if run.restarts:
        say(f"{folder.name}: a worker died; started again {run.restarts} times, from the last checkpoint")
    assert run.test is not None, "told last of all"
    return records, run.test


def _compared(seeds: Iterable[int], scores: dict[str, Score]) -> Comparison:
    """The genotype's accuracies against those of the random one with the same seeds, on the same test images."""
    seeds = list(seeds)
    random, searched = (list(zip(seeds, scores[name].accuracies, strict=True)) for name in ("random", "genotype"))
    return comparison(random, searched, scores["random"].images)


def _verdict(found: Comparison) -> str:
    sentence = verdict(found, "the genotype", "the random genotype")
    more = " --seeds 4 gives an interval." if found.method == "none" else ""
    return (
        f"{sentence[0].upper()}{sentence[1:]}.{more} The random genotype is one architecture: its seeds show no spread "
        "of random architectures."
    )


def _result(
    config: ExperimentConfig,
    info: DataInfo,
    contenders: dict[str, AnyGenotype],
    seeds: Sequence[int],
    scores: dict[str, Score],
) -> dict[str, Any]:
    return {
        "schema": 1,
        "config_hash": config_hash(config),
        "git_commit": git_commit(),
        "versions": versions(),
        "data": config.data.name,
        "recipe": config.retrain.recipe,
        "seeds": list(seeds),
        **({"comparison": _compared(seeds, scores).to_dict()} if "random" in scores else {}),
        "test": {
            name: {
                "genotype_hash": contenders[name].hash,
                "edges": contenders[name].num_edges,
                "parameters": retrain_cost(contenders[name], config, info).parameters,
                "dead_cells": list(trained(contenders[name], config.retrain.model_dump()).dead_cells),
                **score.to_dict(),
            }
            for name, score in scores.items()
        },
    }
