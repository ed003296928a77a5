"""The directions in which rows differ most: their first principal components, at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.core.nearest import Rows

_WORK = 5e9  # multiplications that finding the plane may take
_LEAST, _MOST = 1024, 20_000
_BLOCK = 8192


@dataclass(frozen=True, eq=False)
class Plane:
    """Principal components of rows: a plane, if there are two.

    Attributes:
        mean: ``(d,) float64``.
        axes: ``(count, d) float64``, orthonormal; zero where the rows have fewer directions.
        shares: of the variance of the rows, by axis.
        looked: rows that it was found from.
    """

    mean: NDArray[np.float64]
    axes: NDArray[np.float64]
    shares: tuple[float, ...]
    looked: int

    def project(self, rows: Rows) -> NDArray[np.float32]:
        """Return where rows ``(n, d)`` lie on the axes, ``(n, count) float32``, read in blocks."""
        axes, mean = self.axes.T.astype(np.float32), self.mean.astype(np.float32)
        shift = mean @ axes
        parts = [
            np.asarray(rows[start : start + _BLOCK], dtype=np.float32) @ axes - shift
            for start in range(0, len(rows), _BLOCK)
        ]
        return np.concatenate(parts) if parts else np.empty((0, len(axes.T)), dtype=np.float32)


def principal_plane(rows: Rows, count: int = 2) -> Plane:
    """Return the plane, or so many directions, in which rows ``(n, d)`` differ most.

    Of many rows a part is looked at, spread evenly over all of them: so many that it takes a
    fraction of a second. The same rows give the same plane; the largest weight of each axis is
    positive.
    """
    n = len(rows)
    if not n:
        return Plane(np.zeros(1), np.zeros((count, 1)), (0.0,) * count, 0)
    d = int(np.asarray(rows[0:1]).shape[1])
    wanted = min(n, max(_LEAST, min(_MOST, int(_WORK / d**2))))
    some = _spread(rows, wanted)
    mean = some.mean(axis=0, dtype=np.float64)
    centred = some - mean.astype(np.float32)
    values, axes = _largest(centred, count)
    total = float(np.einsum("nd,nd->", centred, centred, dtype=np.float64))
    shares = tuple(float(v) / total if total > 0 else 0.0 for v in values)
    return Plane(mean, axes, shares, wanted)


def _spread(rows: Rows, wanted: int) -> NDArray[np.float32]:
    """Return rows at even distances, in runs, so that rows on disk are read in slices."""
    n = len(rows)
    if wanted >= n:
        return np.asarray(rows[0:n], dtype=np.float32)
    picked = np.linspace(0, n - 1, wanted).astype(np.int64)
    return np.concatenate([
        np.asarray(rows[start : start + _BLOCK], dtype=np.float32)[
            picked[(picked >= start) & (picked < start + _BLOCK)] - start
        ]
        for start in range(0, n, _BLOCK)
    ])  # fmt: skip


def _largest(
    centred: NDArray[np.float32], count: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the largest eigenvalues of the scatter ``(count,)`` and their directions."""
    n, d = centred.shape
    wide = d > n
    product: Any = centred @ centred.T if wide else centred.T @ centred
    size = min(n, d)
    values, vectors = _eigen(product.astype(np.float64), min(count, size))
    found = (centred.T.astype(np.float64) @ vectors).T if wide else vectors.T
    axes = np.zeros((count, d))
    kept = np.zeros(count)
    for at, (value, axis) in enumerate(zip(values, found, strict=True)):
        length = float(np.linalg.norm(axis))
        if value <= 1e-12 * max(float(values[0]), 1e-300) or length == 0:
            continue
        axis = axis / length
        axes[at] = axis * (1.0 if axis[np.abs(axis).argmax()] >= 0 else -1.0)
        kept[at] = value
    return kept, axes


def _eigen(
    product: NDArray[np.float64], count: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the largest eigenvalues of a symmetric matrix, the largest first, and vectors."""
    size = len(product)
    if count < size // 8 and product.any():
        from scipy.sparse.linalg import ArpackError, eigsh  # a tenth of the time: few are wanted

        # Not of equal numbers: where inner products of centred rows are wanted, that is the one
        # vector that they turn to zero.
        begin = np.random.default_rng(0).standard_normal(size)
        try:
            values, vectors = eigsh(product, k=count, v0=begin, tol=1e-6)
        except ArpackError:  # it has not converged, or found no direction to go on in
            values, vectors = np.linalg.eigh(product)
    else:
        values, vectors = np.linalg.eigh(product)
    order = np.argsort(-values, kind="stable")[:count]
    return np.maximum(values[order], 0.0), vectors[:, order]


__all__ = ["Plane", "principal_plane"]
