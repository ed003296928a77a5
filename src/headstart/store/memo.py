"""A memo of content digests: (path, size, times, inode) → digest, so that files are hashed once.

Losing the memo costs time, never correctness, so it is written lazily and its errors are ignored.
Every row carries a check value: a row that was damaged or edited counts as absent.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from headstart.core.addresses import FarFile
from headstart.core.errors import StoreError
from headstart.core.files import share
from headstart.core.fingerprints import sha256
from headstart.store.database import Database
from headstart.store.layout import is_hex32

# Editions before the check values had a table called "memo".
_SCHEMA = """
CREATE TABLE IF NOT EXISTS files (
    path BLOB PRIMARY KEY, size INTEGER NOT NULL, mtime INTEGER NOT NULL, ctime INTEGER NOT NULL,
    inode INTEGER NOT NULL, digest TEXT NOT NULL, sum TEXT NOT NULL
) WITHOUT ROWID
"""
_COLUMNS = "size, mtime, ctime, inode, digest, sum"
_RACY_NANOSECONDS = 2_000_000_000
_TICK_NANOSECONDS = 20_000_000
_SECOND = 1_000_000_000
_MAX_INTEGER = 2**63 - 1
_FLUSH_EVERY = 1000


@dataclass(frozen=True)
class _Stamp:
    """What changes with a file: its size, the times of content and of entry, its inode."""

    size: int
    mtime: int
    ctime: int
    inode: int

    @property
    def recent(self) -> bool:
        """Whether the file may change again within the resolution of its time stamps."""
        now = time.time_ns()
        coarse = self.ctime % _SECOND == 0 and now - self.ctime < _RACY_NANOSECONDS
        return coarse or now - self.mtime < _RACY_NANOSECONDS


class Memo:
    """Digests of files, remembered between runs.

    A file counts as unchanged if its size, modification time, time of last change of its entry
    (ctime, which no program can set back) and inode are the same as when it was hashed. A file
    modified less than two seconds ago is not remembered: it could change again within the
    resolution of its time stamp. Nor is one that changed while it was being hashed.

    May be used by several threads and, after a fork, by the child.

    Args:
        path: the SQLite file; it and its folder are created by the first write.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._database = Database(self.path, wal=False, what=f"the memo of file digests {path}")
        self._lock = threading.Lock()
        self._asked: dict[bytes, _Stamp] = {}  # as they were before they were hashed
        self._pending: dict[bytes, tuple[_Stamp, str]] = {}
        self._used = False

    def __reduce__(self) -> tuple[type[Memo], tuple[Path]]:
        return Memo, (self.path,)  # another process opens the file itself

    def __enter__(self) -> Memo:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()

    def lookup(self, file: Path | str | FarFile) -> str | None:
        """Return the digest of an unchanged file; None if the file is unknown, changed or gone."""
        try:
            key, stamp = _identity(file)
        except OSError:
            return None
        with self._lock:
            found = self._pending.get(key) or self._select(key)
            if found is None or found[0] != stamp:
                self._asked[key] = stamp
                return None
            self._used = True
        return found[1]

    def remember(self, file: Path | str | FarFile, digest: str) -> None:
        """Remember the digest of a file that was just hashed.

        Args:
            file: the file; one that lies elsewhere is known by its address and version.
            digest: 32 lowercase hexadecimal characters.
        """
        try:
            key, stamp = _identity(file)
            if not stamp.recent and time.time_ns() - stamp.ctime < _TICK_NANOSECONDS:
                # Another change within this tick of the clock would leave the same stamp.
                time.sleep(_TICK_NANOSECONDS / _SECOND)
                key, stamp = _identity(file)
        except OSError:
            return
        with self._lock:
            asked = self._asked.pop(key, stamp)
            if stamp.recent or asked != stamp:
                return
            self._pending[key] = (stamp, digest)
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
        if self._used:
            with contextlib.suppress(OSError):
                os.utime(self.path)  # the time of the last use, for gc
            self._used = False

    def places(self, digests: Set[str]) -> dict[str, str]:
        """Return paths of remembered files by digest, as far as they are known."""
        found: dict[str, str] = {}
        if not self.path.exists():
            return found
        with contextlib.suppress(StoreError):
            for key, digest in self._database.query("SELECT path, digest FROM files"):
                if digest in digests and isinstance(key, bytes):
                    found[digest] = os.fsdecode(key)
        self._database.close()
        return found

    def check(self) -> int:
        """Return how many files are remembered.

        Raises:
            StoreError: the memo cannot be read or is damaged.
        """
        for complaint in self._database.query("PRAGMA integrity_check(1)"):
            if complaint[0] != "ok":
                raise self._database.damaged(str(complaint[0]))
        rows = list(self._rows())
        wrong = sum(not sound for _, sound in rows)
        if wrong:
            raise self._database.damaged(f"{wrong} of {len(rows)} rows fail their check value")
        return len(rows)

    def drop_damaged(self) -> None:
        """Remove the rows that fail their check value; all of them if the file is no database."""
        with contextlib.suppress(StoreError):
            wrong = [(key,) for key, sound in self._rows() if not sound]
            with self._database.transaction() as connection:
                connection.executemany("DELETE FROM files WHERE path = ?", wrong)
            self.check()
            return
        self._database.close()
        self.path.unlink(missing_ok=True)
        self.path.with_name(f"{self.path.name}-journal").unlink(missing_ok=True)

    def _rows(self) -> Iterator[tuple[Any, bool]]:
        tables = "SELECT count(*) FROM sqlite_master WHERE name = 'files'"
        if self._database.query(tables) == [(0,)]:
            return
        for key, *row in self._database.query(f"SELECT path, {_COLUMNS} FROM files"):  # noqa: S608
            yield key, _checked(key, tuple(row)) is not None

    def _select(self, key: bytes) -> tuple[_Stamp, str] | None:
        if not self.path.exists():
            return None
        query = f"SELECT {_COLUMNS} FROM files WHERE path = ?"  # noqa: S608 (constants only)
        try:
            found = self._database.query(query, key)
        except StoreError:
            return None
        return _checked(key, found[0]) if found else None

    def _write(self) -> None:
        if not self._pending:
            return
        rows = [
            (
                key,
                stamp.size,
                stamp.mtime,
                stamp.ctime,
                stamp.inode,
                digest,
                _sum(key, stamp, digest),
            )
            for key, (stamp, digest) in self._pending.items()
        ]
        with contextlib.suppress(OSError, StoreError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._database.transaction() as connection:
                connection.execute(_SCHEMA)
                connection.execute("DROP TABLE IF EXISTS memo")
                share(self.path)
                connection.executemany(
                    "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?)", rows
                )
        self._pending.clear()


def _checked(key: Any, row: tuple[Any, ...]) -> tuple[_Stamp, str] | None:
    """Return a row as it was written; None if it fails its check value."""
    *stamp, digest, found = row
    if not all(type(value) is int for value in stamp) or not is_hex32(digest):
        return None
    made = _Stamp(*stamp)
    return (made, digest) if isinstance(key, bytes) and _sum(key, made, digest) == found else None


def _sum(key: bytes, stamp: _Stamp, digest: str) -> str:
    numbers = f"{stamp.size} {stamp.mtime} {stamp.ctime} {stamp.inode} {digest}"
    return str(xxhash.xxh3_128(key + b"\0" + numbers.encode()).hexdigest())


def _identity(file: Path | str | FarFile) -> tuple[bytes, _Stamp]:
    if isinstance(file, FarFile):
        version = int(sha256(file.version)[:15], 16)
        return os.fsencode(file.address), _Stamp(file.size, 0, 0, version)
    path = os.path.abspath(file)  # noqa: PTH100 (resolve() would ask the disk about every part)
    found = os.stat(path)  # noqa: PTH116
    # As bytes, since a name on disk need not be text.
    inode = found.st_ino & _MAX_INTEGER  # of SQLite; some network disks use 64 bits
    stamp = _Stamp(found.st_size, found.st_mtime_ns, found.st_ctime_ns, inode)
    return os.fsencode(path), stamp
