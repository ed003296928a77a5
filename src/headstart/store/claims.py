"""Claims: which process is computing which rows, so that processes share the work.

An owner is a file that a live process holds locked. When the process dies, its lock and thus its
claims end; no clock or heartbeat is involved. Claims save work; correctness does not depend on
them but on the index alone.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3

import numpy as np

from headstart.core.errors import StoreError
from headstart.core.files import clear_errors, make_folder, share
from headstart.core.locks import FileLock, new_locked_file, try_lock
from headstart.store.index import Index, id_blobs
from headstart.store.layout import Layout, PackedIds, is_hex32
from headstart.store.orphans import adopt_orphans

_CHUNK = 512


class Claims:
    """The claims of this process on one space."""

    def __init__(self, layout: Layout, index: Index) -> None:
        self._layout, self._index = layout, index
        self._owner = ""
        self._lock: FileLock | None = None
        self._pid = -1

    def take(self, ids: PackedIds, view: int, limit: int | None) -> PackedIds:
        """Claim up to ``limit`` of the missing rows that no other live process has claimed.

        Args:
            ids: (n, 2) uint64, unique, in order of preference.
            view: number of the view.
            limit: the maximum number of rows; None for no limit.

        Returns:
            (k, 2) uint64, k ≤ n, in the order of ``ids``.
        """
        self._become_owner()
        wanted = len(ids) if limit is None else limit
        granted: list[int] = []
        alive: dict[str, bool] = {}
        blobs = id_blobs(ids)
        with self._index.transaction() as connection:
            for start in range(0, len(blobs), _CHUNK):
                chunk = blobs[start : start + _CHUNK]
                places = self._index.locate(ids[start : start + _CHUNK], view)
                known = places.shard >= 0
                marks = ",".join("?" * len(chunk))
                query = f"SELECT id, owner FROM claims WHERE view = ? AND id IN ({marks})"  # noqa: S608
                owners = dict(connection.execute(query, (view, *chunk)).fetchall())
                for place, blob in enumerate(chunk, start):
                    if len(granted) >= wanted:
                        break
                    owner = owners.get(blob)
                    if known[place - start] or (owner is not None and self._is_alive(owner, alive)):
                        continue
                    granted.append(place)
                if len(granted) >= wanted:
                    break
            connection.executemany(
                "INSERT OR REPLACE INTO claims VALUES (?, ?, ?)",
                ((blobs[place], view, self._owner) for place in granted),
            )
        return ids[np.array(granted, np.int64)]

    def drop(self, connection: sqlite3.Connection, ids: PackedIds, view: int) -> None:
        """Drop the claims of rows that are being committed, inside the transaction."""
        connection.executemany(
            "DELETE FROM claims WHERE id = ? AND view = ?", ((blob, view) for blob in id_blobs(ids))
        )

    def release_rows(self, ids: PackedIds, view: int) -> None:
        """Drop the claims of this process on some rows.

        Args:
            ids: (n, 2) uint64.
            view: number of the view.
        """
        if self._lock is None or self._pid != os.getpid():
            return
        with self._index.transaction() as connection:
            connection.executemany(
                "DELETE FROM claims WHERE id = ? AND view = ? AND owner = ?",
                ((blob, view, self._owner) for blob in id_blobs(ids)),
            )

    def release(self) -> None:
        """Drop all claims of this process."""
        if self._lock is None or self._pid != os.getpid():
            return
        with self._index.transaction() as connection:
            connection.execute("DELETE FROM claims WHERE owner = ?", (self._owner,))
        with contextlib.suppress(OSError):
            self._lock.path.unlink(missing_ok=True)
        self._lock.release()
        self._lock = None

    def _become_owner(self) -> None:
        # A forked child is another worker and must not act for its parent.
        if self._lock is not None and self._pid == os.getpid():
            return
        with clear_errors(f"claim rows in {self._layout.folder}", StoreError):
            make_folder(self._layout.claims)
            self._lock = new_locked_file(self._layout.claims)
            share(self._lock.path)
        self._owner, self._pid = self._lock.path.name, os.getpid()
        sweep_claims(self._layout, self._index)
        adopt_orphans(self._layout, self._index)

    def _is_alive(self, owner: object, seen: dict[str, bool]) -> bool:
        if not is_hex32(owner):
            return False
        name = str(owner)
        if name not in seen:
            seen[name] = _is_locked(self._layout, name)
        return seen[name]


def sweep_claims(layout: Layout, index: Index) -> None:
    """Remove the claims and lock files of dead processes."""
    for path in sorted(layout.claims.iterdir()) if layout.claims.is_dir() else []:
        if is_hex32(path.name) and not _is_locked(layout, path.name):
            with index.transaction() as connection:
                connection.execute("DELETE FROM claims WHERE owner = ?", (path.name,))
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def _is_locked(layout: Layout, owner: str) -> bool:
    try:
        lock = try_lock(layout.claims / owner, exclusive=True, create=False)
    except OSError:
        return False
    if lock is not None:
        lock.release()
    return lock is None
