"""`ddarts status`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from ddarts_cli import completing
from ddarts_cli.options import json_option, print_json, storage_folder, storage_option

if TYPE_CHECKING:
    from ddarts_tuning.store.study import Study


@click.command()
@click.argument("study", shell_complete=completing.study)
@storage_option
@json_option
@click.option("--watch", is_flag=True, help="Show it again every few seconds, until the sweep is over.")
@click.option("--every", type=click.FloatRange(0.2, 3600), default=5.0, show_default=True, help="Seconds of --watch.")
def command(study: str, storage: str, overrides: tuple[str, ...], as_json: bool, watch: bool, every: float) -> None:
    """Show the state and the trials of STUDY, best first; also while it runs.

    Of a trial that was stopped early or failed: its settings, the supernet's last accuracy and the reason.

    \b
    Examples:
      ddarts status quickstart_sweep
      ddarts status runs/quickstart_sweep --json
      ddarts status quickstart_sweep --watch
    """
    from ddarts_tuning.store.progress import summary
    from ddarts_tuning.store.study import find_study

    from ddarts_core.errors import UserError

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
    from ddarts_tuning.settings.config import supernet_metric
    from ddarts_tuning.settings.reread import apart_of
    from ddarts_tuning.store.progress import last_accuracies, summary

    from ddarts_cli.console import say
    from ddarts_cli.sweeping import print_ranking
    from ddarts_core.shell import ddarts

    shown = summary(found)
    stopped = {} if found.state == "RUNNING" else {"RUNNING": "stopped"}
    states = {stopped.get(state, state.lower()): count for state, count in shown["trials"].items()}
    counts = ", ".join(f"{count} {state}" for state, count in states.items() if count)
    say(f"{found.location}: {found.state}, {shown['num_samples']} searches planned, {counts or 'none begun'}")
    for trial in shown["running"]:
        rate = trial["epochs_per_minute"]
        epochs = f"epoch {trial['epochs']} of {trial['num_epochs']}"
        if found.state != "RUNNING":
            say(f"trial {trial['trial_id']} stopped at {epochs}")
        else:
            say(f"trial {trial['trial_id']} runs: {epochs}" + (f", {rate:.3g} epochs per minute" if rate else ""))
    if shown["expected_end"]:
        say(f"expected end: {shown['expected_end']}")
    ranked = [{**trial, "state": stopped.get(trial["state"], trial["state"])} for trial in found.ranked()]
    last = last_accuracies(found, supernet_metric(found.data["config"]["tune"]))
    print_ranking(ranked, found.objectives, found.limits, apart_of(found.data), last)
    if found.state == "INTERRUPTED":
        say(f"go on: {ddarts('resume', found.location)}")
