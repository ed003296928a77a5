"""The training rows, read block by block, in the precision of the products.

Rows are not standardised where they lie: the standardisation is folded into the parameters and,
by its adjoint, into the gradient. Only products in bfloat16 want a packed copy (half the size of
the features), because standardised numbers keep more of their digits there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
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
_LARGEST_OFFSET = 64.0


@dataclass(frozen=True)
class Rows:
    """Training rows with their targets, in the order in which passes read them.

    Attributes:
        x: features ``(n, d)``, as given.
        order: ``(n,) int64``, the reading order. Rows of one fold stand together, so that a
            block belongs wholly to one fold and is skipped by the heads that hold it out.
        labels: ``(n,) int64`` class indices in reading order, or None for soft targets.
        targets: ``(n, k) float64`` soft targets in reading order, or None for labels.
        shift, scale: ``(d,) float64``, the common standardisation ``(x - shift) / scale``.
        packed: ``(n, d) bfloat16``, standardised and in reading order; None until packed.
    """

    x: FloatArray
    order: np.ndarray
    labels: Tensor | None
    targets: Tensor | None
    shift: FloatArray
    scale: FloatArray
    packed: Tensor | None = None

    @property
    def n(self) -> int:
        """The number of rows."""
        return len(self.order)

    @property
    def width(self) -> int:
        """The number of features and one, for the intercept."""
        return int(self.x.shape[1]) + 1

    def pack(self) -> Rows:
        """Return the same rows with their bfloat16 copy."""
        packed = torch.empty((self.n, self.width - 1), dtype=torch.bfloat16)
        bounds = block_bounds(np.array([0, self.n]), _MOMENT_ROWS)
        for start, stop, z in self.standardised(bounds, torch.float32):
            packed[start:stop] = z
        return replace(self, packed=packed)

    def frame(self, precision: Precision) -> tuple[FloatArray, FloatArray]:
        """Return the shift and scale that have been applied to what ``blocks`` yields."""
        if self._is_raw(precision):
            return np.zeros_like(self.shift), np.ones_like(self.scale)
        return self.shift, self.scale

    def blocks(
        self, bounds: list[tuple[int, int]], precision: Precision
    ) -> Iterator[tuple[int, int, Tensor]]:
        """Yield ``(start, stop, z)`` with ``z: (stop - start, d)``, in the frame of ``frame``.

        The tensor may be reused by the next block: take what is needed before going on.
        """
        if precision == "bfloat16":
            assert self.packed is not None
            for start, stop in bounds:
                yield start, stop, self.packed[start:stop]
        elif self._is_raw(precision):
            yield from self._raw(bounds, _DTYPES[precision])
        else:
            yield from self.standardised(bounds, _DTYPES[precision])

    def standardised(
        self, bounds: list[tuple[int, int]], dtype: torch.dtype
    ) -> Iterator[tuple[int, int, Tensor]]:
        """Yield blocks as ``blocks`` does, standardised for certain."""
        shift = torch.from_numpy(self.shift).to(dtype)
        inverse = torch.from_numpy(1.0 / self.scale).to(dtype)
        buffer: Tensor | None = None
        for start, stop, z in self._raw(bounds, dtype):
            if buffer is None or len(buffer) < len(z):
                buffer = torch.empty_like(z)
            yield start, stop, torch.sub(z, shift, out=buffer[: len(z)]).mul_(inverse)

    def _is_raw(self, precision: Precision) -> bool:
        if precision == "bfloat16":
            return False
        # A mean far from 0, in deviations, would cancel digits that float32 does not have.
        return precision == "float64" or bool(
            np.abs(self.shift / self.scale).max() < _LARGEST_OFFSET
        )

    def _raw(
        self, bounds: list[tuple[int, int]], dtype: torch.dtype
    ) -> Iterator[tuple[int, int, Tensor]]:
        in_order = bool((self.order == np.arange(self.n)).all())
        wanted = np.float64 if dtype == torch.float64 else np.float32
        rows = max((stop - start for start, stop in bounds), default=0)
        if in_order and self.x.dtype == wanted and self.x.flags.writeable:
            for start, stop in bounds:
                yield start, stop, torch.from_numpy(self.x[start:stop])
            return
        buffer = np.empty((rows, self.x.shape[1]), dtype=wanted)
        for start, stop in bounds:
            block = buffer[: stop - start]
            if self.x.dtype == wanted:
                np.take(self.x, self.order[start:stop], axis=0, out=block, mode="clip")
            else:
                block[...] = self.x[start:stop] if in_order else self.x[self.order[start:stop]]
            yield start, stop, torch.from_numpy(block)


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
