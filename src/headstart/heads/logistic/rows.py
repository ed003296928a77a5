"""The training rows, read block by block: standardised, in the precision of the products.

Nothing of the features' size is ever copied: a block of rows is gathered, centred, scaled and
extended by a column of ones (for the intercept) in one scratch buffer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from headstart.heads.checks import FloatArray

Precision = Literal["float64", "float32", "bfloat16"]
_DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16}
_MOMENT_ROWS = 1024
_BFLOAT16_ROWS = 10_000


@dataclass(frozen=True)
class Rows:
    """Training rows with their targets, in the order in which passes read them.

    Attributes:
        x: features ``(n, d)``, as given; never copied as a whole.
        order: ``(n,) int64``, the reading order. Rows of one fold stand together, so that a
            block belongs wholly to one fold and is skipped by the heads that hold it out.
        labels: ``(n,) int64`` class indices in reading order, or None for soft targets.
        targets: ``(n, k) float64`` soft targets in reading order, or None for labels.
        shift, scale: ``(d,) float64``, the common standardisation ``(x - shift) / scale``.
    """

    x: FloatArray
    order: np.ndarray
    labels: Tensor | None
    targets: Tensor | None
    shift: FloatArray
    scale: FloatArray

    @property
    def n(self) -> int:
        """The number of rows."""
        return len(self.order)

    @property
    def width(self) -> int:
        """The number of features and one, for the intercept."""
        return int(self.x.shape[1]) + 1

    def blocks(
        self, bounds: list[tuple[int, int]], precision: Precision
    ) -> Iterator[tuple[int, int, Tensor]]:
        """Yield ``(start, stop, z)`` with ``z: (stop - start, d + 1)``, standardised.

        The tensor is reused by the next block: take what is needed before going on.
        """
        work = np.float64 if precision == "float64" else np.float32
        rows = max(stop - start for start, stop in bounds)
        buffer = np.empty((rows, self.x.shape[1]), dtype=work)
        out = torch.ones((rows, self.width), dtype=_DTYPES[precision])
        shift, inverse = self.shift.astype(work), (1.0 / self.scale).astype(work)
        for start, stop in bounds:
            block = buffer[: stop - start]
            if self.x.dtype == work:
                np.take(self.x, self.order[start:stop], axis=0, out=block, mode="clip")
            else:
                block[...] = self.x[self.order[start:stop]]
            block -= shift
            block *= inverse
            z = out[: stop - start]
            z[:, :-1].copy_(torch.from_numpy(block))
            yield start, stop, z


def moments(x: FloatArray, rows: np.ndarray) -> tuple[FloatArray, FloatArray]:
    """Return mean and standard deviation ``(d,) float64`` of ``x[rows]``, in two exact passes.

    The deviation of a column that is constant up to rounding is given as 1, as scikit-learn's
    ``StandardScaler`` does, so that it is centred and left alone.
    """
    mean = np.zeros(x.shape[1])
    for start in range(0, len(rows), _MOMENT_ROWS):
        mean += x[rows[start : start + _MOMENT_ROWS]].sum(axis=0, dtype=np.float64)
    mean /= len(rows)
    variance = np.zeros(x.shape[1])
    for start in range(0, len(rows), _MOMENT_ROWS):
        block = x[rows[start : start + _MOMENT_ROWS]].astype(np.float64)
        block -= mean
        variance += np.einsum("nd,nd->d", block, block)
    variance /= len(rows)
    eps = np.finfo(np.float64).eps
    # The bound that scikit-learn uses: what rounding alone leaves of a constant column.
    constant = variance <= len(rows) * eps * variance + (len(rows) * mean * eps) ** 2
    return mean, np.where(constant, 1.0, np.sqrt(np.where(constant, 1.0, variance)))


def block_bounds(edges: np.ndarray, block_rows: int) -> list[tuple[int, int]]:
    """Cut ``[edges[i], edges[i + 1])`` into near-equal blocks of at most ``block_rows`` rows."""
    bounds = []
    for low, high in pairwise(edges):
        pieces = max(1, -(-(high - low) // block_rows))
        cuts = np.linspace(low, high, pieces + 1).round().astype(int)
        bounds += [(int(a), int(b)) for a, b in pairwise(cuts) if b > a]
    return bounds


def fastest_precision(n: int) -> Precision:
    """Return bfloat16 for many rows where the processor multiplies it natively, else float32.

    A product is then rounded to 8 bits, a relative error of 2e-3 that is as good as random: in
    the mean over n rows it shrinks by the square root of n.
    """
    if n < _BFLOAT16_ROWS:
        return "float32"
    query = getattr(torch.cpu, "get_capabilities", None)
    if query is not None:
        found = query()
        native = bool(found.get("avx512_bf16") or found.get("amx_bf16"))
    else:
        older = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
        native = bool(older is not None and older())
    return "bfloat16" if native else "float32"
