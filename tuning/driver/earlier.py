"""Studies that were interrupted when Ray still kept the checkpoints of trials.

The trials of such a study go on from the furthest intact checkpoint below `ray/`, `ray-2/`, ... Ray keeps its own state
there as pickles, which are not read. Once a trial's checkpoint lies in the trial's own folder, the rest is of no use
and is deleted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ddarts_core.ground.errors import UserError
from ddarts_core.ground.files import write_atomic
from ddarts_core.loops import checkpoint
from ddarts_core.studies.study_files import read_json, write_json

from ..settings.tune import SEARCH_EPOCH, supernet_metric
from ..store import checkpoints
from ..store.study import Study, trial_dir, trial_name
from ..trial.trial_record import stored_reports

FILE = "trial.pt"
MEMBER = "member.json"


def adopt(study: Study) -> None:
    """Put the checkpoints of such an earlier study, which this process holds, where its trials find them."""
    left = study.backend.found("", lambda name: re.match(r"ray(-\d+)?/", name) is not None)
    of_use = {trial_name(t["number"]) for t in study.trials() if t["state"] == "RUNNING" or "lineage" in t}
    wanted = [n for n in left if "/checkpoint_" in n and n.split("/")[1].partition("_")[0] in of_use]
    if wanted:
        with study.backend.with_files(wanted) as root:
            _adopt(study, root)
    study.backend.remove(sorted({name.partition("/")[0] for name in left}))


def _adopt(study: Study, root: Path) -> None:
    population = study.data["config"]["tune"]["scheduler"] == "pbt"
    for trial in study.trials():
        number = int(trial["number"])
        folder = trial_dir(study.path, number)
        if trial["state"] == "RUNNING" or population:
            if population and "exchanged" not in trial:
                write_json(folder / "trial.json", {**trial, **_exchanges(study, trial)})
            _take(folder, root, number, None if population else checkpoints.NUM_KEPT)
            study.push(f"trials/{trial_name(number)}")


def _take(folder: Path, root: Path, number: int, most: int | None) -> None:
    """Copy the furthest intact checkpoints of a trial into its folder.

    Args:
        folder: the folder of the trial.
        root: the folder that holds Ray's folders.
        number: the number of the trial.
        most: how many checkpoints to copy. None copies all of the trial's own, since another member of a population may
            need one.
    """
    there: dict[int, Path] = {}
    for file in root.glob(f"ray*/{trial_name(number)}_*/checkpoint_*/{FILE}"):
        note = file.with_name(MEMBER)
        try:
            if note.exists() and read_json(note)["number"] != number:
                continue  # that of another member, which it follows
            there[int(checkpoint.load(file)["epochs"])] = file
        except UserError:
            continue  # damaged
    for epochs in sorted(there)[0 if most is None else -most :]:
        file = checkpoints.file_of(folder, epochs)
        if not file.exists():  # it does after a kill on the way
            write_atomic(file, there[epochs].read_bytes())


def _exchanges(study: Study, trial: Mapping[str, Any]) -> dict[str, Any]:
    """After how many search epochs a member of a population took part in its last exchange, and its lineage.

    No member goes on from an exchange that its file does not note.
    """
    tune = study.data["config"]["tune"]
    every = int(tune["exchange_every"])
    reports = stored_reports(trial_dir(study.path, trial["number"]), supernet_metric(tune))
    searched = int(reports[-1][SEARCH_EPOCH]) if reports else 0
    lineage = list(trial.get("lineage", []))
    passed = max(0, (searched - 1) // every * every)
    first = -(-int(tune["grace_period"]) // every) * every
    noted = int(lineage[-1]["epochs"]) if lineage else 0
    return {"lineage": lineage, "exchanged": max(noted, passed if passed >= first else 0)}
