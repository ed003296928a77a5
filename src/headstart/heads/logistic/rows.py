"""The training rows, read block by block, in the precision of the products.

Rows are not standardised where they lie: the standardisation is folded into the parameters and,
by its adjoint, into the gradient. Only products in bfloat16 want a packed copy (half the size of
the features), because standardised numbers keep more of their digits there; and a CUDA device
keeps one of its own where it fits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from headstart.evaluation.targets import FloatArray
from headstart.heads.features import Features
from headstart.heads.source import StreamedFeatures

Precision = Literal["float64", "float32", "bfloat16"]
_DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16}
_MOMENT_ROWS = 1024
_BFLOAT16_ROWS = 10_000
_LARGEST_OFFSET = 64.0


@dataclass(frozen=True)
class Rows:
    """Training rows with their targets, in the order in which passes read them.

    Attributes:
        x: features ``(n, d)``, as given; an array, or streamed from disk.
        order: ``(n,) int64``, the reading order. Rows of one fold stand together, so that a
            block belongs wholly to one fold and is skipped by the heads that hold it out.
        labels: ``(n,) int64`` class indices in reading order, or None for soft targets.
        targets: ``(n, k) float64`` soft targets in reading order, or None for labels.
        shift, scale: ``(d,) float64``, the common standardisation ``(x - shift) / scale``.
        packed: ``(n, d)`` bfloat16 or float32 on the device, standardised and in reading order;
            products of its type read it instead of ``x``. None until packed.
        chunk: how many streamed rows are read at once, where ``order`` is not that of the disk.
        device: where blocks, targets and parameters lie.
        balance: ``(2, k) float64``, what the absence and the presence of each label weigh, for
            targets of several labels; None: 1.
    """

    x: Features
    order: np.ndarray
    labels: Tensor | None
    targets: Tensor | None
    shift: FloatArray
    scale: FloatArray
    packed: Tensor | None = None
    chunk: int = 0
    device: torch.device = field(default=torch.device("cpu"))
    balance: Tensor | None = None

    @property
    def n(self) -> int:
        """The number of rows."""
        return len(self.order)

    @property
    def width(self) -> int:
        """The number of features plus one, for the intercept."""
        return int(self.x.shape[1]) + 1

    def label_weights(self, target: Tensor) -> Tensor | None:
        """Return what each label of some rows weighs, ``(m, k)`` for targets ``(m, k)``."""
        if self.balance is None:
            return None
        weights = self.balance.to(target.dtype)
        return torch.lerp(weights[0], weights[1], target)

    def pack(self, precision: Precision = "bfloat16") -> Rows:
        """Return the same rows with a copy of them on the device."""
        dtype = _DTYPES[precision]
        packed = torch.empty((self.n, self.width - 1), dtype=dtype, device=self.device)
        edges = np.append(np.arange(0, self.n, self.chunk or self.n), self.n)
        bounds = block_bounds(edges, _MOMENT_ROWS)
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
        dtype = _DTYPES[precision]
        if self._is_packed(dtype):
            yield from self.standardised(bounds, dtype)
        elif precision == "bfloat16":
            for start, stop, z in self.standardised(bounds, torch.float32):
                yield start, stop, z.to(dtype)
        elif self._is_raw(precision):
            yield from self._raw(bounds, dtype)
        else:
            yield from self.standardised(bounds, dtype)

    def standardised(
        self, bounds: list[tuple[int, int]], dtype: torch.dtype
    ) -> Iterator[tuple[int, int, Tensor]]:
        """Yield blocks as ``blocks`` does, always standardised."""
        if self.packed is not None and self._is_packed(dtype):
            for start, stop in bounds:
                yield start, stop, self.packed[start:stop]
            return
        shift = torch.from_numpy(self.shift).to(self.device, dtype)
        inverse = torch.from_numpy(1.0 / self.scale).to(self.device, dtype)
        buffer: Tensor | None = None
        for start, stop, z in self._raw(bounds, dtype):
            if buffer is None or len(buffer) < len(z):
                buffer = torch.empty_like(z)
            yield start, stop, torch.sub(z, shift, out=buffer[: len(z)]).mul_(inverse)

    def _is_raw(self, precision: Precision) -> bool:
        if precision == "bfloat16" or self._is_packed(_DTYPES[precision]):
            return False
        # A mean far from 0, in deviations, would cancel digits that float32 does not have.
        return precision == "float64" or bool(
            np.abs(self.shift / self.scale).max() < _LARGEST_OFFSET
        )

    def _is_packed(self, dtype: torch.dtype) -> bool:
        return self.packed is not None and self.packed.dtype is dtype

    def _raw(
        self, bounds: list[tuple[int, int]], dtype: torch.dtype
    ) -> Iterator[tuple[int, int, Tensor]]:
        in_order = bool((self.order == np.arange(self.n)).all())
        wanted = np.float64 if dtype == torch.float64 else np.float32
        if isinstance(self.x, StreamedFeatures):
            yield from self._streamed(self.x, bounds, wanted, in_order)
            return
        rows = max((stop - start for start, stop in bounds), default=0)
        if in_order and self.x.dtype == wanted and self.x.flags.writeable:
            for start, stop in bounds:
                yield start, stop, torch.from_numpy(self.x[start:stop]).to(self.device)
            return
        buffer = np.empty((rows, self.x.shape[1]), dtype=wanted)
        for start, stop in bounds:
            block = buffer[: stop - start]
            if self.x.dtype == wanted:
                np.take(self.x, self.order[start:stop], axis=0, out=block, mode="clip")
            else:
                block[...] = self.x[start:stop] if in_order else self.x[self.order[start:stop]]
            yield start, stop, torch.from_numpy(block).to(self.device)

    def _streamed(
        self,
        x: StreamedFeatures,
        bounds: list[tuple[int, int]],
        wanted: type[np.floating[Any]],
        in_order: bool,
    ) -> Iterator[tuple[int, int, Tensor]]:
        """Read the disk in order: a chunk at a time, from which blocks take their rows."""
        size, low, chunk = self.chunk, -1, np.empty((0, 0))
        for start, stop in bounds:
            if in_order:
                block = np.array(x[start:stop], dtype=wanted)
            else:
                if start - start % size != low:
                    low = start - start % size
                    chunk = x[low : low + size]
                block = chunk[self.order[start:stop] - low].astype(wanted, copy=False)
            yield start, stop, torch.from_numpy(block).to(self.device)


@dataclass(frozen=True)
class Reading:
    """How passes read the rows.

    Attributes:
        order: ``(n,) int64``, the order.
        bounds: the blocks to read, ``(start, stop)`` in this order.
        chunk: for rows on disk, how many are read at once; the order stays inside these.
    """

    order: np.ndarray
    bounds: list[tuple[int, int]]
    chunk: int = 0


def plan_reading(
    x: Features, division: np.ndarray, block_rows: int, order: np.ndarray | None = None
) -> Reading:
    """Return a reading whose blocks mostly lie wholly inside or outside a fold.

    Rows of an array are sorted by fold. Rows on disk are sorted so within chunks that are read at
    once, so that every pass still reads the disk from its beginning to its end; what does not
    fill a block of its fold stands at the end of the chunk. All blocks are then of one size,
    which spares the kernels of the products their preparation for ever new ones.

    Args:
        x: features ``(n, d)``.
        division: ``(n,)``, the fold of each row.
        block_rows: the most rows a block should have.
        order: ``(n,) int64``, in which rows of a fold of an array are read; None: as they lie.
    """
    if not isinstance(x, StreamedFeatures):
        order = np.arange(len(division)) if order is None else order
        order = order[np.argsort(division[order], kind="stable")]
        edges = np.concatenate([[0], np.cumsum(np.bincount(division))])
        return Reading(order, block_bounds(edges, block_rows))
    n = len(division)
    size = max(1, x.block_rows() // block_rows) * block_rows
    chunk = np.arange(n) // size
    order = np.lexsort((division, chunk))
    part = chunk[order] * (division.max() + 1) + division[order]
    _, first, count = np.unique(part, return_index=True, return_counts=True)
    rank = np.arange(n) - np.repeat(first, count)
    rest = rank >= np.repeat(count // block_rows * block_rows, count)
    order = order[np.lexsort((part, rest, chunk))]
    bounds = [(at, min(at + block_rows, n)) for at in range(0, n, block_rows)]
    return Reading(order, bounds, size)


def block_bounds(edges: np.ndarray, block_rows: int) -> list[tuple[int, int]]:
    """Cut ``[edges[i], edges[i + 1])`` into near-equal blocks of at most ``block_rows`` rows."""
    bounds = []
    for low, high in pairwise(edges):
        pieces = max(1, -(-(high - low) // block_rows))
        cuts = np.linspace(low, high, pieces + 1).round().astype(int)
        bounds += [(int(a), int(b)) for a, b in pairwise(cuts) if b > a]
    return bounds


def fastest_precision(n: int, device: torch.device) -> Precision:
    """Return bfloat16 for many rows where the processor multiplies it natively, else float32.

    On CUDA always float32: it is fast enough there, and rounds less.

    A product is then rounded to 8 bits, a relative error of 2e-3 that is as good as random: in
    the mean over n rows it shrinks by the square root of n.
    """
    if n < _BFLOAT16_ROWS or device.type != "cpu":
        return "float32"
    query = getattr(torch.cpu, "get_capabilities", None)
    if query is not None:
        found = query()
        native = bool(found.get("avx512_bf16") or found.get("amx_bf16"))
    else:
        older = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
        native = bool(older is not None and older())
    return "bfloat16" if native else "float32"
