"""What a configuration changes of its method's preset: a method with other parts is not that method. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..ground.nested import get_path, leaves, merge
from .terms import in_one_form, where_kept
from .warm_start import of_groups

if TYPE_CHECKING:
    from .config import ExperimentConfig

SCALE = frozenset(
    {"search.channels", "search.num_cells", "search.epochs", "search.warmup_epochs", "search.batch_size"}
    | {"search.lr", "search.lr_min", "search.weight_decay", "search.start"}
    | {f"alpha.{name}" for name in ("lr", "lr_min", "schedule", "betas", "weight_decay", "grad_clip")}
    | {"discretise.threshold", "retrain.channels", "retrain.num_cells"}
)
"""Settings that every experiment fits to its images and its time: they are no part of what a method is."""


def departures(config: ExperimentConfig) -> list[str]:
    """Return what a configuration has otherwise than the preset of its method, a text for each setting.

    Settings of `SCALE` are left out, and so is what neither the preset nor the start decides. A file beats a preset, so
    a file that was written for one method may undo what makes another.

    Example:
        >>> from ddarts_core.settings.config import resolve
        >>> departures(resolve({"method": "ddarts-lf", "ablation": {"loss": "centered"}}))
        ['ablation.loss centered (none)']
    """
    from ..methods import METHODS

    settings = config.model_dump(mode="json")
    found = []
    for path, wanted in leaves(merge(of_groups(settings), in_one_form(METHODS[config.method].settings))):
        if path in SCALE:
            continue
        try:
            own = get_path(settings, where_kept(settings, path))
        except KeyError:
            own = "not set"
        if own != wanted:
            found.append(f"{path} {own} ({wanted})")
    return found


def sentence(methods: Sequence[str], found: Sequence[str]) -> str:
    """Return one sentence on the same `departures` of one method or of several, for people."""
    one = len(methods) == 1
    who = f"method {methods[0]} runs" if one else f"methods {', '.join(methods)} run"
    return f"{who} with other settings than {'its' if one else 'their'} own, which are in brackets: {', '.join(found)}"
