"""Cells of a derived network, each fused by torch.compile in a training step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..tensors.compiler import compiled
from .network import CellNetwork, Rectified


class CompiledForm:
    """A value for `Network.form`. Cells that are alike are compiled once.

    Args:
        mode: the mode of torch.compile.
    """

    def __init__(self, mode: str) -> None:
        self._compiled = compiled(_dropped, mode)

    def __call__(self, cell: CellNetwork, before_last: Tensor, last: Tensor, known: Rectified) -> Tensor:
        """The output of a cell; nothing is left for later cells.

        Drop-path draws before, for a compiled function has no generator: as many factors in the same order.
        """
        wide = torch.promote_types(last.dtype, torch.float32)
        drawn = [cell.drop_path.factors(last, wide) for _ in range(cell.num_paths)]
        output: Tensor = self._compiled(cell, before_last, last, [one for one in drawn if one is not None])
        return output


def _dropped(cell: CellNetwork, before_last: Tensor, last: Tensor, factors: Sequence[Tensor]) -> Tensor:
    left = iter(factors)

    def drop(value: Tensor) -> Tensor:
        return value * next(left).to(value.dtype) if factors else value

    return cell.dropped_by(drop, before_last, last)
