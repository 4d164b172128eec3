"""`ddarts status`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ddarts_cli import completing
from ddarts_cli.options import json_option, print_json, storage_folder, storage_option

if TYPE_CHECKING:
    from ddarts_tuning.store.study import Study

    from ddarts_cli.folders import SearchFolder


@click.command()
@click.argument("study", shell_complete=completing.study)
@storage_option
@json_option
@click.option("--watch", is_flag=True, help="Show it again every few seconds, until the sweep is over.")
@click.option("--every", type=click.FloatRange(0.2, 3600), default=5.0, show_default=True, help="Seconds of --watch.")
def command(study: str, storage: str, overrides: tuple[str, ...], as_json: bool, watch: bool, every: float) -> None:
    """Show the state and the trials of STUDY, best first; also while it runs.

    For a trial that was stopped early or that failed, it shows the settings, the last accuracy of the supernet and the
    reason.

    STUDY may be the folder of a search: how far it is, and what it found.

    \b
    Examples:
      ddarts status quickstart_sweep
      ddarts status runs/quickstart_sweep --json
      ddarts status quickstart_sweep --watch
      ddarts status runs/quickstart
    """
    from ddarts_cli.folders import SearchFolder
    from ddarts_core.ground.errors import UserError

    search = SearchFolder(Path(study).expanduser())
    if (search.finished or search.checkpoint.is_file()) and not (search.path / "study.json").exists():
        if watch:
            raise UserError(f"{study} is a search, which shows its own epochs: --watch is for sweeps, leave it out")
        _show_search(search, as_json)
        return
    from ddarts_tuning.store.progress import summary
    from ddarts_tuning.store.study import find_study

    if as_json and watch:
        raise UserError("--json is one document: leave --watch out")
    folder = storage_folder(storage, overrides)
    found = find_study(study, folder)
    if as_json:
        print_json(summary(found))
        return
    _show(found)
    while watch and found.state == "RUNNING":
        time.sleep(every)
        found = find_study(study, folder)
        click.clear()  # nothing unless this is a terminal
        _show(found)


def _show(found: Study) -> None:
    from ddarts_tuning.settings.reread import apart_of
    from ddarts_tuning.settings.tune import supernet_metric
    from ddarts_tuning.store.progress import last_accuracies, summary

    from ddarts_cli.console import say
    from ddarts_cli.sweeping import print_ranking
    from ddarts_core.studies.shell import ddarts

    shown = summary(found)
    runs = found.state == "RUNNING"
    stopped = {} if runs else {"RUNNING": "stopped"}
    states = {stopped.get(state, state.lower()): count for state, count in shown["trials"].items()}
    counts = ", ".join(f"{count} {state}" for state, count in states.items() if count)
    say(f"{found.location}: {found.state}, {shown['num_samples']} trials planned, {counts or 'none begun'}")
    for trial in shown["running"]:
        rate = trial["epochs_per_minute"]
        epochs = f"epoch {trial['epochs']} of {trial['num_epochs']}"
        if not runs:
            say(f"trial {trial['trial_id']} stopped at {epochs}")
        else:
            say(f"trial {trial['trial_id']} runs: {epochs}" + (f", {rate:.3g} epochs per minute" if rate else ""))
    if shown["expected_end"]:
        say(f"expected end: {shown['expected_end']}")
    last = last_accuracies(found, supernet_metric(found.data["config"]["tune"]))
    print_ranking(found.ranked(), found.objectives, found.limits, apart_of(found.data), last, runs=runs)
    if found.state == "INTERRUPTED":
        say(f"go on: {ddarts('resume', found.location)}")


def _show_search(folder: SearchFolder, as_json: bool) -> None:
    """How far a search is, by its checkpoint, and what it found."""
    import json

    from ddarts_cli.console import describe
    from ddarts_core.search.stages import Course
    from ddarts_core.settings.config import ExperimentConfig, load_experiment
    from ddarts_core.studies.shell import ddarts

    config: ExperimentConfig = load_experiment(folder.config)
    records: list[dict[str, Any]] = []
    if folder.checkpoint.is_file():
        from ddarts_core.loops import checkpoint

        records = checkpoint.load(folder.checkpoint)["records"]
    shown: dict[str, Any] = {
        "name": config.name,
        "state": "FINISHED" if folder.finished else "UNFINISHED",
        "epochs": len(records),
        "num_epochs": Course(config).num_epochs,
        "metrics": records[-1]["metrics"] if records else {},
    }
    if folder.finished:
        shown["genotype_hash"] = json.loads(folder.summary.read_text(encoding="utf-8"))["genotype_hash"]
    if as_json:
        print_json(shown)
        return
    click.echo(
        f"{folder.path}: {shown['state']}, epoch {shown['epochs']} of {shown['num_epochs']}"
        + (f", {describe(shown['metrics'])}" if records else "")
    )
    if folder.finished:
        click.echo(f"genotype {shown['genotype_hash']}: {folder.genotype}")
        click.echo(f"next: {ddarts('report', folder.path)}")
    else:
        click.echo("go on with the command that began it and --resume")
