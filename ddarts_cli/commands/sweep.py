"""`ddarts sweep`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ddarts_cli.options import set_option

if TYPE_CHECKING:
    from ddarts_tuning.driver.sweep import StudyResult
    from ddarts_tuning.settings.config import SweepConfig


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@set_option
@click.option("--out", metavar="DIR|URI", help="Folder to write to (default: storage/name of the file).")
@click.option("--new", is_flag=True, help="If the study's name is taken, take the next free one: name-2, name-3, ...")
@click.option(
    "--num-samples",
    type=click.IntRange(1, 1_000_000),
    help="How many searches to run; if the study exists, so many more than it has.",
)
@click.option(
    "--address",
    metavar="auto|HOST:PORT|ray://HOST:PORT",
    help="Ray cluster to run on (default: this machine alone). Its machines must share the storage, a folder or a URI.",
)
def command(
    file: Path, overrides: tuple[str, ...], out: str | None, new: bool, num_samples: int | None, address: str | None
) -> None:
    """Run the searches of FILE: Optuna proposes, Ray Tune runs, MLflow records.

    If the study exists and was stopped, it goes on. If it is finished, it gets as many searches more. Its trials are
    kept, and Optuna learns from them.

    \b
    Examples:
      ddarts sweep experiments/quickstart_sweep.yaml
      ddarts sweep experiments/quickstart_sweep.yaml --num-samples 4
      ddarts sweep experiments/quickstart_sweep.yaml --new --address auto
      ddarts sweep FILE --set storage=s3://bucket/studies --set tracking.uri=http://10.0.0.1:5000 --address auto
      ddarts sweep experiments/quickstart_sweep.yaml --set tune.num_samples=20 --set name=longer
    """
    from ddarts_tuning.settings.config import load_sweep

    run(partial(load_sweep, file), overrides, out=out, new=new, num_samples=num_samples, address=address)


def run(
    load: Callable[[tuple[str, ...]], SweepConfig],
    overrides: tuple[str, ...],
    *,
    out: str | None = None,
    new: bool = False,
    num_samples: int | None = None,
    address: str | None = None,
) -> None:
    """Begin the sweep that `load` gives with these overrides, or go on with it; the others are the command's options.

    Raises:
        click.exceptions.Exit: see `conclude`.
    """
    from ddarts_tuning.store.backend import backend_of, below
    from ddarts_tuning.store.study import find_study, num_begun

    from ddarts_cli.console import resumable, say, say_prose
    from ddarts_core.ground.errors import UserError
    from ddarts_core.ground.nested import override

    if out is not None:
        storage, _, name = backend_of(out).location.rpartition("/")
        if not name or storage.endswith(":/"):
            raise UserError(f"--out {out}: a study needs a folder of its own: give for example {out.rstrip('/')}/sweep")
        overrides = (*overrides, override("storage", storage or "/"), override("name", name))
    config = load(overrides)
    if new and config.place.is_taken():
        names = (f"{config.name}-{k}" for k in range(2, 10**6))
        name = next(name for name in names if not below(config.storage, name).is_taken())
        say(f"study {config.name} exists already: this one is {name}")
        overrides = (*overrides, override("name", name))
        config = load(overrides)
    exists = config.place.exists()
    found = None
    if num_samples is not None and not exists:
        config = load((*overrides, f"tune.num_samples={num_samples}"))
    planned = total = num_samples or config.tune.num_samples
    if exists:
        found = find_study(config.study_location)
        trials = found.trials()
        parts = []
        if found.state == "FINISHED":
            from ddarts_tuning.driver.extending import num_more

            planned = num_more(found, config, num_samples)
            parts.append(f"{planned} more")
        else:
            left = found.data["config"]["tune"]["num_samples"] - num_begun(trials)
            left += sum(trial["state"] == "RUNNING" for trial in trials)
            parts += [f"{left} left"] + [f"then {num_samples} more"] * (num_samples is not None)
            planned = left + (num_samples or 0)
        total = planned + sum(trial["state"] != "RUNNING" for trial in trials)
        say(f"study {config.name} exists, {found.state} with {len(trials)} trials begun: {', '.join(parts)}")
    say_prose(
        f"sweep {config.name}: {planned} trials by {config.tune.searcher}, {config.tune.scheduler}, "
        f"on {config.data.name}, over {', '.join(config.space)}; seed {config.seed}; in {config.study_location}"
    )
    from ddarts_tuning.settings.space import departures

    from ddarts_cli.images import read_train, say_data
    from ddarts_core.settings.warm_start import notes

    if not exists:
        for changed in departures(config.build_space()):
            say_prose(changed)
        say_data(config.data, *read_train(config.data))
        for note in notes(config):
            say_prose(f"start: {note}")
    from ddarts_analysis.drawing import draw_genotype
    from ddarts_tuning.cluster.resources import idle_gpus
    from ddarts_tuning.driver.extending import extend_sweep
    from ddarts_tuning.driver.sweep import run_sweep

    from ddarts_cli.sweeping import board_of, store_sentence, watch
    from ddarts_core.studies.shell import ddarts

    say_prose(store_sentence(config, found))
    if address is None and (idle := idle_gpus(config)):
        say_prose(
            f"no trial uses this machine's {idle} GPU{'s' if idle > 1 else ''}: --set tune.resources=auto shares them"
        )
    location = config.study_location
    go_on = ddarts("resume", location)
    with resumable(go_on, lambda: exists or config.place.exists()), watch(board_of(found, total), go_on) as listener:
        if exists:
            result = extend_sweep(config, num_samples, draw=draw_genotype, listener=listener, address=address)
        else:
            result = run_sweep(config, draw=draw_genotype, listener=listener, address=address)
    if config.tune.resources == "auto":
        taken = result.study.data["config"]["tune"]["resources"]
        say(f"each trial: {in_words(taken['cpu'], taken['gpu'])}")
    conclude(result)


def in_words(cpu: float, gpu: float) -> str:
    """What a trial takes, in words.

    Example:
        >>> in_words(0.5, 0.25)
        '0.5 cores, 0.25 of a GPU'
    """
    cores = f"{cpu:g} core{'' if cpu == 1 else 's'}"
    return f"{cores}, {f'{gpu:g} of a' if gpu < 1 else '1'} GPU" if gpu else cores


def conclude(result: StudyResult) -> None:
    """The ranked table of a sweep, the paths and the next commands; exit status 130 when it was interrupted.

    Raises:
        click.exceptions.Exit: the sweep was interrupted (130), or no trial completed (1).
    """
    from ddarts_tuning.driver.stops import failed_again
    from ddarts_tuning.settings.reread import apart_of
    from ddarts_tuning.settings.truth import NUMBER
    from ddarts_tuning.settings.tune import supernet_metric
    from ddarts_tuning.store.progress import last_accuracies

    from ddarts_cli.console import finish, say
    from ddarts_cli.sweeping import print_ranking
    from ddarts_core.studies.shell import ddarts

    study = result.study
    folder = _shorter(study.location)
    last = last_accuracies(study, supernet_metric(study.data["config"]["tune"]))
    print_ranking(result.trials, study.objectives, study.limits, apart_of(study.data), last, runs=False)
    if result.untracked:
        say(f"MLflow lacks {result.untracked} trials: {ddarts('resume', folder)} sends them when it is back")
    if result.interrupted:
        say(result.message)
        raise click.exceptions.Exit(130)
    if result.best is None:
        finish([folder], [ddarts("status", folder), *failed_again(study, result.trials)])
        click.echo("Error: no trial completed; the table gives the reasons", err=True)
        raise click.exceptions.Exit(1)
    wrote = [folder]
    if study.data["config"]["tracking"]["log_artifacts"]:
        from ddarts_cli.sweeping import attach_report

        wrote.append(_shorter(attach_report(study)))
    if all(trial.get("beyond") for trial in result.trials if trial["state"] == "COMPLETED"):
        say("no completed trial is within tune.limits: what is exported is beyond them")
    best = ("--top", 3) if len(study.objectives) == 1 else ("--by", "pareto")
    following = [ddarts("export", folder, *best), ddarts("report", folder), ddarts("ui", folder)]
    following += failed_again(study, result.trials)
    if NUMBER in study.data["config"]["space"]:  # a truth
        following.insert(0, f"{ddarts('regret', folder)} STUDY...")
    finish(wrote, following)


def _shorter(path: Path | str) -> str:
    """A path as seen from here, if it lies below; a URI as it is."""
    return str(path).removeprefix(f"{Path.cwd()}/")
