"""Where the rows of a space are, and its shards as they are opened to be read."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from headstart.core.errors import StoreError
from headstart.core.wording import count, listed
from headstart.store import errors
from headstart.store.errors import MissingShardError
from headstart.store.features import IntArray, places
from headstart.store.folder import SpaceFolder
from headstart.store.index import Index, Places, ShardEntry
from headstart.store.layout import REPAIR_HINT, PackedIds, unpack_ids
from headstart.store.remote import Remote
from headstart.store.shard import Shard, damaged_shard, missing_shard, open_shard

_OPEN_SHARDS = 2048  # mapped at the same time; Linux allows 65,530 mappings per process


class Below(Protocol):
    """The space below another one, which can only be read."""

    def located(self, ids: PackedIds, view: int) -> tuple[IntArray, tuple[ShardEntry, ...]]:
        """Return where rows are, and the shards that hold them."""

    def shard(self, entry: ShardEntry) -> Shard:
        """Return an open shard."""


class OpenShards:
    """Finds rows and opens shards; those that were opened last stay open.

    Args:
        folder: of the space.
        remote: fetches shards that the mirror does not have; None: none.
        below: holds the rows that are not here; None: none.
    """

    def __init__(self, folder: SpaceFolder, remote: Remote | None, below: Below | None) -> None:
        self._folder, self._remote, self._below = folder, remote, below
        self._guard = threading.Lock()
        self._shards: OrderedDict[str, Shard] = OrderedDict()

    def located(self, ids: PackedIds, view: int) -> tuple[IntArray, tuple[ShardEntry, ...]]:
        """Return where rows are: their places, and the shards that hold them.

        Args:
            ids: (n, 2) uint64.
            view: number of the view.

        Raises:
            StoreError: a row or a shard is missing.
        """
        failed = ""
        while True:
            try:
                return self._look_up(ids, view)
            except MissingShardError as error:
                # Merged into another by another process, in this moment; twice is damage.
                if error.name == failed:
                    raise
                failed = error.name

    def _look_up(self, ids: PackedIds, view: int) -> tuple[IntArray, tuple[ShardEntry, ...]]:
        index = self._folder.existing()
        absent = np.ones(len(ids), bool)
        if index is not None:
            found = index.locate(ids, view)
            absent = found.shard < 0
        if absent.any() and self._below is None:
            raise self._missing_rows(unpack_ids(ids[absent]), view)
        where = np.zeros(len(ids), np.int64)
        entries: tuple[ShardEntry, ...] = ()
        if index is not None and not absent.all():
            here = Places(found.shard[~absent], found.position[~absent])
            where[~absent], entries = self._places_here(index, here)
        if absent.any() and self._below is not None:
            lower, others = self._below.located(ids[absent], view)
            where[absent] = lower + places(np.array(len(entries)), np.array(0))
            entries += others
        return where, entries

    def _places_here(self, index: Index, found: Places) -> tuple[IntArray, tuple[ShardEntry, ...]]:
        numbers, slot = np.unique(found.shard, return_inverse=True)
        entries = index.shard_entries(int(n) for n in numbers)
        unknown = [int(n) for n in numbers if int(n) not in entries]
        if unknown:
            gone = MissingShardError(
                f"{index.database.what} is damaged: it names unknown shards", hint=REPAIR_HINT
            )
            gone.name = str(unknown[0])
            raise gone
        chosen = tuple(entries[int(n)] for n in numbers)
        self._check_files(chosen)
        return places(slot, found.position), chosen

    def shard(self, entry: ShardEntry) -> Shard:
        """Return an open shard whose digest and header have been checked.

        Raises:
            StoreError: the shard is missing or damaged, or has other columns than the index says.
        """
        shard = self._shards.get(entry.name)
        if shard is not None:
            return shard
        # In a process that received a feature set, this is what protects the space from gc.
        self._folder.existing()
        path = self._folder.layout.shard(entry.name)
        if self._below is not None and not path.exists():
            return self._below.shard(entry)
        if self._remote is not None and not path.exists():
            self._remote.fetch(entry, self._folder.created())
        shard = open_shard(path, self._folder.layout.key)
        if shard.header.columns != entry.columns or shard.header.rows != entry.rows:
            raise damaged_shard(path, "it has other columns than the index says")
        with self._guard:
            self._shards[entry.name] = shard
            while len(self._shards) > _OPEN_SHARDS:
                self._shards.popitem(last=False)
        return shard

    def _check_files(self, entries: Sequence[ShardEntry]) -> None:
        for entry in entries:
            path = self._folder.layout.shard(entry.name)
            if not entry.present and self._remote is not None:
                continue  # fetched when it is first read
            if not entry.present and not path.exists():
                raise StoreError(
                    f"shard {path.name} has not been fetched into {path.parent} yet",
                    hint="open the store with the URL of its remote store",
                )
            try:
                size = path.stat().st_size
            except FileNotFoundError:
                raise missing_shard(path) from None
            except OSError as error:
                raise errors.unreadable(f"shard {path.name} in {path.parent}", error) from error
            if size != entry.bytes:
                why = f"it has {size:,} bytes instead of {entry.bytes:,}"
                raise damaged_shard(path, why)

    def _missing_rows(self, ids: Sequence[str], view: int) -> StoreError:
        unique = list(dict.fromkeys(ids))
        which = f" of view {view}" if view else ""
        return StoreError(
            f"the space {self._folder.layout.folder} lacks {count(len(unique), 'row')}{which}:"
            f" {listed(unique, 3)}",
            hint="first compute and append what missing() returns",
        )


__all__ = ["Below", "OpenShards"]
