"""Limits that a network should keep (`tune.limits`), as pure arithmetic on what was counted for the network."""

from __future__ import annotations

from collections.abc import Mapping


def excess(cost: Mapping[str, float], limits: Mapping[str, float | None]) -> dict[str, float]:
    """Return how far a network is beyond each limit, as a share of the limit: 0 at the limit, negative within it.

    It is a share so that limits of different units weigh alike when a sampler adds them up.

    Args:
        cost: what the network takes, by the names of the limits.
        limits: the limits by name. None means no limit.

    Example:
        >>> excess({"parameters": 150, "macs": 30}, {"parameters": 100, "macs": None})
        {'parameters': 0.5}
    """
    return {name: cost[name] / limit - 1 for name, limit in limits.items() if limit is not None}


def beyond(cost: Mapping[str, float], limits: Mapping[str, float | None]) -> list[str]:
    """Return the names of the limits that a network exceeds. A network that just reaches a limit keeps it.

    Example:
        >>> beyond({"parameters": 150, "macs": 30}, {"parameters": 100, "macs": 30})
        ['parameters']
    """
    return [name for name, share in excess(cost, limits).items() if share > 0]


def in_words(limits: Mapping[str, float | None]) -> str:
    """Return the limits as text. A limit of None is left out.

    Example:
        >>> in_words({"parameters": 500_000, "macs": None})
        'parameters 500,000'
    """
    return ", ".join(f"{name} {limit:,}" for name, limit in limits.items() if limit is not None)
