"""Tensors without contents: operations yield the shape, type and layout of their results, and compute nothing.

torch's fake mode, which is made for compilers, does the same, but takes far longer for each operation. Here the fake
mode is asked only once for an operation on tensors of some shapes, strides and types. Its answer is kept, and the
results are put together from this answer. The results are torch's own tensors, on the CPU, whose storage has the right
size but no memory behind it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

_CPU = torch.device("cpu")


class DispatchMode(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch
    """A mode that does not import torch's compiler, as torch would do only to say that the mode is not compiled."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False


class _Form(tuple[Any, ...]):
    """A tensor without its contents: shape, strides, type, and the bytes of its storage (0 for an argument)."""

    __slots__ = ()


class _Number(tuple[Any, ...]):
    """A number and its type. A number equals numbers of other types, which torch may treat in another way."""

    __slots__ = ()


class _Argument(int):
    """The number of a given tensor, for a result that is this tensor, changed in place."""


class _View(Exception):
    """A result shares its storage with a tensor that was given."""


class Hollow(DispatchMode):  # type: ignore[no-untyped-call]  # torch
    """While this mode is active, new tensors have no contents, and an operation that looks at contents raises.

    Example:
        >>> with Hollow():
        ...     y = torch.zeros(10**6, 10**6).exp()
        >>> y.shape, y.untyped_storage().nbytes()
        (torch.Size([1000000, 1000000]), 4000000000000)
    """

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """The results of an operation."""
        kwargs = kwargs or {}
        if func.namespace != "profiler":  # its marks are no operations on tensors
            answer = _answer(func, _described(args), _described(tuple(kwargs.items())))
            if answer is not None:
                return _made(answer[0], args, kwargs)
        return func(*args, **kwargs)


def is_hollow(tensor: Tensor) -> bool:
    """Whether a tensor has elements but no contents."""
    return tensor.data_ptr() == tensor.storage_offset() * tensor.element_size()


def tensors_of(value: Any) -> list[Tensor]:
    """The tensors among the arguments or the results of an operation."""
    if isinstance(value, list | tuple):
        return [tensor for part in value for tensor in tensors_of(part)]
    return [value] if isinstance(value, Tensor) else []


def _described(value: Any) -> Any:
    """The arguments of an operation in a form that can be a key: lists become tuples, tensors become their forms."""
    kind = type(value)
    if kind is int or kind is str or value is None:
        return value
    if kind is tuple or kind is list:
        return tuple([_described(part) for part in value])
    if isinstance(value, Tensor):
        return _Form((value.shape, value.stride(), value.dtype, 0))
    if kind is float or kind is bool:
        return _Number((kind, value))
    return None if isinstance(value, torch.Generator) else value


def _undescribed(value: Any) -> Any:
    if isinstance(value, _Form):
        return torch.empty_strided(value[0], value[1], dtype=value[2])
    if isinstance(value, _Number):
        return value[1]
    return [_undescribed(part) for part in value] if isinstance(value, tuple) else value


@lru_cache(maxsize=2**16)
def _answer(func: Any, args: tuple[Any, ...], kwargs: tuple[Any, ...]) -> tuple[Any] | None:
    """The result of an operation, as the forms of new tensors and the numbers of given tensors.

    None if the result is a view, which torch makes itself.
    """
    with FakeTensorMode():
        given_args, given_kwargs = _undescribed(args), dict(_undescribed(kwargs))
        given = tensors_of([given_args, list(given_kwargs.values())])
        before = [(tensor.shape, tensor.stride()) for tensor in given]
        result = func(*given_args, **given_kwargs)
        if before != [(tensor.shape, tensor.stride()) for tensor in given]:
            return None
        try:
            return (_form(result, given),)
        except _View:
            return None


def _form(result: Any, given: list[Tensor]) -> Any:
    if isinstance(result, list | tuple):
        return type(result)(_form(part, given) for part in result)
    if not isinstance(result, Tensor):
        return result
    storage = result.untyped_storage()
    for number, tensor in enumerate(given):
        if tensor is result:
            return _Argument(number)
        if tensor.untyped_storage()._cdata == storage._cdata:
            raise _View
    return _Form((result.shape, result.stride(), result.dtype, storage.nbytes()))


def _made(answer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if isinstance(answer, _Form):
        shape, strides, dtype, size = answer
        storage = torch._C._construct_storage_from_data_pointer(0, _CPU, size)
        return torch.empty(0, dtype=dtype).set_(storage, 0, shape, strides)
    if isinstance(answer, _Argument):
        return tensors_of([args, list(kwargs.values())])[answer]
    if isinstance(answer, list | tuple):
        return type(answer)([_made(part, args, kwargs) for part in answer])
    return answer
