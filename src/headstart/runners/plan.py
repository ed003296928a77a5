"""The plan of a job: its items in shards, the same for every runner and every number of workers.

A shard is a stretch of the items of one split, in the order of the split. Its size follows from
the number of items and the batch size alone, so that all processes of an array make the same plan
without talking to each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MOST = 4096
"""Items of a shard at most: what a kill can lose where nothing is committed in between."""
_PIECES = 256  # shards that a job of medium size has, so that many workers find work


@dataclass(frozen=True)
class Shard:
    """A stretch of the items of one split.

    Attributes:
        split: the number of the split.
        ids: of its items; none is in another shard.
    """

    split: int
    ids: tuple[str, ...]


def shard_size(count: int, batch_size: int) -> int:
    """Return how many items a shard has: a multiple of the batch size, at most about 4,096."""
    batches = -(-count // (_PIECES * batch_size))
    return batch_size * max(1, min(batches, MOST // batch_size))


def shards_of(splits: Sequence[Sequence[str]], batch_size: int) -> list[Shard]:
    """Divide items into shards.

    Args:
        splits: the ids of the items of each split; equal items are in one shard only.
        batch_size: items in a forward pass.
    """
    seen: set[str] = set()
    found = []
    for number, ids in enumerate(splits):
        fresh = [key for key in dict.fromkeys(ids) if key not in seen]
        seen.update(fresh)
        size = shard_size(len(fresh), batch_size)
        found += [
            Shard(number, tuple(fresh[start : start + size]))
            for start in range(0, len(fresh), size)
        ]
    return found


def turns(count: int, index: int, of: int) -> tuple[list[int], list[int]]:
    """Return the shards of one worker, and those of the others in the order to look at them.

    Each worker looks at the others' shards from a place of its own, so that two that help out do
    not begin with the same one.

    Args:
        count: shards.
        index: of the worker, from 0.
        of: workers.
    """
    own = list(range(index, count, of))
    mine, start = set(own), index * count // of
    others = [i % count for i in range(start, start + count) if i % count not in mine]
    return own, others


__all__ = ["MOST", "Shard", "shard_size", "shards_of", "turns"]
