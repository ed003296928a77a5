"""Comparing the results of two runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from headstart.core.devices import doubled

MIXING_TOLERANCE = 1e-3
"""The largest change of a row, relative to the largest value, that other items may cause.

The same kernels run on both probe batches, so that independent rows are equal to the bit almost
always; statistics taken from the batch change them by 0.1 and more.
"""
MODE_TOLERANCE = 1e-5
"""The largest relative change between training and evaluation mode that is rounding: a library may
choose other kernels by mode."""


def tensors_in(value: Any) -> list[Tensor]:
    """Return the tensors that a value holds, in order."""
    return [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor)]


def version(tensor: Tensor) -> int:
    """Return how often a tensor was changed in place; inference tensors do not count it."""
    return 0 if tensor.is_inference() else tensor._version


class Watch:
    """Notices whether the parameters or buffers of a module change."""

    def __init__(self, module: nn.Module | None) -> None:
        parameters = [] if module is None else list(module.parameters())
        buffers = [] if module is None else list(module.buffers())
        self._versions = [(parameter, version(parameter)) for parameter in parameters]
        self._contents = [(buffer, buffer.detach().clone()) for buffer in buffers]

    @property
    def changed(self) -> bool:
        """Whether anything changed since the watch was made."""
        return any(version(tensor) != count for tensor, count in self._versions) or any(
            not torch.equal(buffer, before) for buffer, before in self._contents
        )


def same(left: Any, right: Any) -> bool:
    """Whether two results are equal, but for rounding."""
    return _all_pairs(left, right, lambda a, b: _close(a, b, MODE_TOLERANCE))


def same_first_row(left: Any, right: Any, two: Any, three: Any) -> bool:
    """Whether the first item of two results for two items each is equal, but for rounding.

    Args:
        left, right: the results, for batches that share their first item.
        two, three: results for two and for three items, of which only the shapes are used: they
            tell whether the items are along the first axis. Where they are not, the first
            operation that brings them back there shows whether they were mixed.
    """
    shapes = zip(tensors_in(two), tensors_in(three), strict=True)
    leading = iter([bool(a.ndim and (len(a), len(b)) == (2, 3)) for a, b in shapes])

    def compare(a: Tensor, b: Tensor) -> bool:
        if a.shape != b.shape or not next(leading):
            return a.shape == b.shape
        return _close(a[0], b[0], MIXING_TOLERANCE)

    return _all_pairs(left, right, compare)


def _all_pairs(left: Any, right: Any, compare: Callable[[Tensor, Tensor], bool]) -> bool:
    ours, theirs = tensors_in(left), tensors_in(right)
    return len(ours) == len(theirs) and all(map(compare, ours, theirs))


def _close(left: Tensor, right: Tensor, tolerance: float) -> bool:
    if left.shape != right.shape or left.dtype != right.dtype:
        return False
    if torch.equal(left, right) or not left.numel():
        return True
    if not left.is_floating_point():
        return False
    wide = doubled(left)
    difference = (wide - doubled(right)).abs().nan_to_num(0.0, 0.0)
    scale = float(wide.nan_to_num(0.0, 0.0, 0.0).abs().max()) or 1.0
    return bool(torch.equal(left.isnan(), right.isnan())) and float(difference.max()) <= (
        tolerance * scale
    )


__all__ = [
    "MIXING_TOLERANCE",
    "MODE_TOLERANCE",
    "Watch",
    "same",
    "same_first_row",
    "tensors_in",
    "version",
]
