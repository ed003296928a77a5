"""Rows of a space as arrays: mapped, sliced and gathered without loading what is not asked for."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from headstart.errors import StoreError
from headstart.store.index import ShardEntry
from headstart.store.layout import REPAIR_HINT, PackedIds, unpack_ids
from headstart.store.precision import Array, ColumnSpec
from headstart.store.shard import Shard

if TYPE_CHECKING:
    import torch

    from headstart.store.loader import BlockLoader, FeatureDataset

IntArray = npt.NDArray[np.int64]
Rows = Array | dict[str, Array]
"""Rows of a single column as an array, or of several as a dict of arrays."""


class ShardSource(Protocol):
    """Whatever opens shards: a local space, or the mirror of a remote one."""

    def shard(self, entry: ShardEntry) -> Shard:
        """Return an open, verified shard."""


@dataclass(frozen=True)
class Column:
    """What a column yields: its NumPy ``dtype`` and the ``shape`` of one row."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def row_bytes(self) -> int:
        """Bytes of one row in memory."""
        return math.prod(self.shape) * self.dtype.itemsize


class FeatureSet:
    """n rows in a given order, with one or several columns. Get it from :meth:`Space.read`.

    ``features[i]``, ``features[a:b]`` and ``features[indices]`` return an array where there is one
    column, and a dict of arrays where there are several. A slice that lies together in one shard
    is a view of the mapped file that cannot be written to; everything else is a copy.
    """

    def __init__(
        self,
        source: ShardSource,
        ids: PackedIds,
        slot: IntArray,
        position: IntArray,
        entries: Sequence[ShardEntry],
        empty_columns: Sequence[ColumnSpec] = (),
        names: Sequence[str] | None = None,
    ) -> None:
        """Build the set.

        Args:
            source: what opens shards.
            ids: (n, 2) uint64.
            slot: (n,) the place in ``entries`` of each row's shard.
            position: (n,) the place of each row in its shard.
            entries: the shards.
            empty_columns: the columns where there are no rows.
            names: the columns to yield; None for all.
        """
        self._source, self._packed = source, ids
        self._slot, self._position = slot.astype(np.int32), position
        self._entries, self._empty = tuple(entries), tuple(empty_columns)
        self._checked = np.zeros(len(entries), bool)
        self.columns: Mapping[str, Column] = _columns(
            [entry.columns for entry in entries] or [tuple(empty_columns)], names
        )

    def __len__(self) -> int:
        """The number of rows."""
        return len(self._slot)

    def __repr__(self) -> str:
        columns = ", ".join(f"{n}: {c.dtype} {c.shape}" for n, c in self.columns.items())
        return f"FeatureSet({len(self):,} rows; {columns})"

    @property
    def ids(self) -> tuple[str, ...]:
        """The item ids, in order."""
        return tuple(unpack_ids(self._packed))

    @property
    def nbytes(self) -> int:
        """The bytes of all rows in memory."""
        return len(self) * sum(column.row_bytes for column in self.columns.values())

    # -- choosing --------------------------------------------------------------------------------

    def select(self, *names: str) -> FeatureSet:
        """Return the same rows with only these columns."""
        return self._with(self._packed, self._slot, self._position, names)

    def take(self, indices: npt.ArrayLike) -> FeatureSet:
        """Return the rows at ``indices`` ((k,) integers or (n,) booleans) as another set."""
        where = self._indices(np.asarray(indices))
        return self._with(
            self._packed[where], self._slot[where], self._position[where], tuple(self.columns)
        )

    def _with(
        self, ids: PackedIds, slot: Any, position: IntArray, names: Sequence[str]
    ) -> FeatureSet:
        return FeatureSet(self._source, ids, slot, position, self._entries, self._empty, names)

    # -- reading ---------------------------------------------------------------------------------

    def array(self, column: str | None = None) -> Array:
        """Return all rows of one column.

        Args:
            column: its name; may be left out where there is only one.

        Returns:
            (n, *shape): a view of the mapped file where all rows lie together in one shard,
            otherwise a copy in memory.
        """
        return self._rows(self._name(column), slice(0, len(self)))

    def tensor(self, column: str | None = None) -> torch.Tensor:
        """Return all rows of one column as a torch tensor of shape (n, *shape).

        Where the rows lie together in one shard the tensor shares the pages of the file; writing
        to it changes this tensor only, never the file or any other array.
        """
        import torch

        name = self._name(column)
        run = self._run(slice(0, len(self)))
        if run is not None and len(self):
            shard, where = run
            if shard.column(name).encoding == "plain":
                return torch.from_numpy(shard.private_copy(name)[where])
        values = self._rows(name, slice(0, len(self)))
        return torch.from_numpy(values if values.flags.writeable else values.copy())

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

    def batches(self, size: int) -> Iterator[Rows]:
        """Yield consecutive rows, ``size`` at a time, the last batch as short as it comes."""
        if size < 1:
            raise StoreError(f"a batch has at least one row, not {size}")
        for start in range(0, len(self), size):
            yield self[start : start + size]

    # -- training --------------------------------------------------------------------------------

    def torch_dataset(self, labels: npt.ArrayLike | None = None) -> FeatureDataset:
        """Return a map-style ``torch.utils.data.Dataset`` that fetches whole batches at once.

        Args:
            labels: (n, ...) values to pair with the rows; None yields rows alone.
        """
        from headstart.store.loader import FeatureDataset

        return FeatureDataset(self, labels)

    def loader(
        self, batch_size: int, seed: int = 0, shuffle: bool = True, **options: Any
    ) -> BlockLoader:
        """Return an iterable over batches that reads the disk in order, in shuffled blocks.

        See :class:`headstart.store.loader.BlockLoader` for what it yields and its options.
        """
        from headstart.store.loader import BlockLoader

        return BlockLoader(self, batch_size, seed=seed, shuffle=shuffle, **options)

    # -- inside ----------------------------------------------------------------------------------

    def disk_order(self) -> IntArray:
        """Return the (n,) permutation that visits rows in the order of the disk."""
        return np.lexsort((self._position, self._slot)).astype(np.int64)

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

    def _rows(self, name: str, where: slice | IntArray) -> Array:
        column = self.columns[name]
        slots, positions = self._slot[where], self._position[where]
        count = len(slots)
        if isinstance(where, slice) and count:
            run = self._run(where)
            if run is not None:
                shard, place = run
                rows = shard.rows(shard.column(name), place)
                return rows if rows.dtype == column.dtype else rows.astype(column.dtype)
        out = np.empty((count, *column.shape), column.dtype)
        if isinstance(where, slice) and self._copy_runs(name, slots, positions, out):
            return out
        if len(self._entries) == 1:
            groups: list[Any] = [slice(None)] if count else []
        else:
            order = np.argsort(slots, kind="stable")
            cuts = np.flatnonzero(np.diff(slots[order])) + 1
            groups = np.split(order, cuts) if count else []
        for group in groups:
            group_slots, group_positions = slots[group], positions[group]
            shard = self._shard(int(group_slots[0]))
            out[group] = shard.rows(shard.column(name), group_positions)
        return out

    def _run(self, where: slice) -> tuple[Shard, slice] | None:
        """Return shard and slice if the rows lie together in one shard, in order."""
        slots, positions = self._slot[where], self._position[where]
        if len(slots) == 0 or slots[0] != slots[-1]:
            return None
        if positions[-1] - positions[0] != len(slots) - 1:
            return None
        if (slots != slots[0]).any() or (np.diff(positions) != 1).any():
            return None
        return self._shard(int(slots[0])), slice(int(positions[0]), int(positions[-1]) + 1)

    def _copy_runs(self, name: str, slots: Any, positions: IntArray, out: Array) -> bool:
        """Fill ``out`` by long runs if there are such; return whether it was done."""
        breaks = np.flatnonzero((np.diff(slots) != 0) | (np.diff(positions) != 1)) + 1
        if 16 * len(breaks) > len(slots):
            return False
        edges = [0, *breaks.tolist(), len(slots)] if len(slots) else []
        for start, stop in itertools.pairwise(edges):
            shard = self._shard(int(slots[start]))
            first = int(positions[start])
            place = slice(first, first + stop - start)
            out[start:stop] = shard.rows(shard.column(name), place)
        return True

    def _shard(self, slot: int) -> Shard:
        shard = self._source.shard(self._entries[slot])
        if not self._checked[slot]:
            self._check_ids(slot, shard)
        return shard

    def _check_ids(self, slot: int, shard: Shard) -> None:
        # The index said where the rows lie; the shard itself must agree for each of them.
        mine = np.flatnonzero(self._slot == slot)
        positions = self._position[mine]
        inside = (positions >= 0) & (positions < shard.header.rows)
        if not inside.all() or (shard.ids[positions] != self._packed[mine]).any():
            raise StoreError(
                f"shard {shard.path.name} in {shard.path.parent} holds other rows than the index"
                " says",
                hint=REPAIR_HINT,
            )
        self._checked[slot] = True


def _columns(
    tables: Sequence[Sequence[ColumnSpec]], names: Sequence[str] | None
) -> dict[str, Column]:
    columns: dict[str, Column] = {}
    for table in tables:
        for spec in table:
            known = columns.get(spec.name)
            dtype = np.dtype(spec.dtype)
            if known is not None:
                if known.shape != spec.shape:
                    raise StoreError(f"shards disagree about column '{spec.name}'")
                # Shards that fell back to float32 widen the column.
                dtype = np.result_type(known.dtype, dtype)
            columns[spec.name] = Column(dtype, spec.shape)
    if names is None:
        return columns
    unknown = [name for name in names if name not in columns]
    if unknown or not names:
        have = ", ".join(f"'{name}'" for name in columns)
        raise StoreError(f"there is no column {', '.join(map(repr, unknown))}; there are {have}")
    return {name: columns[name] for name in names}
