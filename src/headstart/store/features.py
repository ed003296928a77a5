"""Rows of a space as arrays: memory-mapped, sliced and gathered, loading only what is needed."""

from __future__ import annotations

import bisect
import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from headstart.core.errors import StoreError
from headstart.core.nearest import Metric
from headstart.store.columns import Array, ColumnSpec
from headstart.store.errors import MissingShardError
from headstart.store.index import MAX_POSITION, POSITION_BITS, ShardEntry
from headstart.store.layout import PackedIds, unpack_ids
from headstart.store.neighbours import Candidates, Neighbours, neighbours
from headstart.store.shard import Shard, damaged_shard

IntArray = npt.NDArray[np.int64]
Rows = Array | dict[str, Array]
"""Rows of one column as an array, or of several columns as a dict of arrays."""


# A place is one integer: the shard's number among the entries, then the row's position in it. So
# adjacent rows differ by one, and sorting places sorts by disk order.
_SLOT = POSITION_BITS
_POSITION = MAX_POSITION
_MAPPED_ARRAYS = 4096  # kept open by one feature set


def places(slot: IntArray, position: IntArray) -> IntArray:
    """Combine the (n,) shard numbers of rows and their (n,) positions into (n,) places."""
    return (slot.astype(np.int64) << _SLOT) | position


class ShardSource(Protocol):
    """Finds rows and opens shards: a local space, or the mirror of a remote one."""

    def shard(self, entry: ShardEntry) -> Shard:
        """Return an open, verified shard.

        Raises:
            MissingShardError: its file is not there (any more).
        """

    def located(self, ids: PackedIds, view: int) -> tuple[IntArray, tuple[ShardEntry, ...]]:
        """Return the places of rows, from :func:`places`, and the shards that hold them."""


