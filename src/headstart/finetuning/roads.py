"""How items come to the network in one stage: as images, or as stored rows of the boundary."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headstart.data import Preprocessing, Split, View, read_batches
from headstart.finetuning.rows import BoundaryRows
from headstart.store import FeatureSet

Index = NDArray[np.int64]
Batch = tuple[Index, tuple[Tensor, ...]]
"""Positions of items in their part, ``(m,)``, and what the forward takes, each ``(m, ...)``."""


class Feed(Protocol):
    """Gives the inputs of items."""

    def batches(self, order: Index, batch_size: int, view: int) -> Iterator[Batch]:
        """Yield batches of the items at ``order``; ``view`` 0 is the items as they are."""


@dataclass(frozen=True, eq=False)
class ImageFeed:
    """Decodes images anew in every epoch, in threads ahead of the consumer."""

    split: Split
    preprocessing: Preprocessing
    device: torch.device
    views: tuple[View, ...] = ()
    workers: int | None = None

    def batches(self, order: Index, batch_size: int, view: int) -> Iterator[Batch]:
        """Yield normalised images ``(m, 3, h, w) float32``."""
        reader = read_batches(
            self.split,
            order,
            self.preprocessing,
            batch_size=batch_size,
            view=self.views[view - 1] if view else None,
            workers=self.workers,
            on_bad="raise",
        )
        with contextlib.closing(reader):
            for batch in reader:
                pixels = batch.pixels.to(self.device, non_blocking=True)
                yield batch.indices, (self.preprocessing.normalise(pixels),)


class RowFeed:
    """Reads stored rows: from memory where they fit into ``memory`` bytes, else from the disk.

    Args:
        rows: what reads them.
        sets: for view 0, 1, ... the rows of the part, in its order.
        memory: how many bytes may be held.
    """

    def __init__(self, rows: BoundaryRows, sets: dict[int, FeatureSet], memory: int) -> None:
        self.rows, self.sets = rows, sets
        self._held: dict[int, tuple[Tensor, ...]] = {}
        self._left = memory

    def batches(self, order: Index, batch_size: int, view: int) -> Iterator[Batch]:
        """Yield the boundary tensors, each ``(m, *shape)``."""
        chunks = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
        held = self._hold(view)
        if held is not None:
            for chunk in chunks:
                index = torch.from_numpy(chunk).to(held[0].device)
                yield chunk, tuple(tensor.index_select(0, index) for tensor in held)
            return
        for chunk, rows in _ahead(chunks, lambda chunk: self.sets[view][chunk]):
            yield chunk, self.rows.tensors(rows)

    def _hold(self, view: int) -> tuple[Tensor, ...] | None:
        if view not in self._held:
            rows = self.sets[view]
            if rows.nbytes > self._left:
                return None
            self._left -= rows.nbytes
            every: Any = rows[np.arange(len(rows))]
            self._held[view] = self.rows.tensors(every)
        return self._held[view]


def _ahead(chunks: list[Index], read: Callable[[Index], Any]) -> Iterator[tuple[Index, Any]]:
    """Read the next chunk in a thread while the current one is used."""
    with ThreadPoolExecutor(1, thread_name_prefix="headstart-rows") as pool:
        waiting: Future[Any] | None = pool.submit(read, chunks[0]) if chunks else None
        for number, chunk in enumerate(chunks):
            assert waiting is not None
            rows = waiting.result()
            more = number + 1 < len(chunks)
            waiting = pool.submit(read, chunks[number + 1]) if more else None
            yield chunk, rows


@dataclass(frozen=True, eq=False)
class Road:
    """What a stage trains on.

    Attributes:
        train, validation: the feeds of the two parts.
        forward: from what they give to logits ``(m, k)``; the network, or its suffix.
        cached: whether the rows are stored ones.
    """

    train: Feed
    validation: Feed
    forward: Callable[..., Tensor]
    cached: bool


__all__ = ["Batch", "Feed", "ImageFeed", "Index", "Road", "RowFeed"]
