"""`ddarts search`."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ddarts_cli.options import out_option, read_genotype, set_option

if TYPE_CHECKING:
    from ddarts_cli.folders import SearchFolder
    from ddarts_core.loops.records import EpochRecord
    from ddarts_core.search.discretise import Derivation
    from ddarts_core.settings.config import ExperimentConfig


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@set_option
@out_option("storage/name of the file")
@click.option("--resume", is_flag=True, help="Go on from the last epoch that the folder holds.")
@click.option("--force", is_flag=True, help="Replace a search that the folder holds.")
@click.option(
    "--retrain/--no-retrain",
    default=False,
    help="Train the derived network after the search, beside the start if it had one, and read the test split.",
)
@click.option("--profile", is_flag=True, help="Run only a few steps, say where their time goes, and write a trace.")
def command(
    file: Path,
    overrides: tuple[str, ...],
    out: Path | None,
    resume: bool,
    force: bool,
    retrain: bool,
    profile: bool,
) -> None:
    """Run the search that FILE describes, and write the genotype that it finds.

    The command writes genotype.json, records.parquet, timings.csv, config.yaml, data.json and search.json into a
    folder, and checkpoint.pt after every epoch. The same file and seed give the same genotype and records, byte for
    byte.

    \b
    Examples:
      ddarts search experiments/quickstart.yaml
      ddarts search experiments/quickstart.yaml --set seed=11 --set search.epochs=5 --out runs/short
      ddarts search experiments/quickstart.yaml --retrain --out runs/trained
    """
    from ddarts_cli.console import again, finish, resumable, say, say_prose
    from ddarts_cli.files import load_search, named_folder, plain
    from ddarts_cli.folders import RetrainFolder, SearchFolder
    from ddarts_core.ground.files import check_folder
    from ddarts_core.ground.plugins import needed_by
    from ddarts_core.studies.shell import ddarts

    with needed_by((out or named_folder(file, overrides)) / "config.yaml") if resume else nullcontext():
        config = load_search(file, overrides)
    folder = SearchFolder(out or Path(check_folder(config.storage)) / config.name)
    trained = RetrainFolder(folder.path / "retrain")
    retrain_begun = resume and trained.begun
    if not profile:
        folder.check(config, resume=resume, force=force)
    if retrain and not profile:
        trained.check(config, resume=retrain_begun, force=force)

    from ddarts_cli.images import read_train, say_data
    from ddarts_cli.threads import limit_threads
    from ddarts_core.data.sets import data_facts
    from ddarts_core.data.splits import split
    from ddarts_core.datasets.facts import check_unchanged, write_facts
    from ddarts_core.estimates.room import check_search
    from ddarts_core.methods import network_of
    from ddarts_core.search.search import Search
    from ddarts_core.settings.departures import departures, sentence
    from ddarts_core.settings.found import facts_of
    from ddarts_core.settings.warm_start import notes as start_notes
    from ddarts_core.tensors.devices import pick_device

    info, train = read_train(config.data)
    content = data_facts(config.data, info, train)
    if resume:
        check_unchanged(folder.path, content)
    limit_threads(config.search.batch_size, config.search.channels, info.image_size)
    check_search(config, info, pick_device(config.search.device))
    search, network = Search(config, info, split(train, config.data, config.seed)), network_of(config.search)
    if profile:
        from ddarts_core.estimates.profiling import profile_search, table

        trace = folder.path / "trace.json"
        say(f"profile {config.name}: a few steps on {search.device}, then stop")
        click.echo(table(profile_search(search, trace)))
        finish([trace], [again(without=("--profile",))])
        return
    if retrain:
        from ddarts_cli.training import run_seeds
        from ddarts_core.training.experiment import Experiment

        experiment = Experiment(config, {}, (config.seed,))  # of a genotype that the search is still to find
        experiment.check_images(info, train)
        experiment.check_device()
        if force:
            trained.clear()
    if force:
        folder.clear()
    folder.make()
    say(
        f"search {config.name}: method {config.method} on {config.data.name}, {network.words}, "
        f"{search.num_epochs} epochs on {search.device}, seed {config.seed}"
    )
    if changed := departures(config):
        say_prose(sentence([config.method], changed))
    say_data(config.data, info, train)
    if config.search.start is not None:
        read_genotype(config.search.start)  # says how a published file is read
        for note in start_notes(config):
            say(f"start: {note}")
    from ddarts_cli.output import write_yaml

    write_yaml(folder.config, plain(config))
    write_facts(folder.path, content)
    from ddarts_cli.loop import run_loop
    from ddarts_cli.models import cost_command
    from ddarts_core.search.convergence import convergence_sentence
    from ddarts_core.search.one_shot import probed

    with resumable(again("--resume"), lambda: folder.begun):
        records = run_loop(search, "search", "search", folder.checkpoint, resume=resume)
        if search.epoch < search.num_epochs:
            say(f"search: the distance to the start stands still after {search.epoch} of {search.num_epochs} epochs")
        derivation = search.discretise()
        _write(folder, config, records, derivation, probed(search))
        independent = search.architecture.independent
        say(convergence_sentence(search.cell_gates, derivation, config.discretise, independent, network.choice))
        wrote = [folder.genotype, folder.records, folder.timings, folder.config, folder.summary, folder.checkpoint]
        if retrain:
            run_seeds(derivation.genotype, config, trained.path, start=True, resume=retrain_begun, beside=folder.path)
            wrote.append(trained.path)
    trained_info = facts_of(search.info, config, derivation.genotype)
    following = ddarts("retrain", folder.genotype, "--config", folder.config)
    finish(wrote, [following, cost_command(folder.genotype, config, trained_info)])


def _write(
    folder: SearchFolder,
    config: ExperimentConfig,
    records: list[EpochRecord],
    derivation: Derivation,
    one_shot: dict[str, float] | None,
) -> None:
    from ddarts_cli.output import write_json, write_records, write_timings
    from ddarts_core.ground.files import write_atomic
    from ddarts_core.settings.hashing import config_hash
    from ddarts_core.studies.provenance import git_commit, versions

    write_atomic(folder.genotype, derivation.genotype.to_json())
    write_records(folder.records, records)
    write_timings(folder.timings, records)
    summary: dict[str, Any] = {
        "schema": 1,
        "name": config.name,
        "seed": config.seed,
        "config_hash": config_hash(config),
        "git_commit": git_commit(),
        "versions": versions(),
        "genotype_hash": derivation.genotype.hash,
        "derivation": {
            "fallback": [list(node) for node in derivation.fallback],
            "dropped": [list(node) for node in derivation.dropped],
            "dead_cells": list(derivation.dead_cells),
        },
    }
    write_json(folder.summary, summary if one_shot is None else summary | {"one_shot": one_shot})
