"""Checking a space byte by byte, and mending it: what is bad is dropped, so that it is missing.

Repair never invents a row. It drops damaged shards, adopts sound ones that a kill left
unregistered, and rebuilds the index from the shards, which know their own rows.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from headstart.errors import StoreError
from headstart.progress import Reporter
from headstart.store.durable import fsync_folder
from headstart.store.folder import check_description
from headstart.store.index import Index, ShardEntry
from headstart.store.layout import SHARD_SUFFIX, Layout, is_hex32
from headstart.store.locks import try_lock
from headstart.store.shard import Shard, open_shard

Kind = Literal["description", "index", "shard", "orphan", "foreign"]
_OURS = {"space.json", "index.sqlite", "index.sqlite-wal", "index.sqlite-shm", "lock"}
_OUR_FOLDERS = {"shards", "tmp", "claims"}


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong.

    Attributes:
        key: the space.
        kind: what it concerns. ``orphan`` is a shard that a kill left unregistered; ``foreign``
            is a file that is not the store's, which is neither used nor touched.
        path: the file.
        what: what is wrong with it.
        repaired: whether it was mended.
        rows: rows that must be computed again for it.
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
        """Whether all is sound, or was mended. Foreign files do not count: nothing reads them."""
        return all(fault.repaired or fault.kind == "foreign" for fault in self.faults)


def verify_space(layout: Layout, *, repair: bool, reporter: Reporter) -> VerifyReport:
    """Read every byte of a space and compare it with its digests and its index.

    Args:
        layout: the space.
        repair: mend what can be mended.
        reporter: shown one step a shard.
    """
    faults = list(_foreign(layout))
    description_fault = _verify_description(layout, repair)
    if description_fault is not None:
        faults.append(description_fault)
    index, index_faults = _sound_index(layout, repair)
    faults += index_faults
    lease = try_lock(layout.lock, exclusive=False) if layout.folder.exists() else None
    if index is None or lease is None:
        return VerifyReport(1, 0, 0, 0, tuple(faults))
    checked = rows = nbytes = 0
    entries = index.shard_entries()
    with reporter.task(f"verify {layout.key[:8]}", len(entries), "shards") as task:
        for entry in entries.values():
            if entry.present or layout.shard(entry.name).exists():
                fault = _verify_shard(layout, index, entry, repair)
                faults += [fault] if fault is not None else []
                checked, rows, nbytes = checked + 1, rows + entry.rows, nbytes + entry.bytes
            task.advance()
    faults += _stray_rows(layout, index, repair)
    faults += _orphans(layout, index, repair)
    index.close()
    lease.release()
    return VerifyReport(1, checked, rows, nbytes, tuple(faults))


def _foreign(layout: Layout) -> Iterator[Fault]:
    for path in sorted(layout.folder.iterdir()):
        known = path.name in (_OUR_FOLDERS if path.is_dir() else _OURS)
        if not known or path.is_symlink():
            yield Fault(layout.key, "foreign", path, "is not a file of the store")
    for path in sorted(layout.shards.iterdir()) if layout.shards.is_dir() else []:
        if path.suffix != SHARD_SUFFIX or not is_hex32(path.stem) or not path.is_file():
            yield Fault(layout.key, "foreign", path, "is not a file of the store")


def _verify_description(layout: Layout, repair: bool) -> Fault | None:
    try:
        check_description(layout)
    except StoreError as error:
        what = f"{error.message}; the next run that uses the space writes it again"
        if repair:
            layout.description.unlink(missing_ok=True)
        return Fault(layout.key, "description", layout.description, what, repaired=repair)
    return None


def _sound_index(layout: Layout, repair: bool) -> tuple[Index | None, list[Fault]]:
    index = Index(layout.index, read_only=not repair)
    try:
        if not layout.index.exists():
            raise StoreError("the index is missing")
        index.check(layout.key)
        found = index.integrity_faults()
        index.shard_entries()
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
        what += "; it cannot be rebuilt while a process uses the space: end it and repair again"
        return None, [Fault(layout.key, "index", layout.index, what)]
    try:
        rebuilt, lost = rebuild_index(layout)
    finally:
        lock.release()
    fault = Fault(layout.key, "index", layout.index, f"{what}; rebuilt", repaired=True)
    return rebuilt, [fault, *lost]


def rebuild_index(layout: Layout) -> tuple[Index, list[Fault]]:
    """Make the index anew from the shards. The caller holds the space exclusively."""
    for suffix in ("", "-wal", "-shm"):
        layout.index.with_name(layout.index.name + suffix).unlink(missing_ok=True)
    layout.shards.mkdir(exist_ok=True)
    index = Index(layout.index)
    index.create(layout.key)
    # Older shards first, so that again the first publication of a row wins.
    faults = [
        fault
        for path in sorted(_shard_files(layout), key=lambda p: (p.stat().st_mtime_ns, p.name))
        if (fault := _adopt(layout, index, path)) is not None
    ]
    fsync_folder(layout.folder)
    return index, [fault for fault in faults if fault.what != _ADOPTED]


def _verify_shard(layout: Layout, index: Index, entry: ShardEntry, repair: bool) -> Fault | None:
    path = layout.shard(entry.name)
    try:
        shard = open_shard(path, layout.key, trust_earlier=False)
    except StoreError as error:
        fault = Fault(layout.key, "shard", path, error.message, rows=_live_rows(index, entry))
        if repair:
            _drop(layout, index, entry, path)
        return replace(fault, repaired=repair)
    if _index_agrees(index, entry, shard):
        return None
    if repair:
        with index.transaction() as connection:
            _forget(connection, entry)
            index.register(connection, _entry_of(shard), shard.ids, shard.header.view)
    what = f"the index names other rows in shard {path.name} than it holds"
    return Fault(layout.key, "index", layout.index, what, repaired=repair)


def _index_agrees(index: Index, entry: ShardEntry, shard: Shard) -> bool:
    header = shard.header
    if (header.rows, header.columns) != (entry.rows, entry.columns):
        return False
    if shard.path.stat().st_size != entry.bytes:
        return False
    found = index.locate(shard.ids, header.view)
    here = found.shard == entry.number
    right = found.position[here] == np.flatnonzero(here)
    # A row may live in another shard (another process was first), but it must live somewhere.
    return bool((found.shard >= 0).all() and right.all() and here.sum() == _live_rows(index, entry))


def _live_rows(index: Index, entry: ShardEntry) -> int:
    with index.database.errors():
        query = "SELECT count(*) FROM rows WHERE shard = ?"
        found = index.database.connection().execute(query, (entry.number,)).fetchone()
    return int(found[0])


def _stray_rows(layout: Layout, index: Index, repair: bool) -> list[Fault]:
    unknown = "FROM rows WHERE shard NOT IN (SELECT number FROM shards)"
    with index.database.errors():
        count = index.database.connection().execute(f"SELECT count(*) {unknown}").fetchone()[0]
    if not count:
        return []
    if repair:
        with index.transaction() as connection:
            connection.execute(f"DELETE {unknown}")
    what = f"the index names {count:,} rows in shards that it does not know"
    return [Fault(layout.key, "index", layout.index, what, repaired=repair)]


def _orphans(layout: Layout, index: Index, repair: bool) -> list[Fault]:
    if index.database.read_only:
        known = {entry.name for entry in index.shard_entries().values()}
        files = _shard_files(layout)
    else:
        # Writers rename and register in one transaction; inside one of ours there is no between.
        with index.transaction():
            known = {entry.name for entry in index.shard_entries().values()}
            files = _shard_files(layout)
    faults = []
    for path in (path for path in files if path.stem not in known):
        what = "is a shard that no commit registered"
        fault: Fault | None = Fault(layout.key, "orphan", path, what)
        if repair:
            fault = _adopt(layout, index, path)
        faults += [fault] if fault is not None else []
    return faults


_ADOPTED = "was a sound shard that no commit registered; adopted"


def _adopt(layout: Layout, index: Index, path: Path) -> Fault | None:
    try:
        shard = open_shard(path, layout.key, trust_earlier=False)
    except StoreError as error:
        path.unlink(missing_ok=True)
        return Fault(layout.key, "shard", path, f"{error.message}; removed", repaired=True)
    with index.transaction() as connection:
        new = index.register(connection, _entry_of(shard), shard.ids, shard.header.view)
        if not new:
            connection.execute("DELETE FROM shards WHERE name = ?", (path.stem,))
            path.unlink(missing_ok=True)
    what = _ADOPTED if new else "held only rows that are in other shards; removed"
    return Fault(layout.key, "orphan", path, what, repaired=True)


def _drop(layout: Layout, index: Index, entry: ShardEntry, path: Path) -> None:
    with index.transaction() as connection:
        _forget(connection, entry)
        if path.is_dir() and not path.is_symlink():
            return  # not ours to remove; the index no longer names it
        path.unlink(missing_ok=True)
        fsync_folder(layout.shards)


def _forget(connection: sqlite3.Connection, entry: ShardEntry) -> None:
    connection.execute("DELETE FROM rows WHERE shard = ?", (entry.number,))
    connection.execute("DELETE FROM shards WHERE number = ?", (entry.number,))


def _entry_of(shard: Shard) -> ShardEntry:
    header, stat = shard.header, shard.path.stat()
    return ShardEntry(
        0, shard.path.stem, header.rows, stat.st_size, header.columns, time.time(), True
    )


def _shard_files(layout: Layout) -> list[Path]:
    files = sorted(layout.shards.glob(f"*{SHARD_SUFFIX}")) if layout.shards.is_dir() else []
    return [path for path in files if is_hex32(path.stem) and path.is_file()]
