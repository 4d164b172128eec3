"""What a report says of a study in words, tables and drawings; `report` puts it on a page, with the charts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from html import escape
from types import MappingProxyType
from typing import Any

import yaml

from ddarts_core.datasets.facts import majority, read_facts
from ddarts_core.genotypes.dead_cells import dead_sentence
from ddarts_core.studies.limits import in_words
from ddarts_core.studies.shell import ddarts
from ddarts_core.studies.study_files import TRANSFER_OBJECTIVE

from . import page
from .card import dead_in_training, is_given
from .drawing import genotype_svgs
from .export import best, count, percent
from .parameter_figures import is_numeric
from .ranking import UNEQUAL, Row, contenders, default_order, epochs_of, is_beyond, pareto_front, sought, value
from .statistics import comparison, mean_interval, verdict
from .study import Study, Trial, trial_row, wall_seconds

#: Best genotypes that are drawn, and rows of the tables of trials, per study.
DRAWN, LISTED = 3, 100


def rows_of(study: Study) -> list[Row]:
    """The trials of a study, a row each."""
    return [trial_row(trial) for trial in study.trials]


def order_of(study: Study) -> str:
    """The metrics that a study's trials are ranked by, as `rank` takes them, unless somebody asks for others."""
    return default_order(study.info.get("objectives") or [])


def with_a_place(ranked: Sequence[Row], objectives: Sequence[Any]) -> list[Row]:
    """The trials that get a place in the ranking.

    With one objective these are the `contenders`, with several those contenders that are on the Pareto front.
    """
    ranked = contenders(ranked)
    if len(objectives) < 2:
        return ranked
    names = [str(o["metric"]) for o in objectives]
    known = [row for row in ranked if set(names) <= set(json.loads(row["objectives_json"]))]
    points = [[json.loads(row["objectives_json"])[name] for name in names] for row in known]
    return [known[i] for i in pareto_front(points, [o.get("mode") != "min" for o in objectives])]


def what_was_run(study: Study, rows: Sequence[Row], ranked: Sequence[Row]) -> str:
    """The first lines on a study: its methods and data sets, how its trials ended, and the best of `ranked`."""
    states = [row["state"] for row in rows]
    methods = sorted({str(row["method"]) for row in rows if row["method"]})
    data = sorted({str(row["data_set"]) for row in rows if row["data_set"]})
    seconds = sum(row["seconds"] or 0 for row in rows)
    wall = wall_seconds(trial.info for trial in study.trials)
    objectives, metric = study.info.get("objectives") or [], sought(ranked)
    wanted = " and ".join(f"{'lowest' if o.get('mode') == 'min' else 'highest'} {o['metric']}" for o in objectives)
    methods_of = f"searches with {escape(', '.join(methods) or 'no method yet')}"
    sentence = (
        f"Study <b>{escape(study.name)}</b>, started {escape(_moment(study.info.get('created')))}: "
        f"{len(rows)} {'trainings of given genotypes' if _is_given(study) else methods_of} on "
        f"{escape(', '.join(data) or 'no data yet')}, looking for the {escape(wanted or 'highest objective')}."
        f"{budget(study)}"
    )
    items = [
        (f"{states.count('COMPLETED')} of {len(rows)}", "trials completed"),
        (str(states.count("PRUNED")), "stopped early"),
        (str(states.count("FAILED")), "failed"),
        *([] if wall is None else [(_duration(wall), "wall time in which trials ran")]),
        (_duration(seconds), "time of all trials together"),
    ]
    if ranked and len(objectives) > 1:
        items[:0] = [(str(len(ranked)), f"trial{'s' if len(ranked) > 1 else ''} on the Pareto front")]
    elif ranked:
        items[:0] = [
            (
                percent(value(ranked[0], metric)),
                f"held-out {metric.replace('_', ' ')} of the best, trial {ranked[0]['trial_id']}"
                + (f", chosen among {len(ranked):,} by held-out images" if len(ranked) > 1 else ""),
            )
        ]
        items.append((count(value(ranked[0], "parameters")), "parameters of the best"))
    note = (
        "<p class=soft>Held-out images trained neither weights nor alphas, but the best of many trials is chosen by "
        "them, so its number flatters it: the one to report is that of <code>ddarts retrain</code> on the test split, "
        "by which nothing was chosen.</p>"
    )
    return f"<p>{sentence}</p>{page.tiles(items)}{note if ranked else ''}"


def _is_given(study: Study) -> bool:
    """Whether the genotypes of a study were given, as those of a truth are, and not searched."""
    return any(is_given(trial.info["config"]) for trial in study.trials)


