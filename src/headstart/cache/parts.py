"""Rows of a space in parts, each read where it is needed: what heads are fitted to that reduce."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.core.errors import StoreError
from headstart.store import Space
from headstart.store.layout import PackedIds, pack_ids, unpack_ids

PART_ROWS = 65_536
_BLOCK_ROWS = 4096


@dataclass(frozen=True, eq=False)
class StoredPart:
    """Some rows of a space, with their classes. It travels as ids; the rows stay where they are.

    Attributes:
        space: that holds them.
        packed: their ids.
        labels: ``(n,) int64``, class indices.
        view: number of the view.
    """

    space: Space
    packed: PackedIds
    labels: NDArray[np.int64]
    view: int = 0

    def __len__(self) -> int:
        return len(self.labels)

    def blocks(self) -> Iterator[tuple[NDArray[np.floating], NDArray[np.int64]]]:
        """Yield features ``(m, d) float32`` and classes ``(m,)``, some thousand rows at a time.

        Raises:
            StoreError: a row is missing, or a shard is damaged.
        """
        rows = self.space.read(unpack_ids(self.packed), self.view)
        for start in range(0, len(self), _BLOCK_ROWS):
            found = np.asarray(rows[start : start + _BLOCK_ROWS], dtype=np.float32)
            yield found, self.labels[start : start + _BLOCK_ROWS]


def stored_parts(
    space: Space,
    ids: Sequence[str],
    labels: Sequence[int] | NDArray[np.int64],
    *,
    view: int = 0,
    rows: int = PART_ROWS,
) -> list[StoredPart]:
    """Divide rows of a space into parts.

    Args:
        space: as :meth:`FeatureCache.space` returns it.
        ids: of the items, in an order in which they were extracted, best: a part then lies in few
            shards.
        labels: ``(n,)``, their class indices.
        view: number of the view.
        rows: of a part.

    Raises:
        StoreError: there are not as many labels as ids.
    """
    if len(ids) != len(labels):
        raise StoreError(f"{len(ids):,} ids and {len(labels):,} labels do not belong together")
    packed, y = pack_ids(ids), np.asarray(labels, dtype=np.int64)
    return [
        StoredPart(space, packed[start : start + rows], y[start : start + rows], view)
        for start in range(0, len(y), rows)
    ]


__all__ = ["PART_ROWS", "StoredPart", "stored_parts"]
