"""Which checkpoints of a trial are of no use any more.

Ray numbers a trial's checkpoints; after a resume it counts on from what it noted last, so that a new checkpoint may
have a lower number than older ones, or that of one. What counts is when each was written.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
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
