"""The rows most similar to some others: exact, block by block, so that memory is a block's.

Heads, leaks, similar items and the reasons of a mistake all ask this one function.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Metric = Literal["cosine", "euclidean"]
METRICS = ("cosine", "euclidean")
Among = Callable[[int, int], NDArray[np.bool_]]
"""From the start and the stop of a block to ``(m, stop - start) bool``: rows that may be found."""

BLOCK = 16384
"""Rows that are compared at a time, at most."""
_BYTES = 2**23
"""Of single-precision rows that are read at a time."""


class Rows(Protocol):
    """Rows ``(n, d)`` that can be read in slices: an array, or features on disk."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: Any, /) -> Any: ...


def nearest_rows(
    queries: NDArray[np.floating[Any]],
    rows: Rows,
    k: int,
    metric: Metric = "cosine",
    *,
    block: int | None = None,
    prepared: bool = False,
    centre: NDArray[np.floating[Any]] | None = None,
    among: Among | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the k most similar rows to each query, best first.

    The rows are read in blocks and the best k merged, so memory is a block's, never m × n.

    Args:
        queries: ``(m, d)``.
        rows: ``(n, d)``.
        k: how many, at most n.
        metric: similarity is the cosine, or minus the squared Euclidean distance.
        block: rows that are read at a time; None: 8 MB of them.
        prepared: whether the rows are float32 and of unit length already, for ``cosine``.
        centre: ``(d,)``, taken from queries and rows before they are compared; None: nothing.
        among: which rows may be found for which query; None: all.

    Returns:
        Similarities ``(m, k) float64`` and row numbers ``(m, k) int64``; −inf and −1 where fewer
        than k rows may be found.
    """
    import torch

    width = max(1, np.asarray(queries).shape[1])
    block = block or max(1, min(BLOCK, _BYTES // (4 * width)))
    if metric == "euclidean" and len(rows):
        # A shift changes no distance, but single precision loses those of rows far from zero.
        centre, prepared = mean_row(rows[:block]) if centre is None else centre, False

    def kept(part: NDArray[Any]) -> torch.Tensor:
        moved = part if centre is None else part - centre.astype(part.dtype)
        return torch.from_numpy(np.ascontiguousarray(as_compared(moved, metric)))

    q = kept(np.asarray(queries))
    best = where = None
    for start in range(0, len(rows), block):
        part = rows[start : start + block]
        compared = torch.from_numpy(np.ascontiguousarray(part)) if prepared else kept(part)
        similarity = q @ compared.T
        if metric == "euclidean":
            similarity.mul_(2.0).sub_((compared * compared).sum(1))
        if among is not None:
            allowed = torch.from_numpy(among(start, start + len(compared)))
            similarity.masked_fill_(~allowed, -torch.inf)
        values, index = similarity.topk(min(k, len(compared)), dim=1)
        index += start
        if best is not None and where is not None:
            values, index = torch.cat([best, values], 1), torch.cat([where, index], 1)
            values, order = values.topk(min(k, values.shape[1]), dim=1)
            index = index.gather(1, order)
        best, where = values, index
    if best is None or where is None:
        return np.empty((len(q), 0)), np.empty((len(q), 0), dtype=np.int64)
    found = best.double()
    if among is not None:
        where = where.masked_fill(~torch.isfinite(found), -1)
    if metric == "euclidean":
        found = (found - (q.double() ** 2).sum(1, keepdim=True)).clamp_(max=0.0)
    return found.numpy(), where.numpy()


def as_compared(x: NDArray[Any], metric: Metric) -> NDArray[np.float32]:
    """Return rows as neighbours are compared, ``(n, d) float32``: of unit length for cosine."""
    return unit_rows(x) if metric == "cosine" else np.asarray(x, dtype=np.float32)


def unit_rows(x: NDArray[Any]) -> NDArray[np.float32]:
    """Return the rows scaled to unit length, ``(n, d) float32``; zero rows stay zero."""
    length = np.sqrt(np.einsum("nd,nd->n", x, x, dtype=np.float64))
    return np.asarray(x / np.maximum(length, 1e-30)[:, None], dtype=np.float32)


def mean_row(rows: Rows, block: int = 4096) -> NDArray[np.float64]:
    """Return the mean ``(d,) float64`` of rows, read in blocks."""
    total = sum(
        np.asarray(rows[start : start + block]).sum(axis=0, dtype=np.float64)
        for start in range(0, len(rows), block)
    )
    return np.asarray(total) / max(len(rows), 1)


__all__ = [
    "BLOCK",
    "METRICS",
    "Among",
    "Metric",
    "Rows",
    "as_compared",
    "mean_row",
    "nearest_rows",
    "unit_rows",
]
