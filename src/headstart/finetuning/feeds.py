"""What a stage trains on: items, decoded again in every epoch, or stored rows of its frozen part.

:class:`Feeds` knows the items of a run and opens the feeds of a stage when the stage begins, since
rows depend on the network at that moment.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headstart.backbones import Backbone
from headstart.core.arguments import Arguments
from headstart.core.errors import BadFilesError
from headstart.core.progress import Reporter
from headstart.core.records import CacheUse
from headstart.data import BadItem, Inputs, NumberedView, Split, read_batches
from headstart.finetuning.network import Classifier
from headstart.finetuning.recipe import Stage
from headstart.finetuning.rows import BoundaryRows
from headstart.freezing import reestimate
from headstart.modules.kinds import is_reestimable
from headstart.prefix import Candidate, Cut
from headstart.prefix.boundary import Dtype
from headstart.store import FeatureSet, Store

Index = NDArray[np.int64]
Batch = tuple[Index, Arguments]
"""Positions of items in their split, ``(m,)``, and what the forward pass is called with."""


class Feed(Protocol):
    """Yields the inputs of items."""

    def batches(self, order: Index, batch_size: int, view: int) -> Iterator[Batch]:
        """Yield batches of the items at ``order``; ``view`` 0 is the unaugmented items."""


@dataclass(frozen=True, eq=False)
class ItemFeed:
    """Decodes items again in every epoch, in threads that work ahead of the consumer."""

    split: Split
    inputs: Inputs
    device: torch.device
    views: tuple[NumberedView, ...] = ()
    workers: int | None = None

    def batches(self, order: Index, batch_size: int, view: int) -> Iterator[Batch]:
        """Yield the arguments of the network."""
        reader = read_batches(
            self.split,
            order,
            self.inputs,
            batch_size=batch_size,
            view=self.views[view - 1] if view else None,
            workers=self.workers,
            on_bad="raise",
        )
        with contextlib.closing(reader):
            for batch in reader:
                yield batch.indices, batch.arguments(self.device)


class RowFeed:
    """Reads stored rows: from memory as far as they fit into it, otherwise from disk.

    Args:
        rows: reads the rows of one cut.
        sets: the rows of the split by view number, in the order of the split.
        memory: how many bytes may be held in memory.
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
                yield chunk, Arguments(tuple(tensor.index_select(0, index) for tensor in held))
            return
        for chunk, rows in _read_ahead(chunks, lambda chunk: self.sets[view][chunk]):
            yield chunk, Arguments(self.rows.tensors(rows))

    def _hold(self, view: int) -> tuple[Tensor, ...] | None:
        if view not in self._held:
            rows = self.sets[view]
            if rows.nbytes > self._left:
                return None
            self._left -= rows.nbytes
            every: Any = rows[np.arange(len(rows))]
            self._held[view] = self.rows.tensors(every)
        return self._held[view]


