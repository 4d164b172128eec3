"""Ray's state of a sweep, kept so that a kill or a full disk at any moment leaves a whole one.

Ray writes its state (trials, searcher, callbacks) to a folder of the driver and copies it into the study file by file:
a driver that is killed on the way leaves half a file, or files of two moments. So each whole state is kept beside, in a
folder that gets its name last, and a resumed sweep goes on from the newest of these.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ddarts_core.files import write_atomic

_KEPT = "kept-"
_STATE = "experiment_state-*.json"
ONCE = ("tuner.pkl", "trainable.pkl")
"""What Ray writes once, when it begins."""


class Keeper:
    """Keeps the states of one driver; to be called in the thread in which Ray writes them."""

    def __init__(self) -> None:
        self._last: tuple[str, int] | None = None

    def keep(self, staging: Path, folder: Path) -> bool:
        """Keep the state if it is a new one; whether it was.

        Args:
            staging: where Ray has written it.
            folder: of Ray, in the study.
        """
        states = sorted(staging.glob(_STATE))
        if not states:
            return False
        mark = (states[-1].name, states[-1].stat().st_mtime_ns)
        if mark == self._last:
            return False
        earlier = kept(folder)
        target = folder / f"{_KEPT}{1 + (_number(earlier[-1]) if earlier else 0):08d}"
        unfinished = folder / ".kept"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        for file in [*staging.iterdir(), *(folder / name for name in ONCE)]:
            if file.suffix in (".json", ".pkl") and file.is_file():
                _copy(file, unfinished / file.name)
        os.rename(unfinished, target)
        for old in earlier:
            shutil.rmtree(old)
        self._last = mark
        return True


def kept(folder: Path) -> list[Path]:
    """The whole states in a folder of Ray, oldest first."""
    return sorted(folder.glob(f"{_KEPT}*"))


def bring_back(folder: Path) -> bool:
    """Put the newest whole state where Ray looks for it, and take away what else there is; whether there was one."""
    states = kept(folder)
    if not states:
        return False
    whole = {file.name: file for file in states[-1].iterdir()}
    for name, file in whole.items():
        write_atomic(folder / name, file.read_bytes())
    for file in [*folder.glob("*.json"), *folder.glob("*.pkl")]:
        if file.name not in whole:
            file.unlink()
    return True


def _copy(file: Path, target: Path) -> None:
    shutil.copyfile(file, target)
    with target.open("rb") as written:
        os.fsync(written.fileno())


def _number(folder: Path) -> int:
    return int(folder.name.removeprefix(_KEPT))
