"""Boundary rows: the prefix run once over items, for the cache."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from headstart.modules.batches import filled
from headstart.modules.modes import evaluate, untouched
from headstart.prefix.boundary import TensorSpec
from headstart.prefix.precision import Array, from_array, to_array
from headstart.prefix.result import Cut


def compute_rows(
    prefix: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[Tensor, ...]:
    """Run a prefix in evaluation mode, without autograd; its modes are given back."""
    with untouched(prefix):
        evaluate(prefix)
        rows: tuple[Tensor, ...] = prefix(*args, **kwargs)
    return rows


def boundary_rows(cut: Cut, batches: Iterable[Any]) -> Iterator[dict[str, Array]]:
    """Run the prefix over batches and give the boundary rows as the store takes them.

    Every batch is filled up to the size of the first one with copies of its first item, and the
    surplus dropped, so that no row is computed by other kernels than its neighbours.

    Args:
        cut: the cut.
        batches: inputs as the model takes them: a tensor, a tuple of arguments or a mapping of
            named ones, on the device of the model, items along the first axis.

    Yields:
        For every batch the boundary tensors by name, each ``(n, *shape)`` in its stored type
        (bfloat16 as the ``uint16`` of its bits).
    """
    size = 0
    for batch in batches:
        args, kwargs = _call(batch)
        count = len(next(t for t in pytree.tree_leaves((args, kwargs)) if isinstance(t, Tensor)))
        size = size or count
        args, kwargs = filled((args, kwargs), size)
        rows = compute_rows(cut.prefix, args, kwargs)
        yield {
            spec.name: to_array(row[:count], spec)
            for spec, row in zip(cut.boundary, rows, strict=True)
        }


def boundary_tensors(
    boundary: Iterable[TensorSpec], columns: Mapping[str, Array]
) -> tuple[Tensor, ...]:
    """Turn stored columns into what the suffix takes, in order."""
    return tuple(from_array(columns[spec.name], spec) for spec in boundary)


def _call(batch: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(batch, Mapping):
        return (), dict(batch)
    return (batch if isinstance(batch, tuple) else (batch,)), {}


__all__ = ["boundary_rows", "boundary_tensors", "compute_rows"]
