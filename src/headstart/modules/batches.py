"""Batches of one shape: the last one of a pass is filled up, and the surplus dropped."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

T = TypeVar("T")


def filled(batch: T, size: int) -> T:
    """Repeat the first item until a batch has ``size`` items.

    With all batches of one shape no row is computed by other kernels than its neighbours.

    Args:
        batch: a tensor ``(n, ...)``, or any nest of tuples, lists and mappings that holds tensors
            with the items along their first axis.
        size: the number of items wanted; a batch with as many or more is returned unchanged.
    """

    def fill(tensor: Tensor) -> Tensor:
        missing = size - len(tensor)
        if missing <= 0:
            return tensor
        return torch.cat([tensor, tensor[:1].expand(missing, *tensor.shape[1:])])

    found: Any = pytree.tree_map_only(Tensor, fill, batch)
    return found  # type: ignore[no-any-return]


__all__ = ["filled"]
