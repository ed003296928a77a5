"""Feeding rows to training: a map-style torch dataset, and a loader for more than fits in memory.

Random reads of single rows waste a disk. The loader visits the rows in the order of the disk, cut
into blocks; it shuffles the blocks, reads a window of several at a time, and shuffles the rows
within the window. So the disk reads sequentially while a batch mixes many blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from headstart.core.errors import StoreError

if TYPE_CHECKING:
    from headstart.store.features import FeatureSet, Rows

_BLOCK_BYTES = 2**20
_WINDOW_BYTES = 256 * 2**20


class FeatureDataset(Dataset[Any]):
    """Rows as tensors, with or without labels; ``DataLoader`` fetches a batch in one call.

    Args:
        features: n rows.
        labels: (n, ...) values to pair with them, or None.
    """

    def __init__(self, features: FeatureSet, labels: npt.ArrayLike | None = None) -> None:
        self.features = features
        self.labels = None if labels is None else torch.as_tensor(labels)
        if self.labels is not None and len(self.labels) != len(features):
            raise StoreError(f"{len(self.labels)} labels do not fit {len(features)} rows")

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.features)

    def __getitem__(self, index: int) -> Any:
        """Return one row, or (row, label)."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[Any]:
        """Return several rows, read together."""
        rows = self.features[np.asarray(indices, np.int64)]
        if isinstance(rows, dict):
            tensors = {name: torch.from_numpy(values) for name, values in rows.items()}
            items: list[Any] = [
                {name: values[i] for name, values in tensors.items()} for i in range(len(indices))
            ]
        else:
            items = list(torch.from_numpy(rows))
        if self.labels is None:
            return items
        return list(zip(items, self.labels[indices], strict=True))


class BlockLoader:
    """Batches of ``(indices, rows)``, every row once an epoch.

    ``indices`` is (b,) int64, the places in the feature set, to choose labels by; ``rows`` is what
    ``features[indices]`` would return. Each pass over the loader is another epoch with an order of
    its own, fixed by (seed, epoch) alone.

    Args:
        features: the rows.
        batch_size: rows a batch; the last may be shorter.
        seed: of the order; has no effect without ``shuffle``.
        shuffle: shuffled blocks (True), or the given order (False).
        drop_last: leave out a last batch that is shorter.
        block_rows: rows read together. The default is about 1 MiB of rows: a disk reads that at
            nearly sequential speed.
        window_bytes: memory for the window that is shuffled at once. A larger one mixes better;
            data that fit into it are shuffled perfectly.
        epoch: number of the first epoch, to resume with.
    """

    def __init__(
        self,
        features: FeatureSet,
        batch_size: int,
        *,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = False,
        block_rows: int | None = None,
        window_bytes: int = _WINDOW_BYTES,
        epoch: int = 0,
    ) -> None:
        if batch_size < 1:
            raise StoreError(f"a batch has at least one row, not {batch_size}")
        self.features, self.batch_size = features, batch_size
        self.seed, self.shuffle, self.drop_last = seed, shuffle, drop_last
        self.epoch = epoch
        row_bytes = max(1, features.nbytes // max(1, len(features)))
        self.block_rows = max(1, block_rows or _BLOCK_BYTES // row_bytes)
        blocks = window_bytes // (row_bytes * self.block_rows)
        self.window_rows = max(batch_size, self.block_rows * max(1, blocks))

    def __len__(self) -> int:
        """The number of batches in an epoch."""
        whole, rest = divmod(len(self.features), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[tuple[npt.NDArray[np.int64], Rows]]:
        """Yield the batches of the next epoch."""
        epoch, self.epoch = self.epoch, self.epoch + 1
        if not self.shuffle:
            for start in range(0, len(self) * self.batch_size, self.batch_size):
                stop = min(start + self.batch_size, len(self.features))
                yield np.arange(start, stop), self.features[start:stop]
            return
        rng = np.random.default_rng([self.seed, epoch])
        left: npt.NDArray[np.int64] = np.empty(0, np.int64)
        rows: Rows | None = None
        for window in self._windows(rng):
            # In the order of the disk, so that each block is one sequential read.
            fresh = self.features[window]
            order = rng.permutation(len(left) + len(window))
            left = np.concatenate([left, window])[order]
            rows = _shuffled(rows, fresh, order)
            whole = len(left) // self.batch_size * self.batch_size
            for start in range(0, whole, self.batch_size):
                stop = start + self.batch_size
                yield left[start:stop], _cut(rows, slice(start, stop))
            left, rows = left[whole:], _cut(rows, slice(whole, None))
        if len(left) and rows is not None and not self.drop_last:
            yield left, rows

    def _windows(self, rng: np.random.Generator) -> Iterator[npt.NDArray[np.int64]]:
        order = self.features.disk_order()
        starts = np.arange(0, len(order), self.block_rows)
        rng.shuffle(starts)
        count = max(1, self.window_rows // self.block_rows)
        for first in range(0, len(starts), count):
            blocks = [order[s : s + self.block_rows] for s in starts[first : first + count]]
            yield np.concatenate(blocks)


def _cut(rows: Rows, where: slice) -> Rows:
    if isinstance(rows, dict):
        return {name: values[where] for name, values in rows.items()}
    return rows[where]


def _shuffled(left: Rows | None, fresh: Rows, order: npt.NDArray[np.int64]) -> Rows:
    if isinstance(fresh, dict):
        old = left if isinstance(left, dict) else {}
        return {
            name: np.concatenate([old[name], values])[order] if name in old else values[order]
            for name, values in fresh.items()
        }
    return (np.concatenate([left, fresh]) if isinstance(left, np.ndarray) else fresh)[order]
