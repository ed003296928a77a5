"""What a store holds: every space with its size, age and faults, and how two of them differ."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.core.errors import StoreError
from headstart.core.locks import try_lock
from headstart.store.describe import Difference, differences
from headstart.store.folder import SpaceFolder, check_description
from headstart.store.layout import Layout, is_hex32
from headstart.store.precision import ColumnSpec


@dataclass(frozen=True)
class SpaceInfo:
    """One space as it lies on disk.

    Attributes:
        key: 32 hexadecimal characters, the name of its folder.
        description: what it was computed with; empty where it cannot be read.
        rows, shards: how many are committed.
        nbytes: bytes on disk, index included.
        columns: name, type, row shape, encoding; the errors are the worst of all shards.
        last_used: seconds since the epoch of the last opening.
        in_use: whether a running process holds it.
        problem: why it cannot be read; None where it can.
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


@dataclass(frozen=True)
class Nearest:
    """The existing space whose description is closest to a wanted one.

    ``differences`` go from the existing space (left) to the wanted one (right).
    """

    key: str
    description: Mapping[str, Any]
    differences: tuple[Difference, ...]


def layouts(root: Path) -> Iterator[Layout]:
    """Yield the spaces of a store by key; anything else in the folder is passed over."""
    if not root.exists():
        return
    try:
        names = sorted(path.name for path in root.iterdir())
    except OSError as error:
        raise StoreError(f"the store {root} cannot be read: {error.strerror}") from error
    for name in names:
        if is_hex32(name) and (root / name).is_dir():
            yield Layout(root, name)


def inspect(layout: Layout) -> SpaceInfo:
    """Look at one space without counting as a use of it. Faults are told, not raised."""
    used = is_in_use(layout)
    description: dict[str, Any] = {}
    rows = shards = 0
    columns: tuple[ColumnSpec, ...] = ()
    problem = None
    try:
        description = check_description(layout)
        folder = SpaceFolder(layout, description, touch=False)
        index = folder.existing()
        if index is not None:
            rows, shards, _ = index.totals()
            columns = _worst(entry.columns for entry in index.shard_entries().values())
        folder.close()
    except StoreError as error:
        problem = error.message
    last_used = _modified(layout.lock) or _modified(layout.folder)
    size = _size(layout.folder)
    return SpaceInfo(layout.key, description, rows, shards, size, columns, last_used, used, problem)


def nearest(root: Path, description: Mapping[str, Any], key: str) -> Nearest | None:
    """Return the other space with the fewest differences; None where there is no other."""
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
    """Whether a running process, this one included, holds the space."""
    try:
        lock = try_lock(layout.lock, exclusive=True, create=False)
    except OSError:
        return False
    if lock is not None:
        lock.release()
    return lock is None


def _worst(tables: Iterator[tuple[ColumnSpec, ...]]) -> tuple[ColumnSpec, ...]:
    worst: dict[str, ColumnSpec] = {}
    for table in tables:
        for spec in table:
            known = worst.get(spec.name)
            if known is None or spec.max_error > known.max_error:
                worst[spec.name] = spec
    return tuple(worst.values())


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _size(folder: Path) -> int:
    total = 0
    for place, _, files in os.walk(folder):
        for name in files:
            try:
                total += os.lstat(os.path.join(place, name)).st_size  # noqa: PTH118
            except OSError:
                continue
    return total
