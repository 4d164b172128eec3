"""What `sweep`, `resume` and `status` show: progress, and the ranked table of a study."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ddarts_tuning.driver.events import SweepEvent

from ddarts_cli.board import Board, indented
from ddarts_cli.console import drop_output, say
from ddarts_core.studies.study_files import TRANSFER_OBJECTIVE

if TYPE_CHECKING:
    from ddarts_tuning.settings.config import SweepConfig
    from ddarts_tuning.store.study import Study
    from rich.live import Live


@contextmanager
def watch(board: Board, go_on: str) -> Iterator[Callable[[SweepEvent], None]]:
    """A listener for a sweep: a live table on a terminal, a line per start and end of a trial elsewhere.

    Args:
        board: the board of the sweep, which shows the sweep as it is now.
        go_on: the command that goes on with the sweep, for a user who presses Ctrl-C twice.
    """
    with _ended_by_the_second_stop(board, go_on):
        if not sys.stdout.isatty():

            def tell(event: SweepEvent) -> None:
                board.take(event)
                _print_event(event)

            yield unless_unread(tell)
            return
        from rich.live import Live

        with _shown(Live(board, refresh_per_second=2), board) as live:

            def listen(event: SweepEvent) -> None:
                board.take(event)
                if event.kind == "finished":
                    live.console.print(_ending(event), highlight=False)
                elif event.kind == "stopping":
                    live.console.print(STOPPING)

            yield unless_unread(listen)


STOPPING = "stopping: every trial is kept at its last epoch, which takes some seconds; Ctrl-C again ends at once"


@contextmanager
def _ended_by_the_second_stop(board: Board, go_on: str) -> Iterator[None]:
    """While a sweep runs, Ctrl-C after the one that it was told of ends this process, as a kill would: no harm is done.

    Ray's processes end with it. Unwinding instead would wait for them, and print what they say of it.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:  # a shell has it ignored, or a test has its own
        yield
        return

    def stop(number: int, frame: Any) -> None:
        if not board.stopping:
            raise KeyboardInterrupt
        os.write(2, f"\x1b[?25h\nInterrupted: every trial is kept at its last epoch.\ngo on: {go_on}\n".encode())
        os._exit(130)

    signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def board_of(study: Study | None, planned: int) -> Board:
    """The board of a sweep before the first event.

    Args:
        study: the study of the sweep, if it exists already.
        planned: the number of all trials of the sweep, including those that have ended.
    """
    if study is None:
        return Board(planned)
    trials = study.ranked()
    ended = [str(trial["state"]) for trial in trials if trial["state"] != "RUNNING"]
    best = None
    if completed(trials):
        best = (float(trials[0]["objectives"][study.objectives[0][0]]), str(trials[0]["trial_id"]))
    return Board(planned, ended, study.objectives, best)


@contextmanager
def _shown(live: Live, board: Board) -> Iterator[Live]:
    """Show a display while a sweep runs; at the end only its line on the whole sweep stays.

    A terminal that was closed is no error.
    """
    live.start()
    try:
        yield live
    finally:
        board.rows.clear()
        try:
            live.stop()
        except OSError:
            drop_output()


def store_sentence(config: SweepConfig, study: Study | None) -> str:
    """A sentence on the store that MLflow's runs are written to, and why it is that one; it holds no secrets.

    Args:
        config: the configuration of the sweep.
        study: the study, if it exists already.
    """
    from ddarts_tuning.settings.config import URI_VARIABLE
    from ddarts_tuning.tracking.study_run import from_environment

    from ddarts_core.ground.redact import without_secrets

    uri = config.tracking.uri
    if study is not None:
        return f"MLflow: {study.data['tracking_uri']}, where the study was begun"
    if uri is None:
        return f"MLflow: a database in the study's folder, as neither tracking.uri nor {URI_VARIABLE} is given"
    return f"MLflow: {without_secrets(uri)}, which {URI_VARIABLE if from_environment(uri) else 'tracking.uri'} names"


def unless_unread(listen: Callable[[SweepEvent], None]) -> Callable[[SweepEvent], None]:
    """Make a listener go on when nobody reads its output any more, as after `| head -1`: it then prints nowhere."""

    def careful(event: SweepEvent) -> None:
        try:
            listen(event)
        except OSError:
            drop_output()

    return careful


def _print_event(event: SweepEvent) -> None:
    if event.kind == "started":
        say(f"trial {event.trial_id} started: {settings(event.params)}")
    elif event.kind == "restarted":
        say(f"trial {event.trial_id} restarted after epoch {event.epochs}: {brief(event.reason)}")
    elif event.kind == "finished":
        say(_ending(event))
    elif event.kind == "stopping":
        say(STOPPING)


