"""What the shell offers for an argument when Tab is pressed; see `ddarts completion`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from click.shell_completion import CompletionItem


def setting(ctx: Any, param: Any, incomplete: str) -> list[str]:
    """Dotted paths of settings."""
    from ddarts_core.validation import field_paths
    from tuning.config import SweepConfig

    return _beginning(incomplete, field_paths(SweepConfig))


def study(ctx: Any, param: Any, incomplete: str) -> list[CompletionItem]:
    """Names of the studies in the storage folder, and folders."""
    folder = Path(ctx.params.get("storage") or "runs")
    names = sorted(file.parent.name for file in folder.glob("*/study.json"))
    return [*map(CompletionItem, _beginning(incomplete, names)), CompletionItem(incomplete, type="dir")]


def figure(ctx: Any, param: Any, incomplete: str) -> list[str]:
    """Names of the figures."""
    from analysis.gallery import FIGURES

    return _beginning(incomplete, [*FIGURES])


def genotype(ctx: Any, param: Any, incomplete: str) -> list[CompletionItem]:
    """Known genotypes, and files."""
    from ddarts_core.zoo import ZOO

    known = _beginning(incomplete, [f"zoo:{name}" for name in ZOO])
    return [*map(CompletionItem, known), CompletionItem(incomplete, type="file")]


def _beginning(incomplete: str, names: list[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
