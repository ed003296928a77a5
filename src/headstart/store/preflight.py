"""How large shards should be, and what a run would find and need."""

from __future__ import annotations

from dataclasses import dataclass

_TARGET_SHARD_BYTES = 32 * 2**20


def rows_per_shard(row_bytes: int, *, most: int = 8192) -> int:
    """Return how many rows of ``row_bytes`` bytes make a shard of a good size.

    At most 32 MiB: large enough that random batches touch few shards and a commit costs little
    beside the write, small enough that a kill loses little work. A power of two, so that batches
    of the usual sizes, read in the order of appending, lie in one shard and need no copy.
    """
    rows = max(1, min(most, _TARGET_SHARD_BYTES // max(1, row_bytes)))
    return 1 << (rows.bit_length() - 1)


@dataclass(frozen=True)
class Preflight:
    """What a run would find: rows ``present`` and ``missing`` (unique items), and disk space.

    ``bytes_needed`` is None while the size of a row is not known.
    """

    present: int
    missing: int
    bytes_needed: int | None
    bytes_free: int
