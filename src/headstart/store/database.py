"""SQLite for many threads and processes: one connection each, and errors in one clear line."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from headstart.core.errors import StoreError
from headstart.core.files import NO_LOCKS, is_writable, share
from headstart.store import errors
from headstart.store.errors import DamagedError, UnreadableError

_T = TypeVar("_T")

_BUSY_SECONDS = 60.0
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_FULL = (sqlite3.SQLITE_FULL,)
_READ_ONLY = (sqlite3.SQLITE_READONLY,)
_UNREADABLE = (
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_AUTH,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_NOLFS,
    sqlite3.SQLITE_INTERRUPT,
)
_CACHE_KB, _LOG_PAGES = 64_000, 16_384
"""Kilobytes of pages in memory, and pages of the log (64 MB) that are written back together. Ids
are at random, so that a commit of some thousand rows changes as many pages: they must neither be
written out before it ends, nor be written back for each commit alone."""
_PAUSES = (0.02, 0.1, 0.5, 1.0)
"""Seconds between attempts where a lock fails."""
# The file system refuses the locks that SQLite needs.
_NO_LOCKS = (
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_IOERR_LOCK,
    sqlite3.SQLITE_IOERR_RDLOCK,
    sqlite3.SQLITE_IOERR_UNLOCK,
    sqlite3.SQLITE_IOERR_CHECKRESERVEDLOCK,
    sqlite3.SQLITE_IOERR_SHMLOCK,
)


class _Connection(sqlite3.Connection):
    """A connection that can be weakly referenced and knows which process opened it."""

    pid = -1
    stamp: tuple[int, ...] | None = None
    """Of the file, for a connection that takes it for unchanging."""


# A connection must be neither used nor closed on the other side of a fork: closing it there would
# break the parent's locks. A child parks inherited ones here, where nothing collects them.
_OPEN: weakref.WeakSet[_Connection] = weakref.WeakSet()
_INHERITED: list[_Connection] = []


@functools.cache
def _watch_forks() -> None:
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=lambda: _INHERITED.extend(_OPEN))


def _connect(target: str | Path, *, uri: bool = False) -> _Connection:
    _watch_forks()
    connection = sqlite3.connect(
        target,
        timeout=_BUSY_SECONDS,
        isolation_level=None,
        uri=uri,
        factory=_Connection,
        check_same_thread=False,  # each is used by one thread, but may be closed by another
    )
    connection.pid = os.getpid()
    _OPEN.add(connection)
    return connection


def _close_all(connections: weakref.WeakSet[_Connection]) -> None:
    for connection in list(connections):
        if connection.pid == os.getpid():
            connection.close()


class Database:
    """Access to one SQLite file from any thread and, after a fork, from any process.

    Args:
        path: the file; its folder must exist.
        read_only: never write, not even to recover; for read-only disks.
        wal: use a write-ahead log, so that readers and a writer do not block each other. It needs
            two more files next to the database while it is in use.
        what: what messages call the file; None: the index.
    """

    def __init__(
        self, path: Path, *, read_only: bool = False, wal: bool = True, what: str | None = None
    ) -> None:
        self.path, self.what = path, what or f"the index {path}"
        self.read_only, self._wal = read_only, wal
        self._local = threading.local()
        self._opened: weakref.WeakSet[_Connection] = weakref.WeakSet()
        # Connections are part of a reference cycle, so they would not be closed at once.
        self._closer = weakref.finalize(self, _close_all, self._opened)

    def damaged(self, why: str) -> DamagedError:
        """Return the error to raise where the content of the file makes no sense."""
        return errors.damaged(self.what, why)

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Convert SQLite's errors to a one-line :class:`StoreError`."""
        try:
            yield
        except sqlite3.Error as error:
            raise self._translated(error) from error

    def _translated(self, error: sqlite3.Error) -> StoreError:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
        if code in _NO_LOCKS:
            return UnreadableError(f"{self.what} cannot be locked: {NO_LOCKS[0]}", hint=NO_LOCKS[1])
        code &= 0xFF  # the rest says more exactly what happened
        if code in _FULL:
            hint = "free some space and run again; what is committed stays"
            return UnreadableError(f"cannot write {self.what}: the disk is full", hint=hint)
        if code in _READ_ONLY:
            hint = "choose another location or fix the permissions"
            return UnreadableError(f"cannot write {self.what}: it is read-only", hint=hint)
        if code in _BUSY:
            hint = "wait for that process, or end it"
            return UnreadableError(f"{self.what} is locked by another process", hint=hint)
        if code in _UNREADABLE:
            hint = "check the disk, its space, the permissions and the limit of open files"
            return UnreadableError(f"{self.what} cannot be opened: {error}", hint=hint)
        return self.damaged(str(error))

    def _check_place(self) -> None:
        """Refuse anything but a file: SQLite would only say that it cannot open it."""
        for path in (self.path, *self.side_files):
            try:
                found = errors.obstacle(path, folder=False)
            except OSError as error:
                raise errors.unreadable(self.what, error) from error
            if found is not None:
                raise self.damaged(f"{found} is in the place of {path.name}")

    @property
    def side_files(self) -> tuple[Path, Path]:
        """The write-ahead log and its shared memory, which exist while the database is in use."""
        return (
            self.path.with_name(f"{self.path.name}-wal"),
            self.path.with_name(f"{self.path.name}-shm"),
        )

    def connection(self) -> sqlite3.Connection:
        """Return this thread's connection in this process."""
        connection: _Connection | None = getattr(self._local, "connection", None)
        if connection is None or connection.pid != os.getpid() or self._is_stale(connection):
            self._check_place()
            connection = self._connect_read_only() if self.read_only else self._connect()
            self._opened.add(connection)
            self._local.connection = connection
        return connection

    def _is_stale(self, connection: _Connection) -> bool:
        """Whether a file that was taken for unchanging has changed."""
        try:
            return connection.stamp is not None and connection.stamp != self._stamp()
        except OSError:
            return True

    def _stamp(self) -> tuple[int, ...]:
        """Return what changes when another process writes to the file."""
        found, log = self.path.stat(), self.side_files[0]
        return (found.st_ino, found.st_size, found.st_mtime_ns, log.exists() and log.stat().st_size)

    def query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Return all rows of a query."""

        def read() -> list[tuple[Any, ...]]:
            connection = self.connection()
            try:
                return connection.execute(sql, values).fetchall()
            except sqlite3.DatabaseError:
                # Read while another process began to write: read again, with its log.
                if self.connection() is connection:
                    raise
                return self.connection().execute(sql, values).fetchall()

        with self.errors():
            return self._patiently(read)

    def _patiently(self, work: Callable[[], _T]) -> _T:
        """Try again where a lock fails, or a file that can be written is taken for read-only.

        Processes that open and close one database at the same moment meet such errors too; only a
        file system without locks, or a disk that is read-only, meets them for ever.
        """
        for pause in _PAUSES:
            try:
                return work()
            except sqlite3.OperationalError as error:
                if not self._may_pass(error):
                    raise
                connection: _Connection | None = getattr(self._local, "connection", None)
                if connection is not None:  # this thread's alone
                    connection.close()
                    self._local.connection = None
                time.sleep(pause)
        return work()

    def _may_pass(self, error: sqlite3.OperationalError) -> bool:
        code = getattr(error, "sqlite_errorcode", None)  # Python sets none for its own errors
        if code is None or code in _NO_LOCKS:
            return code is not None
        # A reader, who writes nothing, meets it where a writer is about to make the log's memory,
        # to read the log into it, or to take it away.
        return code & 0xFF in _READ_ONLY and (self.read_only or is_writable(self.path))

    def _connect(self) -> _Connection:
        if self._wal:
            self._open_for_writing()
        connection = _connect(self.path)
        try:
            # The busy timeout does not cover switching to WAL, so processes that create one
            # database together take turns here.
            deadline = time.monotonic() + _BUSY_SECONDS
            while self._wal:
                try:
                    connection.execute("PRAGMA journal_mode=WAL")
                    break
                except sqlite3.OperationalError as error:
                    busy = error.sqlite_errorcode & 0xFF in _BUSY
                    if not busy or time.monotonic() > deadline:
                        raise
                    time.sleep(0.005)
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute(f"PRAGMA cache_size=-{_CACHE_KB}")
            connection.execute(f"PRAGMA wal_autocheckpoint={_LOG_PAGES}")
            connection.execute("SELECT 1 FROM sqlite_master").fetchone()  # makes the side files
            for path in (*self.side_files, self.path):  # the last tells others that all is shared
                share(path)
            if not all(is_writable(path) for path in self.side_files if path.exists()):
                raise UnreadableError(
                    f"{self.what} cannot be written: a process of another user has it open",
                    hint="wait for that process, or end it",
                )
        except BaseException:
            connection.close()
            raise
        return connection

    def _open_for_writing(self) -> None:
        """Make the file, or find out that it is closed to us: SQLite would open it for reading.

        A file that exists is not opened here. Closing any descriptor of it would drop the locks
        that another thread of this process holds on it through SQLite.
        """
        try:
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666))
        except FileExistsError:
            if not is_writable(self.path):
                denied = PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self.path))
                raise errors.unreadable(self.what, denied) from None
        except PermissionError as error:
            raise errors.unreadable(self.what, error) from error
        except OSError:
            return  # for SQLite to say

    def _connect_read_only(self) -> _Connection:
        """Connect without making the side files: they would belong to a reader, and the owner of
        the database could then be unable to write to them.
        """
        uri = self.path.absolute().as_uri() + "?mode=ro"
        log, shared = self.side_files
        if self._wal and log.exists() and shared.exists():
            connection = _connect(f"{uri}&readonly_shm=1", uri=True)
            try:
                connection.execute("SELECT 1 FROM sqlite_master").fetchone()
                return connection
            except sqlite3.OperationalError:
                connection.close()
                if log.exists() and log.stat().st_size:
                    raise
        elif log.exists() and log.stat().st_size:  # left by a kill, and not without it
            return _connect(uri, uri=True)
        # If the log is empty, the database file alone is complete, as long as it stays as it is.
        stamp = self._stamp()
        connection = _connect(f"{uri}&immutable=1", uri=True)
        connection.stamp = stamp
        return connection

    def close(self) -> None:
        """Close the connections of all threads; the next use opens new ones."""
        _close_all(self._opened)
        self._opened.clear()
        self._local = threading.local()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Run the only write transaction: commit at the end, roll back on any exception."""

        def begin() -> sqlite3.Connection:
            connection = self.connection()
            connection.execute("BEGIN IMMEDIATE")
            return connection

        with self.errors():
            connection = self._patiently(begin)
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise
