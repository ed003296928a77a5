"""Verifying a space byte by byte and repairing it: damaged rows are dropped and become missing.

A repair never invents a row. It drops damaged shards, adopts sound ones that a kill left
unregistered, and rebuilds the index from the shards, which record their own rows.
"""

from __future__ import annotations

import contextlib
import secrets
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from headstart.core.errors import StoreError
from headstart.core.files import sync_folder
from headstart.core.locks import try_lock
from headstart.core.progress import Reporter
from headstart.store.folder import check_description
from headstart.store.index import Index, ShardEntry
from headstart.store.layout import SHARD_SUFFIX, Layout, is_hex32
from headstart.store.shard import Shard, open_shard

Kind = Literal["description", "index", "shard", "orphan", "foreign"]
_OURS = {"space.json", "index.sqlite", "index.sqlite-wal", "index.sqlite-shm", "lock"}
_OUR_FOLDERS = {"shards", "tmp", "claims"}


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong.

    Attributes:
        key: the space.
        kind: what is affected. ``orphan`` is a shard that a kill left unregistered; ``foreign`` is
            a file that does not belong to the store and is neither used nor touched.
        path: the file.
        what: what is wrong with it.
        repaired: whether it was repaired.
        rows: how many rows have to be computed again.
    """

    key: str
    kind: Kind
    path: Path
    what: str
    repaired: bool = False
    rows: int = 0

    def __str__(self) -> str:
        lost = f", {self.rows:,} rows to compute again" if self.rows else ""
        return f"{self.path}: {self.what}{' (repaired)' if self.repaired else ''}{lost}"


@dataclass(frozen=True)
class VerifyReport:
    """What was checked and what was found."""

    spaces: int
    shards: int
    rows: int
    nbytes: int
    faults: tuple[Fault, ...]

    @property
    def ok(self) -> bool:
        """Whether everything is sound or repaired. Foreign files, which nothing reads, are fine."""
        return all(fault.repaired or fault.kind == "foreign" for fault in self.faults)


def verify_space(layout: Layout, *, repair: bool, reporter: Reporter) -> VerifyReport:
    """Read every byte of a space and compare it with its digests and its index.

    Args:
        layout: the space.
        repair: repair what can be repaired.
        reporter: receives one step per shard.
    """
    faults = list(_foreign(layout))
    faults += _verify_description(layout, repair)
    index, index_faults = _sound_index(layout, repair)
    faults += index_faults
    lease = try_lock(layout.lock, exclusive=False) if layout.folder.exists() else None
    if index is None or lease is None:
        return VerifyReport(1, 0, 0, 0, tuple(faults))
    shards, shard_faults = _verify_shards(layout, index, repair, reporter)
    faults += shard_faults
    faults += _stray_rows(layout, index)
    faults += _orphans(layout, index)
    if repair and any(fault.kind in ("index", "orphan") and not fault.repaired for fault in faults):
        faults = [replace(f, repaired=f.repaired or f.kind in ("index", "orphan")) for f in faults]
        faults += _rebuild_rows(layout, index)
    index.close()
    lease.release()
    rows, nbytes = sum(entry.rows for entry in shards), sum(entry.bytes for entry in shards)
    return VerifyReport(1, len(shards), rows, nbytes, tuple(faults))


def _foreign(layout: Layout) -> Iterator[Fault]:
    for path in sorted(layout.folder.iterdir()):
        known = path.name in (_OUR_FOLDERS if path.is_dir() else _OURS)
        if not known or path.is_symlink():
            yield Fault(layout.key, "foreign", path, "does not belong to the store")
    for path in sorted(layout.shards.iterdir()) if layout.shards.is_dir() else []:
        if path.suffix != SHARD_SUFFIX or not is_hex32(path.stem) or not path.is_file():
            yield Fault(layout.key, "foreign", path, "does not belong to the store")


def _verify_description(layout: Layout, repair: bool) -> Iterator[Fault]:
    try:
        check_description(layout)
    except StoreError as error:
        what = f"{error.message}; the next run that uses the space rewrites it"
        if repair:
            layout.description.unlink(missing_ok=True)
        yield Fault(layout.key, "description", layout.description, what, repaired=repair)


def _sound_index(layout: Layout, repair: bool) -> tuple[Index | None, list[Fault]]:
    """Return an index that SQLite can work with, rebuilt if necessary and allowed."""
    index = Index(layout.index, read_only=not repair)
    try:
        if not layout.index.exists():
            raise StoreError("the index is missing")
        index.check(layout.key)
        index.totals()
        found = index.integrity_faults()
        if found:
            raise StoreError(f"the index is damaged: {found[0]}")
        return index, []
    except StoreError as error:
        index.close()
        what = error.message
    if not repair:
        return None, [Fault(layout.key, "index", layout.index, what)]
    lock = try_lock(layout.lock, exclusive=True)
    if lock is None:
        what += "; it can be rebuilt only when no process uses the space: end them and repair again"
        return None, [Fault(layout.key, "index", layout.index, what)]
    try:
        for suffix in ("", "-wal", "-shm"):
            layout.index.with_name(layout.index.name + suffix).unlink(missing_ok=True)
        layout.shards.mkdir(exist_ok=True)
        index = Index(layout.index)
        index.create(layout.key)
        sync_folder(layout.folder)
        lost = _rebuild_rows(layout, index)
    finally:
        lock.release()
    fault = Fault(layout.key, "index", layout.index, f"{what}; rebuilt", repaired=True)
    return index, [fault, *lost]


def _verify_shards(
    layout: Layout, index: Index, repair: bool, reporter: Reporter
) -> tuple[list[ShardEntry], list[Fault]]:
    try:
        entries = list(index.shard_entries().values())
    except StoreError as error:
        return [], [Fault(layout.key, "index", layout.index, error.message)]
    checked: list[ShardEntry] = []
    faults: list[Fault] = []
    with reporter.task(f"verify {layout.key[:8]}", len(entries), "shards") as task:
        for entry in entries:
            if entry.present or layout.shard(entry.name).exists():
                checked.append(entry)
                faults += _verify_shard(layout, index, entry, repair)
            task.advance()
    return checked, faults


def _verify_shard(layout: Layout, index: Index, entry: ShardEntry, repair: bool) -> Iterator[Fault]:
    path = layout.shard(entry.name)
    try:
        shard = open_shard(path, layout.key, trust_earlier=False)
    except StoreError as error:
        rows = _live_rows(index, entry)
        if repair:
            _drop(layout, index, entry, path)
        yield Fault(layout.key, "shard", path, error.message, repaired=repair, rows=rows)
        return
    try:
        agrees = _index_agrees(index, entry, shard)
    except StoreError:
        agrees = False  # it holds values that are not places at all
    if not agrees:
        what = f"the index names other rows in shard {path.name} than the shard holds"
        yield Fault(layout.key, "index", layout.index, what)


def _index_agrees(index: Index, entry: ShardEntry, shard: Shard) -> bool:
    header = shard.header
    if (header.rows, header.columns) != (entry.rows, entry.columns):
        return False
    if shard.path.stat().st_size != entry.bytes:
        return False
    found = index.locate(shard.ids, header.view)
    here = found.shard == entry.number
    right = found.position[here] == np.flatnonzero(here)
    # A row may be in another shard (another process was first), but it must be in one.
    return bool((found.shard >= 0).all() and right.all() and here.sum() == _live_rows(index, entry))


def _live_rows(index: Index, entry: ShardEntry) -> int:
    query = "SELECT count(*) FROM rows WHERE shard = ?"
    ((count,),) = index.database.query(query, entry.number)
    return int(count)


def _stray_rows(layout: Layout, index: Index) -> Iterator[Fault]:
    query = "SELECT count(*) FROM rows WHERE shard NOT IN (SELECT number FROM shards)"
    ((count,),) = index.database.query(query)
    if count:
        what = f"the index names {count:,} rows in unknown shards"
        yield Fault(layout.key, "index", layout.index, what)


def _orphans(layout: Layout, index: Index) -> Iterator[Fault]:
    # Writers rename and register in one transaction, so inside ours neither is half done.
    reading = contextlib.nullcontext() if index.database.read_only else index.transaction()
    with reading:
        known = {name for (name,) in index.database.query("SELECT name FROM shards")}
        files = _shard_files(layout)
    for path in files:
        if path.stem not in known:
            yield Fault(layout.key, "orphan", path, "is a shard that was never registered")


def _rebuild_rows(layout: Layout, index: Index) -> list[Fault]:
    """Rebuild the tables from the shards, which record their own rows."""
    faults: list[Fault] = []
    with index.transaction() as connection:
        # In the order of their commits, so that the first publication of a row wins again; shards
        # that were never committed come last, by age.
        commits = dict(connection.execute("SELECT name, number FROM shards").fetchall())
        _follow_again(connection)
        connection.execute("DELETE FROM rows")
        connection.execute("DELETE FROM shards")
        files = [(commits.get(p.stem), p.stat().st_mtime_ns, p) for p in _shard_files(layout)]
        for _, _, path in sorted(files, key=lambda f: (f[0] is None, f)):
            try:
                shard = open_shard(path, layout.key)
            except StoreError as error:
                path.unlink(missing_ok=True)
                what = f"{error.message}; removed"
                faults.append(Fault(layout.key, "shard", path, what, repaired=True))
                continue
            entry = _entry_of(shard)
            if not index.register(connection, entry, shard.ids, shard.header.view):
                connection.execute("DELETE FROM shards WHERE name = ?", (entry.name,))
                path.unlink(missing_ok=True)
    return faults


def _drop(layout: Layout, index: Index, entry: ShardEntry, path: Path) -> None:
    with index.transaction() as connection:
        _follow_again(connection)
        connection.execute("DELETE FROM rows WHERE shard = ?", (entry.number,))
        connection.execute("DELETE FROM shards WHERE number = ?", (entry.number,))
        if path.is_dir() and not path.is_symlink():
            # Not ours to delete, but in the way when the shard's rows are computed again.
            path.rename(path.with_name(f"{path.name}.aside-{secrets.token_hex(4)}"))
        path.unlink(missing_ok=True)
        sync_folder(layout.shards)


def _follow_again(connection: sqlite3.Connection) -> None:
    # A mirror may still find on the remote side what was dropped here.
    connection.execute("DELETE FROM meta WHERE name = 'log'")


def _entry_of(shard: Shard) -> ShardEntry:
    header, stat = shard.header, shard.path.stat()
    return ShardEntry(
        0, shard.path.stem, header.rows, stat.st_size, header.columns, time.time(), True
    )


def _shard_files(layout: Layout) -> list[Path]:
    files = sorted(layout.shards.glob(f"*{SHARD_SUFFIX}")) if layout.shards.is_dir() else []
    return [path for path in files if is_hex32(path.stem) and path.is_file()]