def _ending(event: SweepEvent) -> str:
    values = ", ".join(f"{name} {number(name, value)}" for name, value in event.objectives.items())
    return f"trial {event.trial_id} {event.state.lower()} after {event.epochs} epochs: {values or brief(event.reason)}"


def brief(reason: str) -> str:
    """A reason, cut off if it is too long for a line; trial.json has the whole of it.

    Example:
        >>> brief("no such file")
        'no such file'
    """
    return reason if len(reason) <= REASON else f"{reason[: REASON - 3]}..."


#: Characters of a reason in a line or a table.
REASON = 200


def settings(params: Mapping[str, Any]) -> str:
    """Sampled settings on one line, floats with four significant digits."""
    return ", ".join(f"{path}={_short(value)}" for path, value in params.items())


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def number(metric: str, value: float) -> str:
    """The value of a metric in words: an accuracy or a box AP as a percentage, a whole number with separators.

    Anything else has four significant digits.
    """
    if "accuracy" in metric or metric == TRANSFER_OBJECTIVE:
        return f"{100 * value:.2f} %"
    return f"{int(value):,}" if float(value).is_integer() else f"{value:.4g}"


def _words(trial: Mapping[str, Any], accuracy: float | None, apart: Sequence[str]) -> str:
    """What a row says beside numbers: its settings, its last accuracy and the reason if it ended early."""
    parts = [settings(trial["params"])]
    if trial["state"] != "COMPLETED":
        parts += [] if accuracy is None else [f"held out {number('accuracy', accuracy)} at last"]
        parts += [brief(str(trial["reason"]))] if trial["reason"] else []
    return "; ".join(part for part in [*parts, *([f"apart by {', '.join(apart)}"] if apart else [])] if part)


def _with_below(lines: Sequence[str], below: Sequence[str], columns: int) -> Iterator[str]:
    """The lines of a table, and after each row the text that belongs below it.

    Args:
        lines: the lines of the table.
        below: the text of each row, which is broken between words.
        columns: the largest number of characters in a line of these texts.
    """
    waiting = iter(below)
    for line in lines:
        yield line
        if "│" in line:  # the heading has other bars, and lines between sections have none
            yield from indented(next(waiting), columns)


#: Figures that are attached to a study's run in MLflow, when its records and its best trial's files allow them.
ATTACHED = ("history", "accuracy", "methods", "saturation", "pareto", "confusion")


def attach_report(study: Study) -> Path:
    """Write report.html into the study's folder and attach it and some figures to the study's run in MLflow.

    The study's folder is read once for all of them.
    """
    from ddarts_analysis.collect import frames_of
    from ddarts_analysis.figures import save
    from ddarts_analysis.gallery import Subject, figure_of
    from ddarts_analysis.report import write_report
    from ddarts_analysis.study import read_study
    from ddarts_tuning.searchers.importance import importances
    from ddarts_tuning.tracking.study_run import attach

    from ddarts_core.ground.errors import UserError

    read = read_study(study.path, alphas=False)
    page = write_report([read], study.path / "report.html", importances)
    subject = Subject(frames_of([read], ("trials", "epochs")), folder=read.folder, objectives=read.info["objectives"])
    figures = []
    for name in ATTACHED:
        try:
            figure = figure_of(name, subject)
        except UserError:  # this study has nothing for it to show
            continue
        figures.append(save(figure, study.path / "figures" / f"{name}.png"))
    study.push("report.html", "figures")
    if attach(study, [page]):
        attach(study, figures, "figures")
    return page


def front_of(trials: Sequence[Mapping[str, Any]], objectives: Sequence[tuple[str, str]]) -> set[str]:
    """Identifiers of the trials on the Pareto front.

    Args:
        trials: the trials; only the `contenders` among the completed ones count.
        objectives: the metric of each objective, and its mode, `max` or `min`.
    """
    from ddarts_analysis.ranking import contenders, pareto_front

    done = contenders(completed(trials))
    points = [[trial["objectives"][metric] for metric, _ in objectives] for trial in done]
    return {str(done[i]["trial_id"]) for i in pareto_front(points, [mode == "max" for _, mode in objectives])}


