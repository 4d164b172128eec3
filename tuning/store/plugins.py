"""How the plug-ins of a study get from its sweep to the processes of its trials, on whatever machine these run.

The files of the plug-ins go the same way as a tracking URI (see handover.py). So a process runs what the user of the
sweep loaded, and never code from a study's folder, into which other users may be able to write.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from ddarts_core.ground import plugins
from ddarts_core.ground.plugin_files import Source

from . import handover

if TYPE_CHECKING:
    from .study import Study


def check(study: Study) -> None:
    """Check that the plug-ins that a study was made with are loaded.

    Raises:
        UserError: a plug-in is not loaded, or has other contents.
    """
    plugins.require(study.data.get("plugins", ()), f"study {study.name!r}")


def offered(study: Study) -> AbstractContextManager[None]:
    """While a study's trials run, their processes can `receive` the study's plug-ins."""
    names = {record["name"] for record in study.data.get("plugins", ())}
    files = [_plain(plugin.source) for plugin in plugins.loaded() if plugin.source.name in names]
    return handover.offered("plugins", study.location, json.dumps(files) if names else None)


def receive(study: Study) -> None:
    """Load the plug-ins of a study that this process has not loaded yet, as the study's sweep offers them.

    Raises:
        UserError: a plug-in is not offered, or has other contents than the study's.
    """
    known = {plugin.source.name for plugin in plugins.loaded()}
    if any(record["name"] not in known for record in study.data.get("plugins", ())):
        offer = handover.received("plugins", study.location)
        if offer is not None:
            plugins.load_sent(map(_source, json.loads(offer)))
    check(study)


def _plain(source: Source) -> dict[str, Any]:
    files = {name: base64.b64encode(content).decode() for name, content in source.files.items()}
    return {"name": source.name, "files": files, "earlier": source.earlier}


def _source(plain: Mapping[str, Any]) -> Source:
    files = {name: base64.b64decode(text) for name, text in plain["files"].items()}
    return Source(plain["name"], files, plain["earlier"])
