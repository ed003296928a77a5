"""One feature space: rows identified by (item id, view), appended in shards, read back by id."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headstart.core.errors import StoreError
from headstart.core.files import clear_errors, free_bytes, sync_file, sync_folder
from headstart.core.progress import Reporter, SilentReporter
from headstart.core.records import Storage
from headstart.core.scratch import locked_temporary
from headstart.store.catalog import Nearest, nearest
from headstart.store.claims import Claims
from headstart.store.columns import Array, ColumnSpec, Encoded, checked_columns, encode
from headstart.store.describe import checked_description, space_key
from headstart.store.features import FeatureSet, IntArray
from headstart.store.folder import SpaceFolder
from headstart.store.index import Index, ShardEntry
from headstart.store.layout import (
    SHARD_SUFFIX,
    Layout,
    PackedIds,
    checked_view,
    pack_ids,
    unpack_ids,
)
from headstart.store.merge import MERGE_AT, SMALL_BYTES, merge_small_shards
from headstart.store.opened import OpenShards
from headstart.store.remote import Remote
from headstart.store.shard import Shard, file_digest, write_shard

MAX_SHARD_BYTES = 512 * 2**20
"""An append of more than this is divided into several shards, each committed separately."""


@dataclass(frozen=True)
class Preflight:
    """What a run would find: rows ``present`` and ``missing`` (unique items), and disk space.

    ``bytes_needed`` is None if the size of a row is not known yet.
    """

    present: int
    missing: int
    bytes_needed: int | None
    bytes_free: int


class Space:
    """The rows of one description. Get it from :meth:`Store.space`.

    Nothing exists on disk before the first append. Once it has touched the disk, a space holds a
    shared lock until it is garbage collected, so that ``gc`` in any process leaves it alone. It may
    be used by several threads, survives forks, and can be pickled.

    A space may lie over another one of the same description that this user can read and not write
    to (``below``): rows are found in both, and new ones are added here.
    """

    def __init__(
        self,
        root: Path,
        description: Mapping[str, Any],
        remote: str | None = None,
        remote_options: Mapping[str, Any] | None = None,
        below: Space | None = None,
    ) -> None:
        self._description = checked_description(description)
        self._below = below
        self._layout = Layout(Path(root), space_key(self._description))
        self._remote: Remote | None = None
        if remote is not None:
            self._remote = Remote(remote, self._layout, self._description, remote_options)
        self._folder = SpaceFolder(self._layout, self._description)
        self._claims: Claims | None = None
        self._guard = threading.RLock()
        self._tidy_at = MERGE_AT  # so many small shards are worth merging
        self._open = OpenShards(self._folder, self._remote, below)

    def __repr__(self) -> str:
        return f"Space({str(self._layout.folder)!r})"

    def __reduce__(self) -> tuple[type[Space], tuple[Any, ...]]:
        remote = self._remote
        shared = (None, None) if remote is None else (remote.url, remote.options)
        return (Space, (self._layout.root, self._description, *shared, self._below))

    @property
    def key(self) -> str:
        """The key: 32 hexadecimal characters."""
        return self._layout.key

    @property
    def description(self) -> dict[str, Any]:
        """The description, as a copy."""
        return checked_description(self._description)

    @property
    def folder(self) -> Path:
        """The folder of the space, which may not exist yet."""
        return self._layout.folder

    @property
    def below(self) -> Path | None:
        """The folder of the space below, which this user can only read; None if there is none."""
        return None if self._below is None else self._below.folder

    @property
    def is_remote(self) -> bool:
        """Whether rows are shared by machines, which do not see each other's claims."""
        return self._remote is not None

    def is_writable(self) -> bool:
        """Whether this user may add rows, as far as the permissions say."""
        return self._folder.is_writable()

    # -- asking ----------------------------------------------------------------------------------

    def missing(self, ids: Sequence[str], view: int = 0) -> list[str]:
        """Return the ids that have no committed row: each once, in order of first occurrence.

        Args:
            ids: item ids, 32 lowercase hexadecimal characters each; duplicates are allowed.
            view: number of the view.

        Raises:
            StoreError: an id or the view is malformed, or the space cannot be read.
        """
        unique = list(dict.fromkeys(ids))
        packed, view = pack_ids(unique), checked_view(view)
        index = self._synced()
        if index is not None:
            absent = np.flatnonzero(index.locate(packed, view).shard < 0)
            unique = [unique[i] for i in absent.tolist()]
        return unique if self._below is None else self._below.missing(unique, view)

    def columns(self) -> tuple[ColumnSpec, ...] | None:
        """Return the columns as first committed; None while the space is empty."""
        index = self._synced()
        found = None if index is None else index.first_columns()
        return self._below.columns() if found is None and self._below is not None else found

    def __len__(self) -> int:
        """The number of committed rows, over all views; rows that are also below count twice."""
        index = self._synced()
        here = 0 if index is None else index.totals()[0]
        return here + (0 if self._below is None else len(self._below))

    def preflight(
        self, ids: Sequence[str], view: int = 0, *, row_bytes: int | None = None
    ) -> Preflight:
        """Return how many rows are present and missing, and the bytes needed and free.

        Args:
            ids: the wanted item ids; duplicates count once.
            view: number of the view.
            row_bytes: bytes per row, for a space that is still empty.
        """
        unique = list(dict.fromkeys(ids))
        missing = len(self.missing(unique, view))
        columns = self.columns()
        if columns is not None:
            row_bytes = sum(spec.row_bytes for spec in columns)
        # Besides its values, a row takes space for its id in the shard and in the index.
        needed = None if row_bytes is None else missing * (row_bytes + 80)
        return Preflight(len(unique) - missing, missing, needed, free_bytes(self._layout.folder))

    def nearest(self) -> Nearest | None:
        """Return the most similar other space in the store, and where it differs.

        This explains a cache miss: ``preprocessing.resize: 256 → 232``.
        """
        if self._below is not None:
            return self._below.nearest()
        return nearest(self._layout.root, self._description, self.key)

    # -- writing ---------------------------------------------------------------------------------

    def append(
        self,
        ids: Sequence[str],
        columns: Mapping[str, Array],
        view: int = 0,
        *,
        storage: Storage | None = None,
        reporter: Reporter | None = None,
    ) -> int:
        """Publish rows durably: all of a shard or nothing.

        Rows that are already committed are skipped. Which publication wins makes no difference,
        since a row is a function of its key.

        Args:
            ids: m item ids; the first row of a duplicate counts.
            columns: layer name → (m, ...) array. All shards of a space have the same names,
                row shapes and precision.
            view: number of the view.
            storage: how floating-point columns are stored (``float32``, ``float16``, ``int8``);
                None keeps their type. It belongs in the description too: rows differ by it.
            reporter: receives a note if float16 or int8 cannot hold the values of a shard, which
                is then stored as float32.

        Returns:
            The number of rows newly published.

        Raises:
            StoreError: ids, columns or view are malformed or do not fit the space, or the disk is
                full or not writable. What was committed stays.
        """
        reporter = reporter or SilentReporter()
        arrays = checked_columns(columns, len(ids))
        packed, view = pack_ids(ids), checked_view(view)
        if len(ids) == 0:
            return 0
        _, first = np.unique(packed, axis=0, return_index=True)
        first.sort()
        index = self._synced() or self._folder.created()
        keep = first[index.locate(packed[first], view).shard < 0]
        total = 0
        row_bytes = sum(array.nbytes for array in arrays.values()) // len(ids)
        step = max(1, MAX_SHARD_BYTES // max(1, row_bytes))
        for start in range(0, len(keep), step):
            where: Any = keep[start : start + step]
            if len(where) == len(ids):
                where = slice(None)
            encoded = [encode(name, array[where], storage) for name, array in arrays.items()]
            for note in (column.note for column in encoded if column.note):
                reporter.note(note)
            total += self._publish(packed[where], view, encoded)
        self._tidy(index)
        return total

    def _tidy(self, index: Index) -> None:
        """Merge small shards where there are many."""
        if self._remote is not None or index.mirrors_log():
            return  # the log names the shards as they are
        while index.count_small(SMALL_BYTES) >= self._tidy_at:
            try:
                left = merge_small_shards(self._layout, index)
            except StoreError:  # the rows are committed, in any case
                left = index.count_small(SMALL_BYTES)
            if left is None:
                return  # another process merges, and looks again when it is done
            # Shards of different views stay apart, however many there are.
            self._tidy_at = left + MERGE_AT

    def _publish(self, ids: PackedIds, view: int, columns: Sequence[Encoded]) -> int:
        specs = tuple(column.spec for column in columns)
        self._check_contract(specs)
        with (
            clear_errors(f"write a shard in {self._layout.folder}", StoreError),
            locked_temporary(self._layout.tmp, SHARD_SUFFIX) as temporary,
        ):
            write_shard(temporary, self.key, view, ids, columns)
            sync_file(temporary)
            name, size = file_digest(temporary), temporary.stat().st_size
            entry = ShardEntry(0, name, len(ids), size, specs, time.time())
            if self._remote is None:
                return self._commit(temporary, entry, ids, view)
            index = self._folder.created()
            won = self._remote.publish(index, temporary, entry, ids, view)
            # Registers what the log says now, and saves fetching our own shard.
            self._commit(temporary, entry, ids, view)
            return won

    def _commit(self, temporary: Path, entry: ShardEntry, ids: PackedIds, view: int) -> int:
        index = self._folder.created()
        with index.transaction() as connection:
            # Another process may have just committed the first shard.
            self._check_contract(entry.columns)
            new = index.register(connection, entry, ids, view)
            if new:
                temporary.replace(self._layout.shard(entry.name))
                sync_folder(self._layout.shards)
            else:
                connection.execute(
                    "DELETE FROM shards WHERE name = ? AND created = ?", (entry.name, entry.created)
                )
            if self._claims is not None:
                self._claims.drop(connection, ids, view)
        return new

    def _check_contract(self, specs: tuple[ColumnSpec, ...]) -> None:
        first = self._folder.created().first_columns()
        if first is None and self._below is not None:
            first = self._below.columns()
        if first is None:
            return
        expected, found = [s.contract for s in first], [s.contract for s in specs]
        if sorted(expected) != sorted(found):
            raise StoreError(
                f"the space {self.key} has the columns {_list(expected)}, not {_list(found)}",
                hint="describe everything that the rows depend on, including layers and storage",
            )

    def claim(self, ids: Sequence[str], view: int = 0, *, limit: int | None = None) -> list[str]:
        """Reserve missing rows for this process, so that several processes share the work.

        A claim ends when its row is appended, when :meth:`release` is called (do so in a
        ``finally``), or when this process dies, however it dies.

        Args:
            ids: the wanted item ids, in order of preference.
            view: number of the view.
            limit: the maximum number of ids to reserve; None for no limit.

        Returns:
            The ids that were neither committed nor claimed by a live process, this one included.
            Empty while others work on the rest; :meth:`missing` tells whether to wait for them.
        """
        packed, view = pack_ids(list(dict.fromkeys(ids))), checked_view(view)
        index = self._synced() or self._folder.created()
        with self._guard:
            if self._claims is None:
                self._claims = Claims(self._layout, index)
        return unpack_ids(self._claims.take(packed, view, limit))

    def disclaim(self, ids: Sequence[str], view: int = 0) -> None:
        """Release the claims of this process on some rows, which will not be appended."""
        if self._claims is not None:
            self._claims.release_rows(pack_ids(ids), checked_view(view))

    def release(self) -> None:
        """Release all claims of this process whose rows were not appended."""
        if self._claims is not None:
            self._claims.release()
            self._claims = None

    def close(self) -> None:
        """Close the index and release the lock, so that ``gc`` may remove the space.

        The next use opens them again. Feature sets read earlier may then lose rows that they have
        not touched yet.
        """
        self.release()
        self._folder.close()
        if self._below is not None:
            self._below.close()

    # -- reading ---------------------------------------------------------------------------------

    def read(self, ids: Sequence[str], view: int = 0) -> FeatureSet:
        """Return the rows of ``ids``, in their order; duplicates are allowed.

        Nothing is loaded: rows are memory-mapped, and a shard's digest is checked the first time a
        process touches it.

        Raises:
            StoreError: a row or a shard is missing.
        """
        packed, view = pack_ids(ids), checked_view(view)
        self._synced()
        where, entries = self.located(packed, view)
        columns = () if entries else self.columns() or ()
        return FeatureSet(self, packed, view, where, entries, columns)

    def all_rows(self) -> Iterator[tuple[int, FeatureSet]]:
        """Yield each view that has rows, with all its rows in disk order."""
        index = self._synced()
        if index is not None:
            for view in index.views():
                ids, _ = index.rows_of(view)
                yield view, FeatureSet(self, ids, view, *self.located(ids, view))

    def located(self, ids: PackedIds, view: int) -> tuple[IntArray, tuple[ShardEntry, ...]]:
        """Return where rows are, and the shards that hold them; see :class:`OpenShards`."""
        return self._open.located(ids, view)

    def shard(self, entry: ShardEntry) -> Shard:
        """Return an open shard; see :class:`OpenShards`."""
        return self._open.shard(entry)

    def _synced(self) -> Index | None:
        """Return the index, synchronised with the remote log; None if the space does not exist."""
        if self._remote is None:
            return self._folder.existing()
        index = self._folder.created()
        self._remote.sync(index)
        return index


def _list(contracts: Sequence[tuple[str, tuple[int, ...], str]]) -> str:
    return ", ".join(f"'{name}' {shape} {precision}" for name, shape, precision in contracts)
