"""A retrain from its folder to its files: an `Experiment` trains, and `analysis.scores` says what was found."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from ddarts_analysis.scores import Score, beside_random, beside_start, deviations, random_verdict, start_verdict

from ddarts_cli.console import say, say_prose
from ddarts_cli.files import plain
from ddarts_cli.folders import RetrainFolder
from ddarts_cli.images import read_train, say_data
from ddarts_cli.loop import run_loop, run_together
from ddarts_cli.output import write_json, write_records, write_timings, write_yaml
from ddarts_cli.threads import limit_threads
from ddarts_core.data.images import DataInfo
from ddarts_core.data.readers import MOST
from ddarts_core.data.sets import data_facts
from ddarts_core.datasets.facts import check_unchanged, other_images, write_facts
from ddarts_core.estimates import room
from ddarts_core.genotypes.genotype import AnyGenotype
from ddarts_core.ground.files import write_atomic
from ddarts_core.loops.confusion import Confusion, Evaluation, write_confusion
from ddarts_core.loops.mistakes import write_mistakes
from ddarts_core.loops.records import EpochRecord
from ddarts_core.settings.config import ExperimentConfig
from ddarts_core.settings.hashing import config_hash
from ddarts_core.studies.provenance import git_commit, versions
from ddarts_core.tensors.devices import check_amp
from ddarts_core.training.experiment import Experiment

if TYPE_CHECKING:
    from ddarts_tuning.training.distributed import Workers


#: What networks are called that are trained side by side, where they are called otherwise than by their names.
WORDS = {
    "genotype": "the genotype",
    "start": "the start architecture",
    "random": "a random genotype with as many operations",
}


def run_seeds(
    genotype: AnyGenotype,
    config: ExperimentConfig,
    out: Path,
    *,
    num_seeds: int = 1,
    num_random: int = 0,
    start: bool = False,
    resume: bool = False,
    force: bool = False,
    num_workers: int = 1,
    address: str | None = None,
    beside: Path | None = None,
) -> dict[str, Score]:
    """Train with the seeds `config.seed`, `config.seed + 1`, ...

    Each training reads the test split once, after its last epoch. Everything that can be refused is refused before the
    folder is made or written. A retrain that is resumed keeps the seeds and the genotypes that it has; if nothing is
    left to train, its scores are returned.

    Args:
        genotype: the genotype to train.
        config: the settings of every training.
        out: the folder of the retrain.
        num_seeds: how many seeds there are.
        num_random: how many random genotypes are trained too.
        start: whether the architecture that the search started from is trained too, if there is one.
        resume: whether to go on with the retrain that the folder holds.
        force: whether to replace the retrain that the folder holds.
        num_workers: how many processes run each training together.
        address: the address of the Ray cluster that several workers run on; None takes this machine.
        beside: the folder that has the facts of the images that the genotype was found on, if it has any.

    Returns:
        The scores by the contender's name: that of `genotype`, and those of the start and of random genotypes if they
        are trained.

    Raises:
        UserError: the folder may not be written, the data are missing, the genotype does not fit, or so many workers do
            not fit.
    """
    place = RetrainFolder(out)
    place.check(config, resume=resume, force=force, genotype=genotype)
    done = place.read_result() if resume else None
    if done is not None:
        num_seeds = max(num_seeds, len(done["seeds"]))
        num_random = max(num_random, sum(name.startswith("random") for name in done["test"]))
        start = start or "start" in done["test"]
    experiment = Experiment.of(genotype, config, num_seeds, num_random, start)
    if done is not None and experiment.is_done(done):
        say(f"{out} holds this retrain, finished")
        return {name: Score.from_dict(test) for name, test in done["test"].items()}
    info, images = read_train(experiment.data)
    content = data_facts(experiment.data, info, images, tested=True)
    if resume:
        check_unchanged(out, content, deals=config.retrain.validation_fraction > 0)
    other = "" if beside is None else other_images(beside, content)
    limit_threads(config.retrain.batch_size, config.retrain.channels, info.image_size)
    experiment.check_images(info, images)
    for sentence in experiment.dead_cells(info):
        say(sentence)
    workers = None
    if num_workers > 1:
        from ddarts_tuning.training.distributed import plan_workers

        readers = MOST if config.data.num_workers == "auto" else config.data.num_workers
        workers = plan_workers(num_workers, "retrain", config.retrain, readers, address)
        check_amp(config.retrain.amp, torch.device("cuda" if workers.gpu else "cpu"), "retrain.amp")
    else:
        device = experiment.check_device()
        for contender in experiment.contenders.values():
            room.check_training(config, contender, info, device)
    if force:
        place.clear()
    place.make()
    write_yaml(place.config, plain(config))
    write_facts(out, content)
    say_data(experiment.data, info, images)
    if other:
        say_prose(other)
    scores: dict[str, Score] = {}
    matrices: list[Confusion] = []
    for name, contender in experiment.contenders.items():
        write_atomic(out / f"{name}.json", contender.to_json())
        found = []
        for seed in experiment.seeds:
            folder = out / f"{name}-seed-{seed}"
            if workers is None:
                run = experiment.training(name, info, images, seed)
                state, every = folder / "checkpoint.pt", config.retrain.checkpoint_every
                records = run_loop(run, "retrain", folder.name, state, resume=resume, every=every)
                test = experiment.finish(run, name, folder / "weights.pt")
            else:
                records, test = _train_together(contender, config, workers, seed, folder, resume)
            _say_test(folder.name, test)
            write_records(folder / "records.parquet", records)
            write_timings(folder / "timings.csv", records)
            found.append(test.metrics)
            matrices.append(Confusion(name, seed, "test", test.matrix))
            if len(matrices) == 1:  # of the genotype's first seed
                write_mistakes(place.mistakes, info.classes, test.mistakes)
        accuracies, balanced = (tuple(one[key] for one in found) for key in ("accuracy", "balanced_accuracy"))
        scores[name] = Score(accuracies, balanced, sum(map(sum, test.matrix)), test.recalibration_batches)
    for name, score in scores.items():
        words = WORDS.get(name, name)
        say(f"test accuracy of {words} ({experiment.parameters(name, info):,} parameters): {score}")
    if (from_start := beside_start(experiment.seeds, scores)) is not None:
        say(start_verdict(from_start))
    if (compared := beside_random(experiment.seeds, scores)) is not None:
        say(random_verdict(compared, scores))
    write_confusion(place.confusion, info.classes, matrices)
    write_json(place.result, _result(experiment, info, scores))
    return scores


def _say_test(name: str, test: Evaluation) -> None:
    metrics = test.metrics
    say(
        f"{name}: test accuracy {100 * metrics['accuracy']:.2f} %, balanced "
        f"{100 * metrics['balanced_accuracy']:.2f} %, loss {test.loss:.4f}"
    )


def _train_together(
    genotype: AnyGenotype, config: ExperimentConfig, workers: Workers, seed: int, folder: Path, resume: bool
) -> tuple[list[EpochRecord], Evaluation]:
    """Train one network by several workers; they read the data, and write the checkpoint and the weights.

    Returns:
        The records of all epochs, and the evaluation on the test images.
    """
    from ddarts_tuning.training.distributed import DistributedRetrain
    from ddarts_tuning.training.worker import CHECKPOINT

    run = DistributedRetrain(config, genotype, seed, folder, workers)
    records = run_together(run, config.retrain.epochs, folder.name, folder / CHECKPOINT, resume=resume)
    assert run.test is not None, "told last of all"
    return records, run.test


def _result(experiment: Experiment, info: DataInfo, scores: Mapping[str, Score]) -> dict[str, Any]:
    config, compared = experiment.config, beside_random(experiment.seeds, scores)
    return {
        "schema": 1,
        "config_hash": config_hash(config),
        "git_commit": git_commit(),
        "versions": versions(),
        "data": config.data.name,
        "recipe": config.retrain.recipe,
        "seeds": list(experiment.seeds),
        **({} if compared is None else {"comparison": compared.to_dict()}),
        **({} if (start := beside_start(experiment.seeds, scores)) is None else {"comparison_start": start.to_dict()}),
        **({} if (apart := deviations(scores)) is None else {"standard_deviations": apart}),
        "test": {name: {**experiment.facts(name, info), **score.to_dict()} for name, score in scores.items()},
    }