@dataclass(frozen=True)
class Column:
    """The NumPy ``dtype`` that a column yields, and the ``shape`` of one row."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def row_bytes(self) -> int:
        """Bytes of one row in memory."""
        return math.prod(self.shape) * self.dtype.itemsize


class FeatureSet:
    """n rows in a given order, with one or several columns. Get it from :meth:`Space.read`.

    ``features[i]``, ``features[a:b]`` and ``features[indices]`` return an array if there is one
    column, and a dict of arrays if there are several. A slice that is contiguous in one shard is a
    read-only view of the mapped file; everything else is a copy.
    """

    def __init__(
        self,
        source: ShardSource,
        ids: PackedIds,
        view: int,
        where: IntArray,
        entries: Sequence[ShardEntry],
        empty_columns: Sequence[ColumnSpec] = (),
    ) -> None:
        """Build the set.

        Args:
            source: opens shards.
            ids: (n, 2) uint64.
            view: number of the view to which all rows must belong.
            where: (n,) int64 places, from :func:`places`.
            entries: the shards.
            empty_columns: the columns if there are no rows.
        """
        self._packed, self._source, self._view = ids, source, view
        self._located = _Located(source, ids, view, where, tuple(entries))
        self.columns: Mapping[str, Column] = _columns(
            [entry.columns for entry in entries] or [empty_columns]
        )

    def __len__(self) -> int:
        """The number of rows."""
        return len(self._packed)

    def __repr__(self) -> str:
        columns = ", ".join(f"{n}: {c.dtype} {c.shape}" for n, c in self.columns.items())
        return f"FeatureSet({len(self):,} rows; {columns})"

    @property
    def ids(self) -> tuple[str, ...]:
        """The item ids, in order."""
        return tuple(unpack_ids(self._packed))

    @property
    def packed_ids(self) -> PackedIds:
        """The item ids as (n, 2) uint64: 16 bytes per id, without creating strings."""
        return self._packed

    @property
    def nbytes(self) -> int:
        """The bytes of all rows in memory."""
        return len(self) * sum(column.row_bytes for column in self.columns.values())

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, *shape), as of an array, if there is a single column."""
        return (len(self), *self.columns[self._name(None)].shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the values, if there is a single column."""
        return self.columns[self._name(None)].dtype

    # -- reading ---------------------------------------------------------------------------------

    def array(self, column: str | None = None) -> Array:
        """Return all rows of one column.

        Args:
            column: its name; optional if there is only one.

        Returns:
            (n, *shape): a view of the mapped file if all rows are contiguous in one shard,
            otherwise a copy in memory.
        """
        return self._rows(self._name(column), slice(0, len(self)))

    def __getitem__(self, key: Any) -> Rows:
        """Return one row (*shape), a slice (k, *shape), or rows at indices (k, *shape)."""
        if isinstance(key, slice):
            start, stop, step = key.indices(len(self))
            where: slice | IntArray = slice(start, max(start, stop))
            if step != 1:
                where = np.arange(start, stop, step)
            return self._each(where)
        array = np.asarray(key)
        if array.ndim == 0:
            rows = self._each(self._indices(array.reshape(1)))
            if isinstance(rows, dict):
                return {name: values[0] for name, values in rows.items()}
            return cast(Array, rows[0])
        return self._each(self._indices(array))

    # -- searching -------------------------------------------------------------------------------

    def neighbours(
        self,
        queries: object,
        k: int = 10,
        *,
        metric: Metric = "cosine",
        centre: bool = False,
        index: Candidates | None = None,
    ) -> Neighbours:
        """Return the k rows that are most similar to each query, exactly, in bounded memory.

        Args:
            queries: rows ``(m, d)`` or one row ``(d,)``; or an id of this set, or several. Rows
                with the id of a query are not its neighbours.
            k, metric, centre, index: see :func:`headstart.store.neighbours.neighbours`.

        Raises:
            StoreError: the set has several columns or no rows; or see there.
        """
        self._name(None)
        return neighbours(self, self._packed, queries, k, metric=metric, centre=centre, index=index)

    # -- inside ----------------------------------------------------------------------------------

    def _name(self, column: str | None) -> str:
        if column is None and len(self.columns) == 1:
            return next(iter(self.columns))
        if column is None or column not in self.columns:
            have = ", ".join(f"'{name}'" for name in self.columns)
            what = "a column must be named" if column is None else f"there is no column '{column}'"
            raise StoreError(f"{what}; these rows have {have or 'none, for the space is empty'}")
        return column

    def _indices(self, array: Array) -> IntArray:
        if array.dtype == np.bool_:
            if array.shape != (len(self),):
                raise StoreError(f"a mask of shape {array.shape} does not fit {len(self)} rows")
            return np.flatnonzero(array)
        if array.ndim != 1 or (array.dtype.kind not in "iu" and array.size):
            raise StoreError(
                f"rows are chosen by integers of shape (k,), not {array.dtype} {array.shape}"
            )
        where = array.astype(np.int64, copy=False)
        if len(where):
            low, high = int(where.min()), int(where.max())
            if low < -len(self) or high >= len(self):
                raise IndexError(f"row {high if high >= len(self) else low} of {len(self)} rows")
            if low < 0:
                where = np.where(where < 0, where + len(self), where)
        return where

    def _each(self, where: slice | IntArray) -> Rows:
        if len(self.columns) == 1:
            return self._rows(next(iter(self.columns)), where)
        return {name: self._rows(name, where) for name in self.columns}

    def _rows(self, name: str, chosen: slice | IntArray) -> Array:
        while True:
            located = self._located
            try:
                return located.rows(name, self.columns[name], chosen)
            except MissingShardError as error:
                # Another process has merged small shards into one: look the rows up again.
                again = _Located(
                    self._source,
                    self._packed,
                    self._view,
                    *self._source.located(self._packed, self._view),
                )
                if error.name in {entry.name for entry in again.entries}:
                    raise
                self._located = again


class _Located:
    """Rows and the shards that hold them, as the index said at one time; it never changes."""

    def __init__(
        self,
        source: ShardSource,
        ids: PackedIds,
        view: int,
        where: IntArray,
        entries: tuple[ShardEntry, ...],
    ) -> None:
        self._source, self._packed, self._view = source, ids, view
        self._where, self.entries = where, entries
        self._checked = np.zeros(len(entries), bool)
        self._plain: dict[tuple[str, int], Array] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Drop the mapped arrays; another process maps and checks the shards itself."""
        fresh = {"_plain": {}, "_checked": np.zeros_like(self._checked)}
        return self.__dict__ | fresh

    def rows(self, name: str, column: Column, chosen: slice | IntArray) -> Array:
        """Return the rows of a column at a slice, or at indices (k,)."""
        if not isinstance(chosen, slice):
            return self._gathered(name, column, self._where[chosen])
        start, stop = chosen.start, chosen.stop
        if start == stop:
            return np.empty((0, *column.shape), column.dtype)
        first, last = (
            bisect.bisect_right(self._breaks, start),
            bisect.bisect_left(self._breaks, stop),
        )
        if first >= last:
            rows = self._run(name, start, stop)
            return rows if rows.dtype == column.dtype else rows.astype(column.dtype)
        if 16 * (last - first) <= stop - start:
            return self._copied_runs(
                name, column, [start, *self._breaks[first:last].tolist(), stop]
            )
        return self._gathered(name, column, self._where[chosen])

    @functools.cached_property
    def _breaks(self) -> IntArray:
        """The indices of rows that do not directly follow the row before them in its shard."""
        return np.flatnonzero(np.diff(self._where) != 1) + 1

    def _run(self, name: str, start: int, stop: int) -> Array:
        """Return rows that are contiguous in one shard; of a plain column as a view."""
        where = int(self._where[start])
        first = where & _POSITION
        return self._stored(name, where >> _SLOT, slice(first, first + stop - start))

    def _copied_runs(self, name: str, column: Column, edges: Sequence[int]) -> Array:
        count = edges[-1] - edges[0]
        out = np.empty((count, *column.shape), column.dtype)
        for start, stop in itertools.pairwise(edges):
            out[start - edges[0] : stop - edges[0]] = self._run(name, start, stop)
        return out

    def _gathered(self, name: str, column: Column, where: IntArray) -> Array:
        # In disk order the reads of a batch are local, which is worth a second copy.
        out = np.empty((len(where), *column.shape), column.dtype)
        order = where.argsort()
        sorted_where = where[order]
        slots, positions = sorted_where >> _SLOT, sorted_where & _POSITION
        cuts = np.flatnonzero(slots[1:] != slots[:-1]) + 1
        edges = [0, *cuts.tolist(), len(where)] if len(where) else []
        for start, stop in itertools.pairwise(edges):
            rows = self._stored(name, int(slots[start]), positions[start:stop])
            out[order[start:stop]] = rows
        return out

    def _stored(self, name: str, slot: int, where: slice | IntArray) -> Array:
        """Return the rows of a column at positions in one shard, decoded."""
        plain = self._plain.get((name, slot))
        if plain is None:
            shard = self._shard(slot)
            spec = shard.column(name)
            if spec.encoding != "plain":
                return shard.rows(spec, where)
            if len(self._plain) >= _MAPPED_ARRAYS:
                self._plain.clear()
            plain = self._plain[name, slot] = shard.stored[name]
        return plain[where] if isinstance(where, slice) else plain.take(where, axis=0)

    def _shard(self, slot: int) -> Shard:
        """Open a shard; it must confirm each row that the index says it holds."""
        shard = self._source.shard(self.entries[slot])
        if self._checked[slot]:
            return shard
        mine = np.flatnonzero(self._where >> _SLOT == slot)
        positions = self._where[mine] & _POSITION
        sound = shard.header.view == self._view and not (positions >= shard.header.rows).any()
        if not sound or (shard.ids[positions] != self._packed[mine]).any():
            raise damaged_shard(shard.path, "it holds other rows than the index says")
        self._checked[slot] = True
        return shard


def _columns(tables: Sequence[Sequence[ColumnSpec]]) -> dict[str, Column]:
    columns: dict[str, Column] = {}
    for spec in itertools.chain.from_iterable(tables):
        known, dtype = columns.get(spec.name), np.dtype(spec.dtype)
        if known is not None:
            if known.shape != spec.shape:
                raise StoreError(f"shards disagree about column '{spec.name}'")
            # Shards that fell back to float32 widen the column.
            dtype = np.result_type(known.dtype, dtype)
        columns[spec.name] = Column(dtype, spec.shape)
    return columns
