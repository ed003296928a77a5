"""A memo of content digests: (path, size, mtime, inode) → digest, so that files are hashed once.

Losing the memo costs time, never correctness, so it is written lazily and its errors are ignored.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path
from typing import Any

from headstart.core.errors import StoreError
from headstart.store.database import Database
from headstart.store.layout import is_hex32

_SCHEMA = """
CREATE TABLE IF NOT EXISTS memo (
    path BLOB PRIMARY KEY, size INTEGER NOT NULL, mtime INTEGER NOT NULL,
    inode INTEGER NOT NULL, digest TEXT NOT NULL
) WITHOUT ROWID
"""
_RACY_NANOSECONDS = 2_000_000_000
_FLUSH_EVERY = 1000


class Memo:
    """Digests of files, remembered between runs.

    A file counts as unchanged if its size, modification time and inode are the same as when it was
    hashed. A file modified less than two seconds ago is not remembered: it could change again
    within the resolution of its time stamp.

    May be used by several threads and, after a fork, by the child.

    Args:
        path: the SQLite file; it and its folder are created by the first write.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._database = Database(self.path, wal=False)
        self._lock = threading.Lock()
        self._pending: dict[bytes, tuple[int, int, int, str]] = {}

    def __enter__(self) -> Memo:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()

    def lookup(self, file: Path | str) -> str | None:
        """Return the digest of an unchanged file; None if the file is unknown, changed or gone."""
        try:
            key, stat = _identity(file)
        except OSError:
            return None
        with self._lock:
            found = self._pending.get(key) or self._select(key)
        if found is None or found[:3] != (stat.st_size, stat.st_mtime_ns, stat.st_ino):
            return None
        return found[3] if is_hex32(found[3]) else None

    def remember(self, file: Path | str, digest: str) -> None:
        """Remember the digest of a file that was just hashed.

        Args:
            file: the file.
            digest: 32 lowercase hexadecimal characters.
        """
        try:
            key, stat = _identity(file)
        except OSError:
            return
        if time.time_ns() - stat.st_mtime_ns < _RACY_NANOSECONDS:
            return
        with self._lock:
            self._pending[key] = (stat.st_size, stat.st_mtime_ns, stat.st_ino, digest)
            if len(self._pending) >= _FLUSH_EVERY:
                self._write()

    def flush(self) -> None:
        """Write pending digests."""
        with self._lock:
            self._write()

    def close(self) -> None:
        """Write pending digests and close the file."""
        self.flush()
        self._database.close()

    def _select(self, key: bytes) -> tuple[int, int, int, str] | None:
        if not self.path.exists():
            return None
        query = "SELECT size, mtime, inode, digest FROM memo WHERE path = ?"
        try:
            found: list[tuple[Any, ...]] = self._database.query(query, key)
        except StoreError:
            return None
        return found[0] if found else None

    def _write(self) -> None:
        if not self._pending:
            return
        rows = [(key, *value) for key, value in self._pending.items()]
        with contextlib.suppress(OSError, StoreError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._database.transaction() as connection:
                connection.execute(_SCHEMA)
                connection.executemany("INSERT OR REPLACE INTO memo VALUES (?, ?, ?, ?, ?)", rows)
        self._pending.clear()


def _identity(file: Path | str) -> tuple[bytes, os.stat_result]:
    path = os.path.abspath(file)  # noqa: PTH100 (resolve() would ask the disk about every part)
    # As bytes, since a name on disk need not be text.
    return os.fsencode(path), os.stat(path)  # noqa: PTH116