def budget(study: Study) -> str:
    """The budgets that each search and the whole sweep were given beside numbers of epochs, in a sentence each.

    Empty if there were none.
    """
    tune = study.info.get("config", {}).get("tune", {})
    amounts = sorted({float(trial.info.get("budget_seconds") or 0) for trial in study.trials})
    said = ""
    if any(amounts):
        given = " or ".join(f"{amount:g} s of wall time" if amount else "its epochs" for amount in amounts)
        equal = "" if len(amounts) == 1 else ": their accuracies are not of equal budgets"
        said = f" Each search was given {given}{equal}."
    elif tune.get("budget") == "multiply-adds":
        said = f" Each search was given {tune['budget_amount']:.3g} multiply-adds."
    if tune.get("time_budget_s"):
        said += f" The whole sweep was given {tune['time_budget_s']:g} s, anew after a resume."
    return said


def _moment(text: Any) -> str:
    """A time that is given in ISO 8601, to the minute and in UTC; a text that is no time stays as it is."""
    try:
        when = datetime.fromisoformat(str(text).replace("Z", "+00:00"))  # Python 3.10 knows no Z
    except ValueError:
        return str(text or "at an unknown time")
    return f"{when.astimezone(timezone.utc):%Y-%m-%d %H:%M} UTC"


def start(rows: Sequence[Row]) -> str:
    """A table of the start architecture (DARTOpti) and of what was found from it, and whether there is a gain.

    Empty if no completed trial has a start architecture.
    """
    known = [row for row in rows if row["state"] == "COMPLETED" and row["baseline_parameters"] is not None]
    if not known:
        return ""
    lines = []
    for name, prefix, accuracy in (("start", "baseline_", "baseline_accuracy"), ("found", "", "derived_accuracy")):
        shares = mean_interval([row[accuracy] for row in known if row[accuracy] is not None]).of_shares()
        interval = f" ({percent(shares.low)} to {percent(shares.high)})" if shares.count > 1 else ""
        sizes = [
            count(round(mean_interval([row[f"{prefix}{size}"] for row in known if row[f"{prefix}{size}"]]).mean))
            for size in _SIZES
        ]
        lines.append((name, f"{percent(shares.mean)}{interval}" if shares.count else "not trained", *sizes))
    head = ("architecture", "held-out accuracy (mean, 95 % interval)", *(f"{size} (mean)" for size in _SIZES.values()))
    text = "Both are trained from scratch with the same recipe, epochs, images and seed, and scored on the same images."
    pairs = [row for row in known if row["gain"] is not None]
    if pairs:
        before, after = (
            [(int(row["number"]), float(row[name])) for row in pairs]
            for name in ("baseline_accuracy", "derived_accuracy")
        )
        told = verdict(comparison(before, after), "what was found", "its start")
        text += f" {told[0].upper()}{told[1:]}. A pair is a trial and its start; trials of one seed share that start."
    return f"<h3>Start and what was found</h3>{page.table(head, lines, (1, 2, 3))}<p>{escape(text)}</p>"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


#: Sizes of a network by heading, which are whole numbers.
_SIZES = {"parameters": "parameters", "macs": "multiply-adds"}


def beyond_sentence(apart: int, completed: int, limits: Mapping[str, float | None]) -> str:
    """How many of the completed trials are beyond a limit, and what that means for their places.

    Args:
        apart: the number of completed trials that are beyond a limit.
        completed: the number of completed trials.
        limits: the limits of the sweep by name (`tune.limits`).

    Example:
        >>> beyond_sentence(1, 3, {"parameters": 500_000})
        '1 of 3 completed trials is beyond tune.limits (parameters 500,000): it comes last, without a place.'
    """
    one = apart == 1
    what = "it comes last, without a place" if one else "they come last, without a place"
    if apart == completed:
        what = "there is nothing else to rank"
    verb = "is" if one else "are"
    return f"{apart} of {completed} completed trials {verb} beyond tune.limits ({in_words(limits)}): {what}."


