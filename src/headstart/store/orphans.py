"""Shards that a writer left when it was killed, or the disk was full: renamed, never registered.

A shard is renamed inside the transaction that registers it, after it has been flushed to the
device. So what is found in the place of shards while nobody else can write, and is not in the
index, is whole unless the disk has failed since. Its rows are taken over: to compute them again
would cost more. In the mirror of a remote store they are in no log, and such a file is removed.
"""

from __future__ import annotations

import contextlib
import time

from headstart.core.errors import StoreError
from headstart.store.index import Index, ShardEntry
from headstart.store.layout import Layout
from headstart.store.shard import Shard, open_shard
from headstart.store.verify import being_written, shard_files


def adopt_orphans(layout: Layout, index: Index) -> int:
    """Register the shards that writers left behind; return how many rows that adds.

    Whatever is damaged, or does not fit, is left for a repair to judge.

    Raises:
        StoreError: the index cannot be read or written.
    """
    known = index.known_names()
    with contextlib.suppress(OSError):
        strangers = (path for path in shard_files(layout) if path.stem not in known)
        found = [path for path in strangers if not being_written(path)]
        if not found:
            return 0
        mirror, total = index.mirrors_log(), 0
        for path in found:
            if mirror:
                with index.transaction():
                    if path.stem not in index.known_names():
                        path.unlink(missing_ok=True)
                continue
            with contextlib.suppress(StoreError):
                total += _adopt(index, open_shard(path, layout.key, trust_earlier=False))
        return total
    return 0


def _adopt(index: Index, shard: Shard) -> int:
    """Register a shard, unless its rows are there; then it is removed."""
    header, size = shard.header, shard.path.stat().st_size
    first = index.first_columns()
    if first is not None and sorted(s.contract for s in first) != sorted(
        s.contract for s in header.columns
    ):
        return 0
    with index.transaction() as connection:
        if shard.path.stem in index.known_names() or not shard.path.exists():
            return 0  # its writer was only slow, or another process was first
        entry = ShardEntry(0, shard.path.stem, header.rows, size, header.columns, time.time())
        new = index.register(connection, entry, shard.ids, header.view)
        if not new:
            connection.execute("DELETE FROM shards WHERE name = ?", (entry.name,))
            shard.path.unlink(missing_ok=True)
    return new


__all__ = ["adopt_orphans"]
