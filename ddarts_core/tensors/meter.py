"""Counts the storage of tensors as long as it is alive, whether the tensors have contents or not."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

from torch import Tensor

from .hollow import DispatchMode, tensors_of


class Meter(DispatchMode):  # type: ignore[no-untyped-call]  # torch
    """Counts the bytes of all storage that is made while this mode is active, as long as the storage is alive.

    Example:
        >>> with Meter() as meter:
        ...     y = torch.zeros(1000).exp()
        >>> meter.alive, meter.peak
        (4000, 8000)
    """

    def __init__(self) -> None:
        super().__init__()
        self.alive = 0
        self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation and note the storage of what it returns."""
        result = func(*args, **(kwargs or {}))
        self.note(tensors_of(result))
        return result

    def note(self, tensors: Iterable[Tensor]) -> None:
        """Count tensors that were made elsewhere."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key in self._known:
                continue
            size = storage.nbytes()
            self._known.add(key)
            self.alive += size
            self.peak = max(self.peak, self.alive)
            weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.alive -= size
