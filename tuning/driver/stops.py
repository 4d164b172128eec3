"""What stops a sweep from outside before its end, told in one sentence that says how to go on."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Mapping
from typing import Any

from ddarts_core.ground.errors import UserError, cause
from ddarts_core.studies.shell import ddarts

from ..cluster.versions import OtherVersion
from ..store.mirror import StoreError
from ..store.study import Study
from .alike import STOPPED

FULL = tuple(os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))

KEPT = "every trial is kept at its last epoch"


def is_full(text: str) -> bool:
    """Whether the text of an error says that no space is left; errors of other processes arrive as text only."""
    return any(reason in text for reason in FULL)


def is_gone(study: Study) -> bool:
    """Whether a study's folder was deleted, or the disk that holds the folder is not there any more."""
    return not (study.path / "study.json").is_file()


def check_there(study: Study) -> None:
    """Stop if nothing can be written into a study's folder any more.

    Raises:
        FileNotFoundError: the study's folder is gone.
    """
    if is_gone(study):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(study.path))


def clear_rest(study: Study) -> None:
    """Delete what Ray and MLflow made again after a study's folder was gone: an empty database, and the folder."""
    database = study.path / "mlflow.db"
    with contextlib.suppress(OSError):
        if database.is_file() and database.stat().st_size == 0:
            database.unlink()
        study.path.rmdir()


def failed_again(study: Study, trials: Iterable[Mapping[str, Any]]) -> list[str]:
    """The command that runs the failed ones of a study's trials again; none if none failed, or in a population."""
    failed = any(trial["state"] == "FAILED" for trial in trials)
    population = study.data["config"]["tune"].get("scheduler") == "pbt"
    return [ddarts("resume", study.location, "--failed")] if failed and not population else []


def explained(study: Study, error: BaseException) -> UserError | None:
    """What to say of an error that stopped the sweep of a study; None if the user cannot mend the error."""
    go_on = ddarts("resume", study.location)
    if is_gone(study):
        return UserError(
            f"the folder {study.path} of study {study.name!r} is gone, deleted or with its disk: the sweep has ended; "
            f"if the folder comes back, go on with `{go_on}`"
        )
    if is_full(str(error)):
        return UserError(f"no space is left for study {study.location}; {KEPT}: make room and go on with `{go_on}`")
    if alike := STOPPED.search(str(error)):
        go_on = next(iter(failed_again(study, study.trials())), go_on)
        return UserError(f"{alike.group()}; {KEPT}: mend the cause and go on with `{go_on}`")
    if other := cause(error, OtherVersion):
        return UserError(f"{other}; {KEPT}: then go on with `{go_on}`")
    if away := cause(error, StoreError):
        return UserError(f"{away}; {KEPT}: go on with `{go_on}` when it is back")
    return None
