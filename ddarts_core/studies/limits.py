"""Limits that a network should keep (`tune.limits`). Pure arithmetic on what was counted of it."""

from __future__ import annotations

from collections.abc import Mapping


def excess(cost: Mapping[str, float], limits: Mapping[str, float | None]) -> dict[str, float]:
    """How far a network is beyond each limit, as a share of the limit: 0 at the limit, negative within.

    As a share, so that limits of different units weigh alike where a sampler adds them up.

    Args:
        cost: of the network, by the limits' names.
        limits: None is no limit.

    Example:
        >>> excess({"parameters": 150, "macs": 30}, {"parameters": 100, "macs": None})
        {'parameters': 0.5}
    """
    return {name: cost[name] / limit - 1 for name, limit in limits.items() if limit is not None}


def beyond(cost: Mapping[str, float], limits: Mapping[str, float | None]) -> list[str]:
    """The limits that a network is beyond; one that is reached is kept.

    Example:
        >>> beyond({"parameters": 150, "macs": 30}, {"parameters": 100, "macs": 30})
        ['parameters']
    """
    return [name for name, share in excess(cost, limits).items() if share > 0]


def in_words(limits: Mapping[str, float | None]) -> str:
    """Limits as text.

    Example:
        >>> in_words({"parameters": 500_000, "macs": None})
        'parameters 500,000'
    """
    return ", ".join(f"{name} {limit:,}" for name, limit in limits.items() if limit is not None)
