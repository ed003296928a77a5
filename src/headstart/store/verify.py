"""Verifying a space byte by byte: what is damaged, what cannot be read, what does not belong.

Looking changes nothing and takes no part in the commits of a fill that runs beside it. What is
found is then mended by :mod:`headstart.store.repair`, if that is wanted.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from headstart.core.errors import StoreError
from headstart.core.files import reason_of
from headstart.core.locks import FileLock, try_lock
from headstart.core.progress import Reporter
from headstart.store.database import Database
from headstart.store.errors import NewerFormatError, UnreadableError, obstacle
from headstart.store.folder import check_description
from headstart.store.index import Index, ShardEntry
from headstart.store.layout import SHARD_SUFFIX, Layout, is_hex32
from headstart.store.shard import Shard, open_shard

Kind = Literal[
    "description",
    "index",
    "shard",
    "orphan",
    "result",
    "memo",
    "folder",
    "foreign",
    "unreadable",
    "newer",
]
_INDEX_FILES = {"index.sqlite", "index.sqlite-wal", "index.sqlite-shm", "index.sqlite-journal"}
_OURS = {"space.json", "lock", *_INDEX_FILES}
_OUR_FOLDERS = {"shards", "tmp", "claims"}
HARMLESS: tuple[Kind, ...] = ("foreign",)
_UNCHECKED: tuple[Kind, ...] = ("unreadable", "newer")


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong.

    Attributes:
        key: the space; empty for what is beside the spaces.
        kind: what is affected. ``orphan`` is what a killed writer left; ``folder`` is
            something else in the place of one of our files or folders; ``foreign`` is a file that
            does not belong to the store and is neither used nor touched; ``unreadable`` and
            ``newer`` could not be checked (permission, open files, an I/O error, a later format),
            may well be sound, and are never touched.
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
    """What was checked and what was found.

    ``kept`` counts what was checked beside the spaces: small results, and remembered files.
    """

    spaces: int
    shards: int
    rows: int
    nbytes: int
    faults: tuple[Fault, ...]
    kept: int = 0

    @property
    def ok(self) -> bool:
        """Whether everything is sound or repaired. Foreign files, which nothing reads, are fine."""
        return not self.damaged and not self.unchecked

    @property
    def damaged(self) -> tuple[Fault, ...]:
        """What is damaged and was not repaired."""
        harmless = (*HARMLESS, *_UNCHECKED)
        return tuple(f for f in self.faults if not f.repaired and f.kind not in harmless)

    @property
    def unchecked(self) -> tuple[Fault, ...]:
        """What could not be checked, and may be sound."""
        return tuple(f for f in self.faults if f.kind in _UNCHECKED)


@dataclass
class Findings:
    """What a look at one space found.

    Attributes:
        faults: what is wrong.
        shards: the entries of the shards that were read.
        index_broken: whether the index cannot be used at all and has to be built anew.
    """

    faults: list[Fault] = field(default_factory=list)
    shards: list[ShardEntry] = field(default_factory=list)
    index_broken: bool = False

    def has(self, *kinds: Kind) -> bool:
        """Whether a fault of one of these kinds was found."""
        return any(fault.kind in kinds for fault in self.faults)


def look(layout: Layout, reporter: Reporter) -> Findings:
    """Look at a space without changing anything, not even its lock file."""
    found = Findings()
    lease: FileLock | None = None
    try:
        found.faults += [*_obstacles(layout), *_foreign(layout)]
        if not found.has("folder"):  # or else first clear the place
            with contextlib.suppress(FileNotFoundError):  # copied without it: nobody uses it
                lease = try_lock(layout.lock, exclusive=False, create=False)
            _look_inside(layout, found, reporter)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not layout.folder.exists():
            return Findings()  # gc has just removed it
        found.faults.append(_unreadable(layout, Path(error.filename or layout.folder), error))
    finally:
        if lease is not None:
            lease.release()
    return found


def shard_files(layout: Layout) -> list[Path]:
    """Return what is in the place of shards, registered or not.

    Raises:
        OSError: the folder cannot be read.
    """
    if not layout.shards.is_dir():
        return []
    return [path for path in sorted(layout.shards.iterdir()) if _is_shard_name(path)]


def _is_shard_name(path: Path) -> bool:
    return path.suffix == SHARD_SUFFIX and is_hex32(path.stem)


# -- the folder ----------------------------------------------------------------------------------


def _obstacles(layout: Layout) -> Iterator[Fault]:
    """Find what is in the place of our files and folders."""
    files = [layout.folder / name for name in sorted(_OURS)]
    folders = [layout.folder / name for name in sorted(_OUR_FOLDERS)]
    for path, folder in [*((p, False) for p in files), *((p, True) for p in folders)]:
        try:
            found = obstacle(path, folder=folder)
        except OSError as error:
            yield _unreadable(layout, path, error)
            continue
        if found is not None:
            yield Fault(layout.key, "folder", path, f"{found} is in the place of {path.name}")


def _foreign(layout: Layout) -> Iterator[Fault]:
    ours = _OURS | _OUR_FOLDERS
    strangers = [path for path in sorted(layout.folder.iterdir()) if path.name not in ours]
    if layout.shards.is_dir():
        strangers += [path for path in sorted(layout.shards.iterdir()) if not _is_shard_name(path)]
    for path in strangers:
        yield Fault(layout.key, "foreign", path, "does not belong to the store")


def _look_inside(layout: Layout, found: Findings, reporter: Reporter) -> None:
    there = layout.index.exists()
    if not shard_files(layout) and not (there and _has_tables(layout)):
        return  # nothing was ever committed
    try:
        check_description(layout)
    except StoreError as error:
        what = "; the next run that uses the space rewrites it"
        found.faults.append(_fault(layout, "description", layout.description, error, what))
    if found.has("newer"):
        return  # nothing else here means what we think it means
    index = Index(layout.index, read_only=True)
    try:
        _check_index(layout, index, there)
    except StoreError as error:
        fault = _fault(layout, "index", layout.index, error)
        found.index_broken = fault.kind == "index"
        if not any(each.path == fault.path for each in found.faults):
            found.faults.append(fault)
        index.close()
        return
    try:
        _look_at_shards(layout, index, found, reporter)
        found.faults += _stray_rows(layout, index)
        found.faults += _unregistered(layout, index)
    except StoreError as error:
        found.faults.append(_fault(layout, "index", layout.index, error))
    finally:
        index.close()


def _has_tables(layout: Layout) -> bool:
    """Whether the index is more than a file that a process is about to fill."""
    database = Database(layout.index, read_only=True)
    try:
        return bool(database.query("SELECT 1 FROM sqlite_master LIMIT 1"))
    except StoreError:
        return True  # for the check to say what is wrong
    finally:
        database.close()


def _check_index(layout: Layout, index: Index, there: bool) -> None:
    if not there:
        raise StoreError("the index is missing")
    index.check(layout.key)
    index.totals()
    complaints = index.integrity_faults()
    if complaints:
        raise index.database.damaged(complaints[0])


# -- shards and rows -----------------------------------------------------------------------------


def _look_at_shards(layout: Layout, index: Index, found: Findings, reporter: Reporter) -> None:
    entries = list(index.shard_entries().values())
    with reporter.task(f"verify {layout.key[:8]}", len(entries), "shards") as task:
        for entry in entries:
            if entry.present or layout.shard(entry.name).exists():
                fault = _shard_fault(layout, index, entry)
                # What another process has merged or repaired in the meantime is no fault.
                if fault is None or entry.number in index.shard_entries([entry.number]):
                    found.shards.append(entry)
                    found.faults += [] if fault is None else [fault]
            task.advance()


def _shard_fault(layout: Layout, index: Index, entry: ShardEntry) -> Fault | None:
    path = layout.shard(entry.name)
    try:
        shard = open_shard(path, layout.key, trust_earlier=False)
    except StoreError as error:
        return _fault(layout, "shard", path, error, rows=_live_rows(index, entry))
    try:
        agrees = _index_agrees(index, entry, shard)
    except UnreadableError:
        raise
    except StoreError:
        agrees = False  # it holds values that are not places at all
    if agrees:
        return None
    what = f"the index names other rows in shard {path.name} than the shard holds"
    return Fault(layout.key, "index", layout.index, what)


def _index_agrees(index: Index, entry: ShardEntry, shard: Shard) -> bool:
    header = shard.header
    if (header.rows, header.columns) != (entry.rows, entry.columns):
        return False
    try:
        if shard.path.stat().st_size != entry.bytes:
            return False
    except FileNotFoundError:
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


def _unregistered(layout: Layout, index: Index) -> Iterator[Fault]:
    files, known = shard_files(layout), index.known_names()
    for path in files:
        # A writer renames a shard before it commits, and holds its lock until it has.
        if path.stem in known or being_written(path):
            continue
        if path.stem not in index.known_names() and path.exists():
            yield Fault(layout.key, "orphan", path, "is a shard that was never registered")


def being_written(path: Path) -> bool:
    """Return whether a live writer holds a shard, which it registers next."""
    try:
        lock = try_lock(path, exclusive=False, create=False)
    except OSError:
        return False
    if lock is not None:
        lock.release()
    return lock is None


# -- faults --------------------------------------------------------------------------------------


def _fault(
    layout: Layout, kind: Kind, path: Path, error: StoreError, more: str = "", rows: int = 0
) -> Fault:
    """Return the fault for an error: damage, or something that could not be looked at."""
    if isinstance(error, NewerFormatError):
        return Fault(layout.key, "newer", path, error.message)
    if isinstance(error, UnreadableError):
        return Fault(layout.key, "unreadable", path, error.message)
    return Fault(layout.key, kind, path, error.message + more, rows=rows)


def _unreadable(layout: Layout, path: Path, error: OSError) -> Fault:
    what = f"cannot be read: {reason_of(error)[0]}"
    return Fault(layout.key, "unreadable", path, what)
