"""The plan of DrNAS: networks of which each has more channels in its operations, and fewer operations per edge."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from ..ground.validation import Strict
from .common import networks
from .parts import Plan, Stage
from .pcdarts import PartialChannels

if TYPE_CHECKING:
    from ..settings.config import ExperimentConfig


class Widening(Plan):
    """Two networks or more; from one to the next an edge keeps fewer operations, of more channels (DrNAS 3.4)."""

    name = "widening"
    summary = "networks whose edges keep fewer operations on a larger share of the channels (DrNAS)"

    class Options(Strict):
        """Settings of the networks."""

        channel_shares: tuple[int, ...] = Field(
            (6, 4), min_length=1, description="search.options.channel_share of each"
        )
        kept_operations: tuple[int, ...] = Field((4,), description="operations per edge of all networks but the first")

    def stages(self) -> tuple[Stage, ...]:
        """Warm-up and search of each network; search.warmup_epochs and search.epochs are shared out evenly."""
        settings = [{"search": {"options": {"channel_share": share}}} for share in self.options.channel_shares]
        return networks(self.search, settings, self.options.kept_operations, restart=False)

    @classmethod
    def refuse(cls, config: ExperimentConfig) -> str | None:
        """Every network needs an epoch, channels that its share divides, and its operations."""
        search = config.search
        options = cls(search).options
        number = len(options.channel_shares)
        uneven = [share for share in options.channel_shares if share < 1 or search.channels % share]
        if uneven:
            return (
                f"search.channels {search.channels} must be a multiple of all channel_shares: it is none of {uneven[0]}"
            )
        if search.edge != PartialChannels.name:
            return f"search.stages {cls.name} widens the share of the channels: use search.edge {PartialChannels.name}"
        if len(options.kept_operations) != number - 1 or search.epochs < number:
            return (
                f"channel_shares names {number} networks: give {number - 1} kept_operations and {number} epochs or more"
            )
        return None
