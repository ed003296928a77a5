"""The tensors of a boundary: what one is like, and how it lies in memory."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of a boundary.

    Attributes:
        name: its name in the graph.
        shape: its shape for one item.
        dtype: the type in which it is stored.
        compute: the type in which the model computed it, and in which the suffix takes it up.
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
        value: what a batch gave.
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
    """Return the axes from the slowest to the fastest; the given order where memory is shared."""
    order = tuple(sorted(range(tensor.ndim), key=tensor.stride, reverse=True))
    plain = tuple(range(tensor.ndim))
    return order if not tensor.is_contiguous() and not _strided_otherwise(tensor, order) else plain


__all__ = ["TensorSpec", "laid_out", "memory_order", "specify"]