@dataclass(frozen=True, eq=False)
class InputBatches:
    """The inputs of some items in batches, any number of times; for measuring on a network.

    Attributes:
        feed: yields the inputs.
        order: ``(m,)``, the items.
        batch_size: items per batch.
    """

    feed: Feed
    order: Index
    batch_size: int

    def __len__(self) -> int:
        """The number of batches."""
        return -(-len(self.order) // self.batch_size)

    def __iter__(self) -> Iterator[Arguments]:
        """Yield what the forward pass is called with."""
        for _, inputs in self.feed.batches(self.order, self.batch_size, 0):
            yield inputs


def _read_ahead(chunks: list[Index], read: Callable[[Index], Any]) -> Iterator[tuple[Index, Any]]:
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
class StageFeeds:
    """What a stage trains on.

    Attributes:
        train, validation: the feeds of the two splits.
        forward: from what they yield to logits ``(m, k)``: the network, or its suffix.
        stored: whether they read stored rows.
    """

    train: Feed
    validation: Feed
    forward: Callable[..., Tensor]
    stored: bool


@dataclass(eq=False)
class Feeds:
    """The items of a run, and how a network is fed with them.

    Attributes:
        network: what is trained.
        train, validation: the items that train, and those that choose the best epoch.
        store: holds stored rows.
        reporter: shown the progress of storing them.
        dtype: in which rows are stored.
        batch_size: items per forward pass of a frozen part.
        workers: threads that decode.
        seed: of views, and of everything that is drawn in training.
        use: rows found and computed so far, over all stages.
    """

    network: Classifier
    train: Split
    validation: Split
    store: Store
    reporter: Reporter
    dtype: Dtype = "float32"
    batch_size: int = 64
    workers: int | None = None
    seed: int = 0
    use: CacheUse = field(default=CacheUse(0, 0), init=False)
    _filled: set[str] = field(default_factory=set, init=False)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.network.source.device

    @cached_property
    def source(self) -> Backbone:
        """The backbone, with inputs of one shape where the items allow it.

        Stored rows have one shape; training from the items has the same, so that dropout draws
        the same numbers in both.
        """
        source = self.network.source
        return dataclasses.replace(
            source, inputs=source.inputs.one_shape((self.train, self.validation))
        )

    def targets(self, split: Split) -> Tensor:
        """Return what the items of a split are trained towards, on the device."""
        return self.network.objective.targets(split, self.device)

    def items(self, stage: Stage | None = None) -> StageFeeds:
        """Return the items themselves, with the views of the stage."""
        views = () if stage is None else self._views(stage)
        feeds = [
            ItemFeed(split, self.source.inputs, self.device, chosen, self.workers)
            for split, chosen in ((self.train, views), (self.validation, ()))
        ]
        return StageFeeds(feeds[0], feeds[1], self.network, stored=False)

    def stored(self, stage: Stage, cut: Cut, memory: int) -> StageFeeds:
        """Return the rows of a cut; those that are missing are computed first.

        Args:
            stage: the stage that is about to begin.
            cut: its cut.
            memory: how many bytes of rows may be held in memory.

        Raises:
            BadFilesError: items cannot be read.
        """
        bad = () if stage.name in self._filled else self.fill(stage, cut)
        if bad:
            raise BadFilesError(tuple({item.origin: item.reason for item in bad}.items()))
        rows = self.rows(cut, stage)
        train = {
            view.number if view else 0: rows.read(split, view)
            for split, view in self.parts(stage)
            if split is self.train
        }
        validation = {0: rows.read(self.validation)}
        size = sum(part.nbytes for part in (*train.values(), *validation.values()))
        held = memory if size <= memory else 0
        return StageFeeds(
            RowFeed(rows, train, held), RowFeed(rows, validation, held), cut.suffix, stored=True
        )

    def fill(self, stage: Stage, cut: Cut) -> tuple[BadItem, ...]:
        """Compute the missing rows of a stage, and return the items that cannot be read.

        The frozen part has to be what it will be when the stage begins.
        """
        rows = self.rows(cut, stage)
        bad: dict[str, BadItem] = {}
        for split, view in self.parts(stage):
            filled = rows.fill(split, view, self.reporter)
            bad |= {item.origin: item for item in filled.bad}
            self.use += filled.use
        self._filled.add(stage.name)
        return tuple(bad.values())

    def rows(self, cut: Cut | Candidate, stage: Stage) -> BoundaryRows:
        """Return the rows of a cut, with the current tensors of the network."""
        feature = stage.precision == "float32" and self.network.cut_at_feature(cut)
        return BoundaryRows(
            cut,
            self.network.source if feature else self.source,
            self.store,
            precision=stage.precision,
            device=self.device,
            batch_size=self.batch_size,
            workers=self.workers,
            feature=feature,
        )

    def parts(self, stage: Stage) -> Iterator[tuple[Split, NumberedView | None]]:
        """Yield every split and view that a stage needs rows of."""
        for view in self._views(stage) or (None,):
            yield self.train, view
        yield self.validation, None

    def reestimate(self) -> None:
        """Replace the statistics of the network's norms by those of the training items."""
        live = self.network.live_modules()  # the others never run: there is nothing to measure
        norms = tuple(
            name
            for name, part in self.network.named_modules()
            if name in live and is_reestimable(part)
        )
        if norms:
            order = np.arange(len(self.train))
            items = InputBatches(self.items().train, order, self.batch_size)
            report = reestimate(self.network, items, layers=norms, reporter=self.reporter)
            self.reporter.note(str(report))

    def _views(self, stage: Stage) -> tuple[NumberedView, ...]:
        inputs = self.network.source.inputs
        return inputs.numbered_views(stage.views, seed=self.seed) if stage.views else ()


__all__ = ["Batch", "Feed", "Feeds", "Index", "InputBatches", "ItemFeed", "RowFeed", "StageFeeds"]