def ranking(
    ranked: Sequence[Row],
    placed: int,
    objectives: Sequence[Any],
    limits: Mapping[str, float | None] = MappingProxyType({}),
    drawn: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """The table of completed trials, with what there is to say about it.

    Args:
        ranked: the rows of the completed trials, best first.
        placed: how many of them, from the first, have a place.
        objectives: the objectives of the study.
        limits: the limits of the sweep by name (`tune.limits`).
        drawn: by trial, the identifier of the drawing of its genotype on the page, which the table links to.
    """
    apart = sum(map(is_beyond, ranked))
    names = [str(o["metric"]) for o in objectives] or ["objective"]
    metric = sought(ranked)
    sizes = [name for name in _SIZES if name not in names]
    trained = names[0].startswith(("derived/", "transfer/"))
    configs = [json.loads(row["config_json"]) for row in ranked]
    unequal = len({epochs_of(config, trained) for config in configs}) > 1
    epochs = [epochs_of(config, trained, row["num_epochs"]) for config, row in zip(configs, ranked, strict=True)]
    timed = "latency_ms" not in names and any(row["latency_ms"] is not None for row in ranked)
    proposals = [json.loads(row["params_json"]) for row in ranked]
    paths = sorted({path for proposal in proposals for path in proposal})
    rows = []
    for place, row in enumerate(ranked[:LISTED], start=1):
        values = json.loads(row["objectives_json"])
        params = proposals[place - 1]
        rows.append(
            (
                str(place) if place <= placed else "",
                page.Link(name, drawn[name]) if (name := str(row["trial_id"])) in drawn else name,
                *(_objective(name, values.get(name)) for name in names),
                percent(row[f"held_out_{metric}"]),
                *(count(row[name]) for name in sizes),
                *([epochs[place - 1]] if unequal else []),
                *([_number(row["latency_ms"])] if timed else []),
                *(_number(params.get(path)) for path in paths),
                *([row["beyond"]] if apart else []),
                str(row["genotype_hash"]),
            )
        )
    headings = [_SIZES.get(name, name) for name in names]
    last = ("beyond", "genotype") if apart else ("genotype",)
    measured = [*(["epochs"] if unequal else []), *(["latency_ms"] if timed else [])]
    head = ("", "trial", *headings, "supernet held-out", *(_SIZES[name] for name in sizes), *measured, *paths, *last)
    front = f"Pareto front: no trial beats one of these {placed} in {' and '.join(headings)}; the others have no place."
    note = f"<p>{escape(front)}</p>" if len(names) > 1 else ""
    if unequal:
        note += f"<p>{UNEQUAL}</p>"
    if apart:
        note += f"<p>{escape(beyond_sentence(apart, len(ranked), limits))}</p>"
    more = f"<p class=soft>The first {LISTED} of {len(ranked)} completed trials.</p>" if len(ranked) > LISTED else ""
    words = {
        len(head) - len(last) - len(paths) + index
        for index, path in enumerate(paths)
        if not is_numeric([proposal.get(path) for proposal in proposals])
    }
    numeric = {*range(2, len(head) - len(last))} - words
    return note + page.table(head, rows, numeric) + more


def _objective(name: str, found: Any) -> str:
    if found is None:
        return ""
    if name in _SIZES:
        return count(found)
    return percent(found) if "accuracy" in name or name == TRANSFER_OBJECTIVE else _number(found)


def _number(found: Any) -> str:
    if found is None:
        return ""
    return f"{found:.4g}" if isinstance(found, float) else str(found)


def drawings(
    study: Study, ranked: Sequence[Row], placed: int, budget: int, ids: Iterator[int]
) -> tuple[str, dict[str, str]]:
    """Draw the genotypes of ranked trials.

    The best `DRAWN` genotypes of trials with a place are in sight. The others, down to the last row of the ranking,
    are folded. A drawing that would make all of them larger than `budget` is left out.

    Args:
        study: the study of the trials.
        ranked: the rows of the completed trials, best first.
        placed: how many of them, from the first, have a place.
        budget: how many bytes all drawings together may take.
        ids: gives each drawing a number of its own on the page.

    Returns:
        The drawings as HTML, and by trial the identifier of the drawing of its genotype on the page.
    """
    parts: list[str] = []
    more: list[str] = []
    places: dict[str, str] = {}
    left_out, metric = 0, sought(ranked)
    order = {str(row["trial_id"]): place for place, row in enumerate(ranked[:LISTED])}
    finds = sorted(
        (find for find in best(study) if find[0]["trial_id"] in order), key=lambda f: order[f[0]["trial_id"]]
    )
    for row, trial, also in finds:
        assert trial.genotype is not None  # `Study.completed` has only trials with a genotype
        place = order[trial.trial_id]
        shown = len(parts) + left_out < DRAWN and place < placed
        found = f"; found by trials {', '.join(also)} too" if also else ""
        number = f"#{place + 1}, " if place < placed else ""
        caption = (
            f"{number}trial {row['trial_id']}: {percent(value(row, metric))} held-out {metric.replace('_', ' ')}, "
            f"{count(row['parameters'])} parameters, {trial.genotype.num_edges} operations{found}{_dead(trial)}."
        )
        identifier = f"drawing{next(ids)}"
        part = page.drawing(*genotype_svgs(trial.genotype), caption, identifier)
        if len(part.encode()) > budget:
            left_out += 1
            continue
        budget -= len(part.encode())
        places |= dict.fromkeys((trial.trial_id, *also), identifier)
        if shown:
            parts.append(part)
        else:
            more.append(page.folded(f"{number}trial {row['trial_id']}", part))
    text = f'<div class="drawn">{"".join(parts)}</div>{"".join(more)}'
    if left_out:
        command = f"<code>{escape(ddarts('export', study.folder))}</code> writes them"
        text += (
            f"<p class=soft>{left_out} more drawing{'s' if left_out > 1 else ''} would make this page too large: "
            f"{'column genotype_json of the file has the genotypes' if study.is_packed else command}.</p>"
        )
    return text, places


def _dead(trial: Trial) -> str:
    """A sentence on the dead cells of the network that is trained from a trial's genotype; empty if none is dead."""
    assert trial.genotype is not None
    found = dead_in_training(trial.genotype, trial.info["config"])
    return f". When it is trained, {dead_sentence(*found)}" if found and found[0] else ""


def not_completed(rows: Sequence[Row], metric: str) -> str:
    """A table of the trials that failed or were stopped early: why, and how good they were; empty if none did.

    Args:
        rows: the rows of all trials.
        metric: the accuracy that tells how good they were, as `sought` names it.
    """
    words = {"FAILED": "failed", "PRUNED": "stopped early"}
    found = sorted((row for row in rows if row["state"] in words), key=lambda row: str(row["state"]))
    if not found:
        return ""
    lines = [
        (
            str(row["trial_id"]),
            words[row["state"]],
            page.Cut(str(row["reason"] or "no reason recorded")),
            percent(row[f"held_out_{metric}"]),
            str(row["num_epochs"]),
        )
        for row in found[:LISTED]
    ]
    more = f"<p class=soft>The first {LISTED} of {len(found):,} of these trials.</p>" if len(found) > LISTED else ""
    head = ("trial", "state", "reason", f"last held-out {metric.replace('_', ' ')}", "epochs")
    return f"<h3>Trials that did not complete</h3>{page.table(head, lines, numeric=(3, 4))}{more}"


def _data_facts(study: Study) -> list[tuple[str, str]]:
    """What the study's `data.json` says: the largest class, and what was chosen or left out."""
    content = read_facts(study.folder)
    if content is None:
        return []
    return [("data", "; ".join([majority(content["train_counts"], content["classes"]), *content.get("notes", ())]))]


def reproduce(study: Study, ranked: Sequence[Row]) -> str:
    """The facts, configurations and commands with which a study, or one of its best trials, can be run again."""
    info = study.info
    facts = [
        ("command", str(info.get("command", "unknown"))),
        ("seed", str(info.get("seed", "unknown"))),
        ("configuration hash", str(info.get("config_hash", "unknown"))),
        ("source commit", str(info.get("git_commit") or "unknown")),
        ("versions", ", ".join(f"{name} {v}" for name, v in (info.get("versions") or {}).items()) or "unknown"),
        *_data_facts(study),
    ]
    if uri := info.get("tracking_uri"):  # a single search has none
        facts.append(("MLflow", f"{uri}, run {info.get('parent_run_id', 'unknown')}"))
    parts = ["<h3>How to reproduce</h3>", page.facts(facts)]
    if info.get("config"):
        parts.append(page.details("Configuration of the sweep", yaml.safe_dump(dict(info["config"]), sort_keys=False)))
    if ranked:
        chosen: list[tuple[object, ...]] = [("--top", min(len(ranked), DRAWN))]
        if len(info.get("objectives") or []) > 1:  # an export's order knows no front of them
            chosen = [("--trial", row["trial_id"]) for row in ranked[:DRAWN]]
        exports = "\n".join(ddarts("export", study.folder, *words) for words in chosen)
        parts.append(
            "<p>This page was made of a study in one file. Its folder also has, where derived networks were trained, "
            "their weights, confusion matrices and surest mistakes.</p>"
            if study.is_packed
            else f"<p>Genotypes, configurations and exact commands of the best trials:</p><pre>{escape(exports)}</pre>"
        )
        again, also = "search trial.yaml", ""
        if _is_given(study):
            again = "retrain genotype.json --config trial.yaml"
            source = "column genotype_json" if study.is_packed else "its export"
            also = f" and its genotype of {source} in <code>genotype.json</code>"
        parts.append(
            f"<p>One trial again, with its configuration below in <code>trial.yaml</code>{also}:</p>"
            f"<pre>ddarts {again} --out again</pre>"
        )
        trials = {trial.trial_id: trial for trial in study.trials}
        for place, row in enumerate(ranked[:DRAWN], start=1):
            config = dict(trials[row["trial_id"]].info["config"])
            parts.append(
                page.details(
                    f"trial.yaml of #{place}, trial {row['trial_id']}", yaml.safe_dump(config, sort_keys=False)
                )
            )
    return "".join(parts)
