"""The contents of a store: spaces with size, age and faults; similar spaces; removing spaces."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.core.errors import StoreError
from headstart.core.files import clear_errors, last_used, reason_of
from headstart.core.locks import try_lock
from headstart.store.columns import ColumnSpec
from headstart.store.describe import Difference, differences
from headstart.store.folder import SpaceFolder, check_description
from headstart.store.kept import Leftover, is_abandoned, kept_files
from headstart.store.layout import RESULTS, Layout, is_hex32

_TRASH = ".trash-"
_SAMPLE = 64


@dataclass(frozen=True)
class SpaceInfo:
    """One space on disk.

    Attributes:
        key: 32 hexadecimal characters, the name of its folder.
        description: what the rows were computed with; empty if it cannot be read.
        rows, shards: how many are committed.
        nbytes: bytes on disk, including the index.
        columns: name, type, row shape, encoding; the errors are the largest of all shards.
        last_used: when it was last opened, in seconds since the epoch.
        in_use: whether a running process uses it.
        problem: why it cannot be read; None if it can.
        sample: ids of some of its items.
    """

    key: str
    description: Mapping[str, Any]
    rows: int
    shards: int
    nbytes: int
    columns: tuple[ColumnSpec, ...]
    last_used: float
    in_use: bool
    problem: str | None = None
    sample: tuple[str, ...] = ()


@dataclass(frozen=True)
class Nearest:
    """The existing space whose description is most similar to a wanted one.

    ``differences`` lead from the existing space (left) to the wanted one (right).
    """

    key: str
    description: Mapping[str, Any]
    differences: tuple[Difference, ...]


@dataclass(frozen=True)
class GcReport:
    """What was removed, what was kept because it is in use, and the bytes freed.

    ``files`` are kept results, the memo of file digests, and what killed writers left.
    """

    removed: tuple[SpaceInfo, ...]
    in_use: tuple[SpaceInfo, ...]
    freed: int
    files: tuple[Leftover, ...] = ()


def layouts(root: Path) -> Iterator[Layout]:
    """Yield the spaces of a store by key, ignoring anything else in the folder."""
    if not root.exists():
        return
    try:
        names = sorted(path.name for path in root.iterdir())
    except OSError as error:
        reason, hint = reason_of(error)
        raise StoreError(f"the store {root} cannot be read: {reason}", hint=hint) from error
    for name in names:
        if is_hex32(name) and (root / name).is_dir():
            yield Layout(root, name)


def inspect(layout: Layout) -> SpaceInfo:
    """Inspect one space without counting as a use of it. Faults are reported, not raised."""
    used = is_in_use(layout)
    description: dict[str, Any] = {}
    rows = shards = 0
    columns: tuple[ColumnSpec, ...] = ()
    problem = None
    sample: tuple[str, ...] = ()
    try:
        description = check_description(layout)
        folder = SpaceFolder(layout, description, touch=False)
        index = folder.existing()
        if index is not None:
            rows, shards, _ = index.totals()
            sample = index.sample(_SAMPLE)
            columns = _worst(entry.columns for entry in index.shard_entries().values())
        folder.close()
    except StoreError as error:
        problem = error.message
    when = _last_used(layout.lock) or _last_used(layout.folder)
    size = _size(layout.folder)
    return SpaceInfo(
        layout.key, description, rows, shards, size, columns, when, used, problem, sample
    )


def nearest(root: Path, description: Mapping[str, Any], key: str) -> Nearest | None:
    """Return the other space with the fewest differences; None if there is no other."""
    best: Nearest | None = None
    for layout in layouts(root):
        if layout.key == key:
            continue
        try:
            found = check_description(layout)
        except StoreError:
            continue
        candidate = Nearest(layout.key, found, differences(found, description))
        if best is None or len(candidate.differences) < len(best.differences):
            best = candidate
    return best


def is_in_use(layout: Layout) -> bool:
    """Whether a running process, including this one, uses the space."""
    try:
        lock = try_lock(layout.lock, exclusive=True, create=False)
    except OSError:
        return False
    if lock is not None:
        lock.release()
    return lock is None


def collect(
    root: Path, *, max_size: int | None, older_than: float | None, dry_run: bool = False
) -> GcReport:
    """Remove what was not used for ``older_than`` seconds, then the longest unused until all fit.

    Everything that the store holds counts: spaces, small results, the memo of file digests.

    Args:
        root: the store.
        max_size: bytes that may remain; None for no limit.
        older_than: seconds since the last use; None for no limit.
        dry_run: only report what would be removed.

    Raises:
        StoreError: a limit is negative, or a folder cannot be removed.
    """
    for name, value in (("max_size", max_size), ("older_than", older_than)):
        if value is not None and value < 0:
            raise StoreError(f"{name} must be at least 0, not {value}")
    if not dry_run:
        _empty_trash(root)
    removed: list[SpaceInfo] = []
    in_use: list[SpaceInfo] = []
    files: list[Leftover] = []
    found: list[SpaceInfo | Leftover] = [inspect(layout) for layout in layouts(root)]
    with clear_errors(f"read the results in {root}", StoreError):
        found += [kept for kept in kept_files(root) if kept.kind != "foreign"]
    total = sum(each.nbytes for each in found)
    found.sort(key=lambda each: each.last_used)
    for each in found:
        too_old = older_than is not None and time.time() - each.last_used > older_than
        too_much = max_size is not None and total > max_size
        if isinstance(each, Leftover):
            if not (too_old or too_much or is_abandoned(each)):
                continue
            if each.kind == "temporary" and not is_abandoned(each):
                continue  # being written
            if not dry_run:
                _unlink(each.path)
            files.append(each)
        elif not (too_old or too_much):
            _date(Layout(root, each.key), each.last_used, dry_run)
            continue
        elif not each.in_use if dry_run else remove(Layout(root, each.key)):
            removed.append(each)
        else:
            in_use.append(each)
            continue
        total -= each.nbytes
    if not dry_run:
        _remove_empty(root / RESULTS)
    freed = sum(info.nbytes for info in removed) + sum(file.nbytes for file in files)
    return GcReport(tuple(removed), tuple(in_use), freed, tuple(files))


def _date(layout: Layout, when: float, dry_run: bool) -> None:
    """Replace a date in the future, so that the space ages from now on."""
    with contextlib.suppress(OSError):
        if not dry_run and layout.lock.stat().st_mtime > when:
            os.utime(layout.lock, (when, when))


def _unlink(path: Path) -> None:
    with clear_errors(f"remove {path}", StoreError):
        path.unlink(missing_ok=True)


def _remove_empty(folder: Path) -> None:
    for path in [*sorted(folder.glob("*")), folder]:
        if path.is_dir() and not path.is_symlink():
            with contextlib.suppress(OSError):
                path.rmdir()


def remove(layout: Layout) -> bool:
    """Remove one space; return False and keep it if a running process uses it.

    Raises:
        StoreError: the disk forbids it.
    """
    with clear_errors(f"remove the space in {layout.folder}", StoreError):
        if layout.folder.is_symlink():
            if is_in_use(layout):
                return False
            layout.folder.unlink()  # what it leads to is not in the store, and stays
            return True
        try:
            lock = try_lock(layout.lock, exclusive=True)
        except FileNotFoundError:
            return True
        if lock is None:
            return False
        try:
            # Renamed first, so that nobody ever sees half a space.
            trash = layout.root / f"{_TRASH}{secrets.token_hex(8)}"
            layout.folder.rename(trash)
            shutil.rmtree(trash)
        finally:
            lock.release()
    return True


def _empty_trash(root: Path) -> None:
    for path in sorted(root.glob(f"{_TRASH}*")) if root.is_dir() else []:
        with contextlib.suppress(OSError):
            shutil.rmtree(path)


def _worst(tables: Iterator[tuple[ColumnSpec, ...]]) -> tuple[ColumnSpec, ...]:
    worst: dict[str, ColumnSpec] = {}
    for table in tables:
        for spec in table:
            known = worst.get(spec.name)
            if known is None or spec.max_error > known.max_error:
                worst[spec.name] = spec
    return tuple(worst.values())


def _last_used(path: Path) -> float:
    try:
        return last_used(path.stat())
    except OSError:
        return 0.0


def _size(folder: Path) -> int:
    total = 0
    if folder.is_symlink():
        return 0
    for place, _, files in os.walk(folder):
        for name in files:
            try:
                total += os.lstat(os.path.join(place, name)).st_size  # noqa: PTH118
            except OSError:
                continue
    return total
