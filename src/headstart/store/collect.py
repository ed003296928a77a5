"""Removing spaces: by age, by size, or by name; never one that a running process uses."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from headstart.core.errors import StoreError
from headstart.core.files import clear_errors
from headstart.core.locks import try_lock
from headstart.store.catalog import SpaceInfo, inspect, layouts
from headstart.store.layout import Layout

_TRASH = ".trash-"


@dataclass(frozen=True)
class GcReport:
    """What was removed, what would have been but is in use, and the bytes freed."""

    removed: tuple[SpaceInfo, ...]
    in_use: tuple[SpaceInfo, ...]
    freed: int


def collect(
    root: Path, *, max_size: int | None, older_than: float | None, dry_run: bool = False
) -> GcReport:
    """Remove spaces not used for ``older_than`` seconds, then the longest unused until all fit.

    Args:
        root: the store.
        max_size: bytes that may remain; None for no limit.
        older_than: seconds since the last use; None for no limit.
        dry_run: only say what would be removed.

    Raises:
        StoreError: a limit is negative, or a folder cannot be removed.
    """
    for name, value in (("max_size", max_size), ("older_than", older_than)):
        if value is not None and value < 0:
            raise StoreError(f"{name} is at least 0, not {value}")
    if not dry_run:
        _empty_trash(root)
    spaces = sorted((inspect(layout) for layout in layouts(root)), key=lambda info: info.last_used)
    total = sum(info.nbytes for info in spaces)
    removed, in_use = [], []
    for info in spaces:
        too_old = older_than is not None and time.time() - info.last_used > older_than
        too_much = max_size is not None and total > max_size
        if not (too_old or too_much):
            continue
        gone = not info.in_use if dry_run else remove(Layout(root, info.key))
        if gone:
            removed.append(info)
            total -= info.nbytes
        else:
            in_use.append(info)
    return GcReport(tuple(removed), tuple(in_use), _sum(removed))


def remove(layout: Layout) -> bool:
    """Remove one space; return False, and leave it, if a running process uses it.

    Raises:
        StoreError: the disk forbids it.
    """
    with clear_errors(f"remove the space in {layout.folder}", StoreError):
        try:
            lock = try_lock(layout.lock, exclusive=True)
        except FileNotFoundError:
            return True
        if lock is None:
            return False
        try:
            # Renamed first, so that no one ever sees half a space.
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


def _sum(spaces: Sequence[SpaceInfo]) -> int:
    return sum(info.nbytes for info in spaces)
