"""The tensors of a boundary: what one is like, how it lies in memory, and how it is stored.

Floating tensors are stored as float32, float16 or bfloat16, each with its measured error.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headstart.core.errors import ConfigError
from headstart.store.columns import encode

Dtype = Literal["float32", "float16", "bfloat16"]
Array = NDArray[Any]


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of a boundary.

    Attributes:
        name: its name in the graph.
        shape: its shape for one item.
        dtype: the type in which it is stored.
        compute: the type in which the model computed it, and to which the suffix converts it.
        bytes: what it takes for one item, stored.
        order: its axes (0 is the batch) from the slowest to the fastest in memory. The suffix
            restores it, so that the same kernels run as in the whole model.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    compute: str
    bytes: int
    order: tuple[int, ...]


def specify(name: str, value: Tensor, items: int, dtype: str) -> TensorSpec | None:
    """Describe a value as a boundary tensor; None where it cannot be stored item by item.

    Args:
        name: its name.
        value: for a batch.
        items: the number of items of that batch.
        dtype: the type for floating tensors; others keep theirs.
    """
    if value.layout != torch.strided or value.is_complex() or value.is_quantized:
        return None
    if not value.ndim or len(value) != items or not value.numel():
        return None
    stored = getattr(torch, dtype) if value.is_floating_point() else value.dtype
    shape = tuple(value.shape[1:])
    return TensorSpec(
        name=name,
        shape=shape,
        dtype=str(stored).removeprefix("torch."),
        compute=str(value.dtype).removeprefix("torch."),
        bytes=math.prod(shape) * stored.itemsize,
        order=memory_order(value),
    )


def laid_out(tensor: Tensor, order: tuple[int, ...]) -> Tensor:
    """Return the tensor with its axes in this order in memory; itself if they are already."""
    back = sorted(range(len(order)), key=order.__getitem__)
    return (
        tensor.permute(order).contiguous().permute(back)
        if _strided_otherwise(tensor, order)
        else tensor
    )


def _strided_otherwise(tensor: Tensor, order: tuple[int, ...]) -> bool:
    return not tensor.permute(order).is_contiguous()


def memory_order(tensor: Tensor) -> tuple[int, ...]:
    """Return the axes from the slowest to the fastest; unchanged where memory overlaps."""
    order = tuple(sorted(range(tensor.ndim), key=tensor.stride, reverse=True))
    plain = tuple(range(tensor.ndim))
    return order if not tensor.is_contiguous() and not _strided_otherwise(tensor, order) else plain


@dataclass(frozen=True)
class RoundingError:
    """What storing a tensor in a type costs.

    Attributes:
        dtype: the type.
        max_error: the largest absolute error of a value.
        rms_error: root mean square error over root mean square value.
        fits: whether every finite value stays finite.
    """

    dtype: str
    max_error: float
    rms_error: float
    fits: bool


def checked_dtype(dtype: str) -> torch.dtype:
    """Return the torch type of a name.

    Raises:
        ConfigError: it is not one of the three.
    """
    if dtype not in get_args(Dtype):
        raise ConfigError((f"dtype is one of {', '.join(get_args(Dtype))}, not {dtype!r:.80}",))
    found = getattr(torch, dtype)
    assert isinstance(found, torch.dtype)
    return found


def rounding_error(values: Tensor, dtype: Dtype) -> RoundingError:
    """Measure the error of storing a floating tensor in ``dtype``.

    Args:
        values: any shape, a floating type.
        dtype: ``float32``, ``float16`` or ``bfloat16``.
    """
    kind = checked_dtype(dtype)
    wide = values.detach().cpu().double()
    if dtype == "float16":
        # The store's own measure, which falls back to float32 where a value exceeds 65504.
        stored = encode("boundary", wide.float().flatten(0).numpy(), "float16")
        fits = stored.note is None
        return RoundingError(dtype, stored.spec.max_error, stored.spec.rms_error, fits)
    rounded = wide.to(kind).double()
    finite = wide.isfinite()
    fits = bool(rounded[finite].isfinite().all())
    if not fits or not bool(finite.any()):
        return RoundingError(dtype, math.inf if not fits else 0.0, 0.0, fits)
    error, exact = (rounded - wide)[finite], wide[finite]
    power = float(exact.square().mean())
    rms = math.sqrt(float(error.square().mean()) / power) if power > 0 else 0.0
    return RoundingError(dtype, float(error.abs().max()), rms, fits)


def to_array(rows: Tensor, spec: TensorSpec) -> Array:
    """Return rows ``(n, *shape)`` as the store takes them.

    NumPy has no bfloat16: its bits are kept as ``uint16``.
    """
    stored = rows.detach().to(getattr(torch, spec.dtype)).cpu().contiguous()
    if stored.dtype == torch.bfloat16:
        stored = stored.view(torch.uint16)
    array: Array = stored.numpy()
    return array


def from_array(array: Array, spec: TensorSpec) -> Tensor:
    """Undo :func:`to_array`: return a tensor of ``spec.dtype``, without a copy where possible."""
    if not array.flags.writeable:
        array = array.copy()  # torch has no read-only tensors
    rows = torch.from_numpy(np.ascontiguousarray(array))
    return rows.view(torch.bfloat16) if spec.dtype == "bfloat16" else rows


def boundary_tensors(
    boundary: Iterable[TensorSpec], columns: Mapping[str, Array]
) -> tuple[Tensor, ...]:
    """Turn stored columns into the arguments of the suffix, in order."""
    return tuple(from_array(columns[spec.name], spec) for spec in boundary)


__all__ = [
    "Array",
    "Dtype",
    "RoundingError",
    "TensorSpec",
    "boundary_tensors",
    "checked_dtype",
    "from_array",
    "laid_out",
    "memory_order",
    "rounding_error",
    "specify",
    "to_array",
]
