"""Features that lie on disk, read in blocks, so that the whole matrix is never in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import psutil

# The solvers need at most twice the size of the features, so that with this share of the free
# memory the features and all that is made of them still fit.
_SHARE = 0.4
_BLOCK_BYTES = 64 * 1024 * 1024


class RowSource(Protocol):
    """Rows on disk: a mapped ``.npy``, the rows of a feature store, an HDF5 or Zarr data set."""

    @property
    def shape(self) -> tuple[int, ...]:
        """``(n, d)``."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the numbers."""

    def __getitem__(self, rows: Any, /) -> Any:
        """Return the rows of a slice, or of ascending indices ``(m,) int64``, as ``(m, d)``."""


class StreamedFeatures:
    """Features ``(n, d)`` that are read anew whenever they are needed, and never kept.

    Indexing with a slice or with indices ``(m,)`` reads just those rows as float32 or float64.
    The solvers take these instead of an array; what they make then is bounded by a block of rows,
    the parameters of the heads, and the outputs ``(n, k)``.

    Args:
        source: the rows on disk; they must not change meanwhile.
        rows: ``(m,) int64``, the ones of the source that this is about, best ascending; None for
            all.
    """

    def __init__(self, source: RowSource, rows: npt.NDArray[np.int64] | None = None) -> None:
        self._source, self._rows = source, rows
        self.checked = False  # whether all rows are known to be finite

    @property
    def shape(self) -> tuple[int, int]:
        """``(n, d)``."""
        n = self._source.shape[0] if self._rows is None else len(self._rows)
        return int(n), int(self._source.shape[1])

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32 where the source has other numbers than float64; what is no number stays so."""
        given = self._source.dtype
        return given if given == np.float64 or given.kind not in "fiub" else np.dtype(np.float32)

    @property
    def nbytes(self) -> int:
        """The bytes that all rows would take in memory."""
        return self.shape[0] * self.shape[1] * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any, /) -> npt.NDArray[Any]:
        """Read the rows of a slice without a step, or at ``(m,)`` indices in any order."""
        if isinstance(rows, slice):
            start, stop, _ = rows.indices(len(self))
            if self._rows is None:
                return self._read(slice(start, stop))
            return self._gather(self._rows[start:stop])
        return self._gather(np.asarray(rows) if self._rows is None else self._rows[rows])

    def take(self, rows: npt.NDArray[np.int64]) -> StreamedFeatures:
        """Return the rows at indices ``(m,)``, unread; ascending ones are read the fastest."""
        wanted = np.asarray(rows) if self._rows is None else self._rows[rows]
        chosen = StreamedFeatures(self._source, wanted)
        chosen.checked = self.checked
        return chosen

    def blocks(self) -> Iterator[tuple[int, npt.NDArray[Any]]]:
        """Yield ``(start, rows)``, all rows in order, some 64 MiB at a time."""
        size = self.block_rows()
        for start in range(0, len(self), size):
            yield start, self[start : start + size]

    def block_rows(self) -> int:
        """Return how many rows are worth reading at a time."""
        return max(1, _BLOCK_BYTES // (self.shape[1] * self.dtype.itemsize))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        """Read all rows into memory, for what cannot be done otherwise."""
        return np.array(self[0 : len(self)], dtype=dtype, copy=copy is not False)

    def _gather(self, wanted: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Read rows at indices in any order; the source is read at ascending ones, each once."""
        if (np.diff(wanted) > 0).all():
            return self._read(wanted)
        each, place = np.unique(wanted, return_inverse=True)
        return self._read(each)[place]

    def _read(self, rows: slice | npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        if (
            not isinstance(rows, slice)
            and len(rows)
            and rows[0] >= 0
            and (np.diff(rows) == 1).all()
        ):
            rows = slice(int(rows[0]), int(rows[-1]) + 1)
        return np.ascontiguousarray(self._source[rows], dtype=self.dtype)


def lies_on_disk(x: object) -> bool:
    """Return whether ``x`` can be read in parts: mapped, or like an array without being one."""
    if isinstance(x, np.ndarray):
        return isinstance(x, np.memmap) or isinstance(x.base, np.memmap)
    if isinstance(x, StreamedFeatures):
        return True
    sparse = hasattr(x, "toarray")
    return not sparse and isinstance(getattr(x, "dtype", None), np.dtype) and hasattr(x, "shape")


def memory_share() -> int:
    """Return the bytes that features may take in memory: 0.4 of what is free now."""
    return int(_SHARE * psutil.virtual_memory().available)