def completed(trials: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The trials that ran to their end."""
    return [trial for trial in trials if trial["state"] == "COMPLETED"]


def print_ranking(
    trials: Sequence[Mapping[str, Any]],
    objectives: Sequence[tuple[str, str]],
    limits: Mapping[str, float | None] = MappingProxyType({}),
    apart: Mapping[str, Sequence[str]] = MappingProxyType({}),
    last: Mapping[str, float] = MappingProxyType({}),
    runs: bool = True,
) -> None:
    """Print the ranked table: place, trial, state, objectives, parameters, and the settings that were sampled.

    With several objectives the Pareto front comes first, and only its trials have a place. The row of a trial that is
    beyond a limit says which limit; such a trial has no place while others keep all limits. Numbers of epochs are
    shown if they differ. On a terminal of fewer than 120 columns the settings of a trial stand below its row.

    Args:
        trials: the trials, best first.
        objectives: the metric of each objective, and its mode, `max` or `min`.
        limits: the limits of the sweep by name (`tune.limits`).
        apart: by identifier of a trial that could not be of today's space and settings, the settings by which it could
            not; the table shows them.
        last: by identifier of a trial, the supernet's accuracy (a fraction of 1) on held-out images after its last
            epoch. The table shows it for trials that did not complete.
        runs: whether the sweep runs. If it does not, a trial that has not ended is called stopped.
    """
    from ddarts_analysis.ranking import UNEQUAL, contenders, epochs_of
    from rich.console import Console
    from rich.table import Table

    table = Table(title=None, show_edge=False)
    for heading in ("#", "trial", "state"):
        table.add_column(heading, no_wrap=True)
    metrics = [metric for metric, _ in objectives]
    ranked = [str(trial["trial_id"]) for trial in contenders(completed(trials))]
    beyond = sum(bool(trial.get("beyond")) for trial in completed(trials))
    if len(objectives) > 1:
        front = front_of(trials, objectives)
        ranked = [trial_id for trial_id in ranked if trial_id in front]
        trials = sorted(trials, key=lambda trial: trial["trial_id"] not in front)
        table.title = f"Pareto front: no trial beats one of these {len(front)} in {' and '.join(metrics)}"
    timed = [name for name in ("latency_ms",) if any(name in (t["cost"] or {}) for t in trials) and name not in metrics]
    for heading in dict.fromkeys((*metrics, "parameters", *timed)):
        table.add_column(heading, justify="right", no_wrap=True)
    trained = metrics[0].startswith(("derived/", "transfer/")) if metrics else False
    unequal = len({epochs_of(trial.get("config", {}), trained) for trial in completed(trials)}) > 1
    if unequal:
        table.add_column("epochs", justify="right", no_wrap=True)
    if beyond:
        table.add_column("beyond", no_wrap=True)
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else 160
    below: list[str] | None = [] if columns < 120 else None
    if below is None:
        table.add_column("settings", overflow="fold")
    for trial in trials:
        found = trial["objectives"] or {}
        place = ranked.index(trial["trial_id"]) + 1 if trial["trial_id"] in ranked else None
        words = _words(trial, last.get(str(trial["trial_id"])), apart.get(str(trial["trial_id"]), ()))
        cost = trial["cost"] or {}
        table.add_row(
            "" if place is None else str(place),
            str(trial["trial_id"]),
            "stopped" if trial["state"] == "RUNNING" and not runs else str(trial["state"]).lower(),
            *(number(metric, found[metric]) if metric in found else "" for metric in metrics),
            *([] if "parameters" in metrics else [f"{cost['parameters']:,}" if "parameters" in cost else ""]),
            *(number(name, cost[name]) if name in cost else "" for name in timed),
            *([epochs_of(trial.get("config", {}), trained, trial.get("searched_epochs"))] if unequal else []),
            *([", ".join(trial.get("beyond") or ())] if beyond else []),
            *([words] if below is None else []),
            end_section=len(objectives) > 1 and place == len(ranked),
        )
        if below is not None:
            below.append(words)
    # A pipe or a file has no width of its own: 160 columns keep a trial on one or two lines. Rows without settings take
    # what they need: a very narrow terminal wraps them, which reads better than columns that are left out.
    console = Console(width=columns if below is None else 1000, highlight=False)
    with console.capture() as shown:
        console.print(table)
    lines = shown.get().rstrip("\n").splitlines()
    say("\n".join(lines if below is None else _with_below(lines, below, columns)))
    if unequal:
        say(UNEQUAL)
    if any("tune.budget_amount" in paths for paths in apart.values()):
        say("Trials were given different tune.budget_amount: their accuracies are not of equal budgets.")
    if apart:
        say(
            f"{len(apart)} of {len(trials)} trials could not be of today's space and settings, by what the table "
            "names: the searcher does not learn from them."
        )
    if beyond:
        from ddarts_analysis.report_text import beyond_sentence

        say(beyond_sentence(beyond, len(completed(trials)), limits))
