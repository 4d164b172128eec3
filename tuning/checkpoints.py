"""Which checkpoints of trials are of no use any more.

Ray numbers a trial's checkpoints; after a resume it counts on from what it noted last, so that a new checkpoint may
have a lower number than older ones, or that of one. What counts is when each was written.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def superseded(written: Mapping[str, Any], newest: str, num_kept: int) -> list[str]:
    """The checkpoints of a trial to delete: all but the newest and those written last before it.

    Args:
        written: when each was written, by its name. Of two with the same time the one with the higher name is newer.
        newest: name of the one that was just written, which stays whatever the clocks say.
        num_kept: of all.
    """
    others = sorted((name for name in written if name != newest), key=lambda name: (written[name], name))
    return others[: max(0, len(others) - (num_kept - 1))]


def when_written(folder: Path) -> int:
    """When a checkpoint was written last, in nanoseconds; 0 if another process has deleted it.

    One that is written over another leaves the folder's own time as it was.
    """
    times = [0]
    for path in (folder, *folder.glob("*")):
        with contextlib.suppress(FileNotFoundError):
            times.append(path.stat().st_mtime_ns)
    return max(times)


def passed(written: Mapping[str, Any], named: Iterable[str]) -> list[str]:
    """The checkpoints of a population to delete: in each folder, all before the first that is named but one.

    That one stays in case the named one is damaged. Where none is named, all stay: their member has not come so far.

    Args:
        written: when each was written, by its path.
        named: paths of those that a member may go on from; another member's among them.
    """
    first: dict[str, Any] = {}
    for path in set(named) & written.keys():
        folder = path.rpartition("/")[0]
        first[folder] = min(first.get(folder, written[path]), written[path])
    deleted = []
    for folder, time in first.items():
        before = [path for path in written if path.rpartition("/")[0] == folder and written[path] < time]
        deleted += sorted(before, key=lambda path: (written[path], path))[:-1]
    return deleted
