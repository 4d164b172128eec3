"""`ddarts status`."""

from __future__ import annotations

import click

from ddarts_cli import completing
from ddarts_cli.options import json_option, print_json, storage_folder, storage_option


@click.command()
@click.argument("study", shell_complete=completing.study)
@storage_option
@json_option
def command(study: str, storage: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Show the state and the trials of STUDY, best first; also while it runs.

    \b
    Examples:
      ddarts status quickstart_sweep
      ddarts status runs/quickstart_sweep --json
    """
    from ddarts_tuning.store.progress import summary
    from ddarts_tuning.store.study import find_study

    found = find_study(study, storage_folder(storage, overrides))
    shown = summary(found)
    if as_json:
        print_json(shown)
        return
    from ddarts_tuning.settings.reread import apart_of

    from ddarts_cli.sweeping import print_ranking
    from ddarts_core.shell import ddarts

    stopped = {} if found.state == "RUNNING" else {"RUNNING": "stopped"}
    states = {stopped.get(state, state.lower()): count for state, count in shown["trials"].items()}
    counts = ", ".join(f"{count} {state}" for state, count in states.items() if count)
    click.echo(f"{found.location}: {found.state}, {shown['num_samples']} searches planned, {counts or 'none begun'}")
    for trial in shown["running"]:
        rate = trial["epochs_per_minute"]
        epochs = f"epoch {trial['epochs']} of {trial['num_epochs']}"
        if found.state != "RUNNING":
            click.echo(f"trial {trial['trial_id']} stopped at {epochs}")
        else:
            click.echo(
                f"trial {trial['trial_id']} runs: {epochs}" + (f", {rate:.3g} epochs per minute" if rate else "")
            )
    if shown["expected_end"]:
        click.echo(f"expected end: {shown['expected_end']}")
    ranked = [{**trial, "state": stopped.get(trial["state"], trial["state"])} for trial in found.ranked()]
    print_ranking(ranked, found.objectives, found.limits, apart_of(found.data))
    if found.state == "INTERRUPTED":
        click.echo(f"go on: {ddarts('resume', found.location)}")
