"""A tensor that is not there: what flows through a model's own code in place of a frozen result.

A stand-in knows shape, type and device, and where it comes from. Whatever asks for more gets the
stored value, if there is one; if there is none, the run ends with :class:`NeededError`, which says
whose value is needed. So a model that runs through on stand-ins and stored rows cannot have used
anything else of its inputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

Origin = tuple[str, int, int]
"""Name of the module ("" for the inputs of the model), number of the call, number of the tensor."""

_METADATA = frozenset(
    [
        Tensor.shape.__get__,  # type: ignore[attr-defined]
        Tensor.ndim.__get__,  # type: ignore[attr-defined]
        Tensor.dtype.__get__,  # type: ignore[attr-defined]
        Tensor.layout.__get__,  # type: ignore[attr-defined]
        Tensor.is_nested.__get__,  # type: ignore[attr-defined]
        Tensor.is_sparse.__get__,  # type: ignore[attr-defined]
        Tensor.requires_grad.__get__,  # type: ignore[attr-defined]
        Tensor.size,
        Tensor.dim,
        Tensor.numel,
        Tensor.nelement,
        Tensor.is_floating_point,
        Tensor.is_complex,
        Tensor.__len__,
        torch.is_floating_point,
        torch.is_complex,
        torch.numel,
    ]
)
_DEVICE = Tensor.device.__get__
_IS_CUDA = Tensor.is_cuda.__get__  # type: ignore[attr-defined]


class NeededError(BaseException):
    """The value of a stand-in is needed and not stored. Never leaves this room.

    Not an ``Exception``, so that a model's own ``except Exception`` does not swallow it.
    """

    def __init__(self, origin: Origin) -> None:
        super().__init__(origin)
        self.origin = origin


@dataclass
class Reads:
    """Whether the code of the model has read any value in this run."""

    any: bool = False


class StandIn(Tensor):
    """See the module's docstring.

    Attributes:
        origin: where it comes from.
        value: the stored value; None where none is stored.
        place: the device of the value.
        reads: told when the code of the model reads the value.
    """

    origin: Origin
    value: Tensor | None
    place: torch.device
    reads: Reads

    @classmethod
    def make(
        cls,
        like: Tensor,
        count: int,
        device: torch.device,
        origin: Origin,
        value: Tensor | None,
        reads: Reads,
    ) -> StandIn:
        """Make one for ``count`` items, of which ``like`` ``(m, ...)`` gives shape and type."""
        shape = (count, *like.shape[1:]) if value is None else tuple(value.shape)
        made = torch.empty(shape, dtype=like.dtype, device="meta").as_subclass(cls)
        made.origin, made.value, made.place, made.reads = origin, value, device, reads
        return made

    @classmethod
    def __torch_function__(
        cls,
        func: Any,
        types: Any,
        args: Any = (),
        kwargs: Any = None,
    ) -> Any:
        """Answer what follows from the shape; run everything else on stored values."""
        kwargs = kwargs or {}
        if func in _METADATA:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        if func == _DEVICE:
            return args[0].place
        if func == _IS_CUDA:
            return args[0].place.type == "cuda"
        args, kwargs = pytree.tree_map_only(StandIn, _read, (args, kwargs))
        return func(*args, **kwargs)


def resolved(value: Any) -> Any:
    """Put stored values in the place of the stand-ins in any structure.

    Raises:
        NeededError: one has none.
    """
    return pytree.tree_map_only(StandIn, _value, value)


def _read(stand_in: StandIn) -> Tensor:
    value = _value(stand_in)
    stand_in.reads.any = True
    return value


def _value(stand_in: StandIn) -> Tensor:
    if stand_in.value is None:
        raise NeededError(stand_in.origin)
    return stand_in.value


__all__ = ["NeededError", "Origin", "Reads", "StandIn", "resolved"]
