"""Merging small shards into large ones, so that their number stays bounded.

A run that commits every few seconds leaves thousands of small shards. Merging copies stored values
as they are, so every row keeps its bytes. One transaction replaces the old shards by the new one;
their names stay noted as retired until their files are removed. So a kill at any moment leaves
either the old shards or the new one in use, and what is left over is cleared by the next process.
Readers that meet a removed file look their rows up again.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from headstart.core.errors import StoreError
from headstart.core.files import clear_errors, sync_file, sync_folder
from headstart.core.locks import try_lock
from headstart.core.scratch import locked_temporary
from headstart.store.columns import ColumnSpec, Encoded
from headstart.store.index import Index, ShardEntry
from headstart.store.layout import ID_BYTES, SHARD_SUFFIX, Layout
from headstart.store.shard import Shard, file_digest, open_shard, write_shard

SMALL_BYTES = 4 * 2**20
"""Shards below this are merged."""
MERGE_AT = 64
"""So many small shards are worth merging."""
_MERGED_BYTES = 64 * 2**20
_LOCK = "merging"


@dataclass(frozen=True)
class _Part:
    """The rows that the index places in one shard: their positions (k,), ascending."""

    number: int
    shard: Shard
    positions: np.ndarray


def merge_small_shards(layout: Layout, index: Index) -> int | None:
    """Merge small shards of equal views and columns, unless another process does.

    Shards that are damaged, or about which the index is wrong, are left to ``verify``.

    Returns:
        How many shards are left of those that were small, not counting what other processes added
        meanwhile; None if another process is merging.

    Raises:
        StoreError: the disk is full or not writable; all rows stay as they were.
    """
    with clear_errors(f"merge shards in {layout.folder}", StoreError):
        lock = try_lock(layout.tmp / _LOCK, exclusive=True)
        if lock is None:
            return None
        try:
            entries = index.small_shards(SMALL_BYTES)
            left = len(entries)
            for parts in _groups(layout, index, entries):
                if _merge(layout, index, parts):
                    left -= len(parts) - 1
            clear_retired(layout, index)
            return left
        finally:
            lock.path.unlink(missing_ok=True)
            lock.release()


def clear_retired(layout: Layout, index: Index) -> None:
    """Remove the files of shards that were merged into others."""
    if not index.retired():
        return
    with index.transaction() as connection:
        known = {name for (name,) in connection.execute("SELECT name FROM shards")}
        for name in index.retired():
            if name not in known:
                try:
                    layout.shard(name).unlink(missing_ok=True)
                except OSError:
                    continue  # on Windows, a file that is mapped by a reader
            index.forget_retired(connection, name)


def _groups(layout: Layout, index: Index, entries: dict[int, ShardEntry]) -> Iterator[list[_Part]]:
    """Yield shards to be merged into one."""
    rows = _rows_by_shard(index, entries)
    groups: dict[tuple[Any, ...], list[_Part]] = {}
    sizes: dict[tuple[Any, ...], int] = {}
    for number, entry in entries.items():
        part = _part(layout, entry, *rows.get(number, (b"", [])))
        if part is None:
            continue
        key = (part.shard.header.view, *map(_kind, part.shard.header.columns))
        groups.setdefault(key, []).append(part)
        sizes[key] = sizes.get(key, 0) + entry.bytes
        if sizes[key] >= _MERGED_BYTES:
            yield groups.pop(key)
            sizes.pop(key)
    yield from (parts for parts in groups.values() if len(parts) > 1)


def _rows_by_shard(
    index: Index, entries: dict[int, ShardEntry]
) -> dict[int, tuple[bytes, list[int]]]:
    """Return ids (joined) and positions of the rows of shards, by the number of the shard."""
    found: dict[int, tuple[list[bytes], list[int]]] = {}
    for number, position, key in index.rows_in(list(entries)):
        ids, positions = found.setdefault(number, ([], []))
        ids.append(key)
        positions.append(position)
    return {number: (b"".join(ids), positions) for number, (ids, positions) in found.items()}


def _part(layout: Layout, entry: ShardEntry, ids: bytes, positions: list[int]) -> _Part | None:
    """Open a shard; None if it does not hold what the index says."""
    try:
        shard = open_shard(layout.shard(entry.name), layout.key)
        where = np.array(positions, np.int64)
    except (StoreError, TypeError, ValueError, OverflowError):
        return None
    sound = (
        shard.header.columns == entry.columns
        and len(ids) == ID_BYTES * len(where)
        and not (where < 0).any()
        and not (where >= shard.header.rows).any()
        and shard.ids[where].tobytes() == ids
    )
    return _Part(entry.number, shard, where) if sound else None


def _kind(spec: ColumnSpec) -> ColumnSpec:
    return replace(spec, max_error=0.0, rms_error=0.0)


def _merge(layout: Layout, index: Index, parts: Sequence[_Part]) -> bool:
    """Replace shards by one with their rows; return whether they were as expected."""
    header = parts[0].shard.header
    ids = np.concatenate([part.shard.ids[part.positions] for part in parts])
    if not len(ids):
        return False
    columns = [_joined(parts, place) for place in range(len(header.columns))]
    with locked_temporary(layout.tmp, SHARD_SUFFIX) as temporary:
        write_shard(temporary, layout.key, header.view, ids, columns)
        sync_file(temporary)
        name, size = file_digest(temporary), temporary.stat().st_size
        specs = tuple(column.spec for column in columns)
        entry = ShardEntry(0, name, len(ids), size, specs, time.time())
        old = {part.number: part.shard.path.stem for part in parts}
        with contextlib.suppress(_ChangedError), index.transaction() as connection:
            if not index.replace_shards(connection, old, entry, ids, header.view):
                raise _ChangedError  # by a repair, say: the transaction is rolled back
            temporary.replace(layout.shard(name))
            sync_folder(layout.shards)
            return True
    return False


class _ChangedError(Exception):
    """The shards are not as they were when they were read."""


def _joined(parts: Sequence[_Part], place: int) -> Encoded:
    """Join a column of several shards, as stored; its error is the largest of theirs."""
    specs = [part.shard.header.columns[place] for part in parts]
    name = specs[0].name
    spec = replace(
        specs[0],
        max_error=max(spec.max_error for spec in specs),
        rms_error=max(spec.rms_error for spec in specs),
    )
    values = np.concatenate([part.shard.stored[name][part.positions] for part in parts])
    scale = None
    if name in parts[0].shard.scales:
        scale = np.concatenate([part.shard.scales[name][part.positions] for part in parts])
    return Encoded(spec, values, scale)
