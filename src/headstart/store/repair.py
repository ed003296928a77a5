"""Verifying and repairing a space: what fails its digest is dropped, what is sound is kept.

A repair never invents a row, and never removes what may be sound: a file that cannot be read now,
or that a newer edition wrote, stays where it is; a folder, a link or a sound shard of another space
in the place of one of our files is renamed, not removed.
"""

from __future__ import annotations

import sqlite3
import time
from dataclasses import replace
from pathlib import Path

from headstart.core.errors import StoreError
from headstart.core.files import reason_of, set_aside, sync_folder
from headstart.core.locks import try_lock
from headstart.core.progress import Reporter, SilentReporter
from headstart.store.errors import DamagedError, UnreadableError
from headstart.store.index import Index, ShardEntry
from headstart.store.layout import Layout
from headstart.store.shard import Shard, open_shard
from headstart.store.verify import HARMLESS, Fault, Findings, VerifyReport, look, shard_files

_IN_USE = "it can be rebuilt only when no process uses the space: end them and repair again"


def verify_space(layout: Layout, *, repair: bool, reporter: Reporter) -> VerifyReport:
    """Read every byte of a space and compare it with its digests and its index.

    Args:
        layout: the space.
        repair: repair what can be repaired.
        reporter: receives one step per shard.
    """
    found = look(layout, reporter)
    cleared: list[Fault] = []
    if repair and found.has("folder"):
        cleared = _clear_places(layout, found)
        found = look(layout, reporter)
        found.faults = [f for f in found.faults if f.kind not in ("folder", *HARMLESS)]
    faults = cleared + found.faults
    if repair and found.has("description", "index", "shard", "orphan"):
        faults = cleared + _repair(layout, found)
        if found.index_broken:
            found.shards = look(layout, SilentReporter()).shards  # what the new index holds
    rows, nbytes = (sum(getattr(e, name) for e in found.shards) for name in ("rows", "bytes"))
    return VerifyReport(1, len(found.shards), rows, nbytes, tuple(faults))


def _repair(layout: Layout, found: Findings) -> list[Fault]:
    """Repair what was found, and return the faults with what became of them."""
    faults = [_without_description(layout, fault) for fault in found.faults]
    try:
        if found.index_broken and not _rebuild_index(layout):
            return [_unless_shards(fault, _IN_USE) for fault in faults]
        if found.index_broken or found.has("index", "shard", "orphan"):
            lost = _rebuild_rows(layout)
            faults = [_with_rows(fault, lost) for fault in faults]
    except OSError as error:
        return [_unless_shards(fault, reason_of(error)[0]) for fault in faults]
    except StoreError as error:
        return [_unless_shards(fault, error.message) for fault in faults]
    return faults


def _clear_places(layout: Layout, found: Findings) -> list[Fault]:
    """Rename what is in the place of our files and folders; return the faults found so far."""
    return [_renamed(layout, f) if f.kind == "folder" else f for f in found.faults]


def _renamed(layout: Layout, fault: Fault) -> Fault:
    try:
        aside = set_aside(fault.path)
        sync_folder(layout.folder)
    except OSError as error:
        return replace(fault, what=f"{fault.what}, and stays: {reason_of(error)[0]}")
    return replace(fault, what=f"{fault.what}; renamed to {aside.name}", repaired=True)


def _without_description(layout: Layout, fault: Fault) -> Fault:
    if fault.kind != "description":
        return fault
    try:
        fault.path.unlink(missing_ok=True)
        sync_folder(layout.folder)
    except OSError as error:
        return replace(fault, what=f"{fault.what}, and stays: {reason_of(error)[0]}")
    return replace(fault, repaired=True)


def _unless_shards(fault: Fault, why: str) -> Fault:
    """Say why a fault of index or shards stays."""
    if fault.repaired or fault.kind not in ("index", "shard", "orphan"):
        return fault
    return replace(fault, what=f"{fault.what}; {why}")


def _with_rows(fault: Fault, removed: dict[Path, str]) -> Fault:
    if fault.kind not in ("index", "shard", "orphan"):
        return fault
    become = removed.get(fault.path, "")
    return replace(fault, what=fault.what + become, repaired=True)


def _rebuild_index(layout: Layout) -> bool:
    """Replace an index that SQLite cannot work with by an empty one; False if it is in use."""
    lock = try_lock(layout.lock, exclusive=True)
    if lock is None:
        return False
    try:
        index = Index(layout.index)
        for path in (layout.index, *index.database.side_files):
            path.unlink(missing_ok=True)
        index.create(layout.key)
        index.close()
        sync_folder(layout.folder)
    finally:
        lock.release()
    return True


def _rebuild_rows(layout: Layout) -> dict[Path, str]:
    """Rebuild the tables from the shards, which record their own rows.

    Returns:
        What was removed or set aside, with what was done.
    """
    index = Index(layout.index)
    done: dict[Path, str] = {}
    layout.shards.mkdir(exist_ok=True)
    try:
        with index.transaction() as connection:
            known = dict(connection.execute("SELECT name, number FROM shards").fetchall())
            # In the order of their commits, so that the first publication of a row wins again;
            # shards that were never committed come last, by age.
            files = sorted(
                shard_files(layout),
                key=lambda p: (p.stem not in known, known.get(p.stem, 0), p.lstat().st_mtime_ns),
            )
            sound, kept = _sound_shards(layout, files, done)
            index.keep_numbers(connection)
            _forget_all_but(connection, [known[p.stem] for p in kept if p.stem in known])
            for shard in sound:
                entry = _entry_of(shard)
                if not index.register(connection, entry, shard.ids, shard.header.view):
                    connection.execute("DELETE FROM shards WHERE name = ?", (entry.name,))
                    shard.path.unlink(missing_ok=True)
                    done[shard.path] = "; its rows are in other shards"
            sync_folder(layout.shards)
    finally:
        index.close()
    return done


def _sound_shards(
    layout: Layout, files: list[Path], done: dict[Path, str]
) -> tuple[list[Shard], list[Path]]:
    """Open the shards; remove damaged ones; return the sound ones, and those not to be touched."""
    sound: list[Shard] = []
    kept: list[Path] = []
    for path in files:
        try:
            sound.append(open_shard(path, layout.key))
        except UnreadableError:
            kept.append(path)
        except StoreError as error:
            intact = not isinstance(error, DamagedError) or error.intact
            if intact or path.is_symlink() or not path.is_file():
                done[path] = f"; renamed to {set_aside(path).name}"
            else:
                path.unlink(missing_ok=True)
                done[path] = "; removed"
    return sound, kept


def _forget_all_but(connection: sqlite3.Connection, kept: list[int]) -> None:
    # A mirror may still find on the remote side what is dropped here.
    connection.execute("DELETE FROM meta WHERE name = 'log' OR name LIKE 'retired:%'")
    connection.execute("CREATE TEMP TABLE IF NOT EXISTS kept (number INTEGER PRIMARY KEY)")
    connection.execute("DELETE FROM kept")
    connection.executemany("INSERT OR IGNORE INTO kept VALUES (?)", ((n,) for n in kept))
    connection.execute("DELETE FROM rows WHERE shard NOT IN (SELECT number FROM kept)")
    connection.execute("DELETE FROM shards WHERE number NOT IN (SELECT number FROM kept)")


def _entry_of(shard: Shard) -> ShardEntry:
    header, stat = shard.header, shard.path.stat()
    return ShardEntry(
        0, shard.path.stem, header.rows, stat.st_size, header.columns, time.time(), True
    )
