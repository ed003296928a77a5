"""Room for rows in memory and on disk, and what earlier stages of a plan take of it."""

from __future__ import annotations

from dataclasses import dataclass

import psutil
import torch

from headstart.core.files import free_bytes
from headstart.data import NumberedView, Split
from headstart.finetuning.feeds import Feeds
from headstart.finetuning.network import Classifier
from headstart.finetuning.optimizers import OPTIMIZERS
from headstart.finetuning.plan import PlannedPlace
from headstart.finetuning.recipe import Stage
from headstart.finetuning.rows import BoundaryRows
from headstart.prefix import Candidate
from headstart.prefix.graph import UntraceableError

_MEMORY_SHARE = 0.25
ROW_OVERHEAD = 80
"""Bytes on disk of a row's id and its place in the index."""


def memory_of(
    network: Classifier,
    stage: Stage,
    trainable: int,
    activations: int,
    rows: PlannedPlace | None,
) -> int:
    """Return the bytes that training a stage takes.

    Args:
        network: all its weights.
        stage: its optimizer, moving average and batch size.
        trainable: how many parameters have gradients and optimizer state.
        activations: bytes kept for the backward pass, per item.
        rows: the cut whose rows it trains on; None: it trains from images.
    """
    copies = 1 + OPTIMIZERS[stage.optimizer].state_tensors(stage) + (1 if stage.ema else 0)
    weights = sum(p.numel() * p.element_size() for p in network.parameters())
    held = rows.bytes if rows is not None and rows.in_memory else 0
    return weights + 4 * trainable * copies + activations * stage.batch_size + held


def memory_for_rows(device: torch.device) -> int:
    """Return how many bytes of rows may be held in memory; on a GPU, in the GPU's memory."""
    free = int(psutil.virtual_memory().available)
    if device.type == "cuda":
        free = min(free, int(torch.cuda.mem_get_info(device)[0]))
    return int(_MEMORY_SHARE * free)


@dataclass(frozen=True)
class RowCount:
    """How many rows a stage needs at a cut.

    Attributes:
        planned: those that no earlier stage of the plan stores; None if that is only known when
            the stage begins.
        missing: those of them that are not in the cache.
    """

    planned: int | None
    missing: int | None


class PlannedRows:
    """The rows that exist, or will once the stages planned so far have stored theirs.

    Args:
        feeds: the items, and the store of their rows.

    Attributes:
        disk: bytes on the disk that those stages leave free.
    """

    def __init__(self, feeds: Feeds) -> None:
        self._feeds = feeds
        self._planned: set[tuple[str, str, int]] = set()
        self.disk = free_bytes(feeds.store.root)

    def count(self, candidate: Candidate, stage: Stage, stable: bool) -> RowCount:
        """Count the rows at a cut that a stage will have to compute.

        Args:
            candidate: the cut.
            stage: the stage.
            stable: whether the frozen part is now what it will be when the stage begins; rows are
                known by its content.
        """
        if not stable:
            return RowCount(None, None)
        if not self._planned and not self._feeds.store.root.exists():
            every = sum(len(set(split.ids)) for split, _ in self._feeds.parts(stage))
            return RowCount(every, every)
        try:
            rows = self._feeds.rows(candidate, stage)
        except UntraceableError:  # such a cut cannot be built, and is not chosen
            return RowCount(None, None)
        parts = [
            (split, view)
            for split, view in self._feeds.parts(stage)
            if self._key(rows, split, view) not in self._planned
        ]
        return RowCount(
            sum(len(set(split.ids)) for split, _ in parts),
            sum(rows.missing(split, view) for split, view in parts),
        )

    def add(self, candidate: Candidate, at: PlannedPlace, stage: Stage, stable: bool) -> None:
        """Record that a stage will have stored its rows at a cut.

        Args:
            candidate, at: the cut, and what it costs.
            stage, stable: as for :meth:`count`.
        """
        computed = at.bytes // at.bytes_per_item if at.missing is None else at.missing
        self.disk = max(0, self.disk - computed * (at.bytes_per_item + ROW_OVERHEAD))
        if stable:
            rows = self._feeds.rows(candidate, stage)
            self._planned |= {self._key(rows, *part) for part in self._feeds.parts(stage)}

    def _key(
        self, rows: BoundaryRows, split: Split, view: NumberedView | None
    ) -> tuple[str, str, int]:
        part = "train" if split is self._feeds.train else "validation"
        return rows.space(view).key, part, 0 if view is None else view.number


__all__ = ["ROW_OVERHEAD", "PlannedRows", "RowCount", "memory_for_rows", "memory_of"]
