"""Running a backbone over items, batch by batch.

The network runs once per item, in evaluation mode (running statistics, no dropout) under
``inference_mode``; modes are restored afterwards. All batches of a split have one shape: the last
one is filled up and the surplus dropped, so that no row is computed by other kernels than its
neighbours, and none depends on which rows were there already. A split smaller than a batch has
batches of its own size: one image is computed as one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from headstart.backbones import Backbone
from headstart.core.arguments import Arguments
from headstart.core.errors import DataError
from headstart.core.progress import Progress, Reporter, SilentReporter
from headstart.core.stages import Stages, Throughput
from headstart.data import BadItem, NumberedView, Split, read_batches
from headstart.data.reading import OnBad, default_workers, settle_bad_items
from headstart.data.remarks import remark_notes
from headstart.extraction.choice import settled
from headstart.extraction.dispatch import copied, dispatched, names_of
from headstart.extraction.feed import Delivery, Feed
from headstart.extraction.plan import Memory, Plan
from headstart.extraction.replica import Replica, Rows
from headstart.extraction.settings import Extraction

_IN_HALF = " in half precision; precision='float32' may help"
_WORTH_A_NOTE = 20.0
"""Seconds of a job from which on it is said that devices are idle."""


@dataclass(frozen=True, eq=False)
class FeatureRows:
    """Features of some items.

    Attributes:
        indices: ``(m,) int64``, positions in the split.
        features: for every cut, ``(m, d) float32`` or ``(m, ...) float32``.
    """

    indices: NDArray[np.int64]
    features: tuple[NDArray[np.float32], ...]


class Extractor:
    """Runs one network, cut at one or several places, over any number of splits.

    It is a context: what is compiled or hooked for it lasts until it is left. The first batch it
    sees is tested: a network whose rows depend on the batch or on randomness is refused, since such
    rows are not functions of their items.

    Args:
        cuts: the same network with the same inputs.
        settings: batch size, precision (not ``auto``), device.
        memory: of earlier trials of engines.

    Attributes:
        bad: items that could not be read so far, or of which the network makes no finite
            features, with their positions in their split.
        done: items whose rows were computed.
        stages: where the time went.
        remarks: what is odd about items that could be read, with their origins.
        notes: how the network runs, where that is not as it was asked for.
        ahead: items that will be computed in all, over several calls of :meth:`rows`; the plan
            weighs its preparations against them.
    """

    def __init__(
        self,
        cuts: Sequence[Backbone],
        settings: Extraction | None = None,
        memory: Memory | None = None,
    ) -> None:
        self.cuts = tuple(cuts)
        self.settings = settings or Extraction()
        self.bad: list[BadItem] = []
        self.remarks: dict[str, list[str]] = {}
        self.notes: list[str] = []
        self.ahead = 0
        self.memory = memory
        self.done, self.stages = 0, Stages()
        self._devices = self.settings.resolve_devices()
        for device in self._devices:
            self.settings.check_precision(device)
        self._names = names_of(self._devices)
        self._first = self._replica(0)
        self._others: list[Replica] = []

    def __enter__(self) -> Extractor:
        return self

    def __exit__(self, *_: object) -> None:
        for replica in (self._first, *self._others):
            replica.close()
        self._others = []

    @property
    def plan(self) -> Plan | None:
        """How the network runs; None before the first batch."""
        return self._first.plan

    def rows(
        self,
        split: Split,
        indices: NDArray[np.int64] | None = None,
        *,
        view: NumberedView | None = None,
        task: Progress | None = None,
    ) -> Iterator[FeatureRows]:
        """Compute features of items; unreadable ones are left out and listed in ``bad``.

        Rows come in the order in which the inputs take the items (texts: by length).

        Args:
            split: the items.
            indices: positions in the split; None: all.
            view: a numbered augmentation; None: the items without augmentation.
            task: advanced by the items that are done, readable or not.

        Raises:
            BackboneError: rows depend on the batch or on randomness, are the same for every item,
                or are not finite for any item of the first batch.
        """
        inputs = self.cuts[0].inputs
        inputs.check_items(split.items)
        chosen = np.arange(len(split)) if indices is None else indices
        reader = read_batches(
            split,
            inputs.order(split, chosen),
            inputs,
            batch_size=self.settings.batch_size,
            view=view,
            workers=self.settings.workers,
            on_bad="skip",
            stages=self.stages,
        )
        shape = self._shape(split)
        count = max(self.ahead, len(split) if indices is None else len(indices))
        feed = Feed(reader, self._devices, self.stages)
        try:
            for batch, parts in self._computed(feed, shape, count):
                for part, rows in parts:
                    good = self._finite(split, FeatureRows(batch.indices[part], rows))
                    if len(good.indices):
                        yield good
                self.done += len(batch.indices)
                if task is not None:
                    task.advance(len(batch.indices))
        finally:
            feed.close()
            self.bad += reader.bad
            for what, origins in reader.remarks.items():
                self.remarks.setdefault(what, []).extend(origins)
        if task is not None:
            task.advance(len(reader.bad))

    def _finite(self, split: Split, rows: FeatureRows) -> FeatureRows:
        """Leave out items whose features are not finite, and list them in ``bad``."""
        # Minimum and maximum carry NaN and infinity through without a temporary of that size.
        if all(np.isfinite(one.min()) and np.isfinite(one.max()) for one in rows.features):
            return rows
        every = [np.isfinite(one.reshape(len(one), -1)).all(axis=1) for one in rows.features]
        good = np.logical_and.reduce(every)
        half = self.settings.precision in ("float16", "bfloat16")
        reason = f"its features are not finite{_IN_HALF if half else ''}"
        for i in rows.indices[~good].tolist():
            self.bad.append(BadItem(i, split.items.origin(int(split.rows[i])), reason))
        return FeatureRows(rows.indices[good], tuple(one[good] for one in rows.features))

    def run(self, batch: Arguments) -> tuple[NDArray[np.float32], ...]:
        """Compute features of a batch that has been read already, as a service has it.

        It runs on the first device.

        An engine that is made for one shape gets full batches, and the surplus is dropped; texts
        come with the longest first.

        Args:
            batch: what the network is called with.

        Returns:
            For every cut ``(n, ...) float32``, in the order of the batch.

        Raises:
            BackboneError: as for :meth:`rows`, on the first batch.
        """
        shape = len(batch) if self._first.any_shape else self.settings.batch_size
        count = max(self.ahead, len(batch))
        first = self._first
        parts = [rows for _, rows in first.batch(batch.to(first.device), shape, count)]
        return tuple(np.concatenate(blocks) for blocks in zip(*parts, strict=True))

    def throughput(self) -> Throughput:
        """Return what the stages could do, each alone."""
        workers = self.settings.workers or default_workers()
        return Throughput.of(self.stages, self.done, workers, len(self._devices))

    def _replica(self, number: int) -> Replica:
        """Return the network on a device: the user's own on the first, copies on the others."""
        name = self._names[number]
        return Replica(
            copied(self.cuts, name) if number else self.cuts,
            self.settings,
            self._devices[number],
            self.stages,
            lambda note: self.notes.append(note),  # the list is another one after `tell`
            memory=self.memory,
            leader=self._first if number else None,
            name=name,
        )

    def _computed(
        self, feed: Feed, shape: int, count: int
    ) -> Iterator[tuple[Delivery, Iterable[tuple[slice, Rows]]]]:
        """Yield batches in order, with their rows in parts."""

        def work(replica: Replica, batch: Delivery) -> Iterator[tuple[slice, Rows]]:
            return replica.batch(replica.received(batch), shape, count)

        if len(self._devices) == 1:
            told = self.plan is not None
            for batch in feed:
                yield batch, work(self._first, batch)
                if not told:
                    self._tell_of_idle_devices(count)
                    told = True
            return
        if not self._others:
            self._others = [self._replica(number) for number in range(1, len(self._devices))]
        replicas = (self._first, *self._others)
        yield from dispatched(feed, replicas, lambda *given: list(work(*given)))

    def _tell_of_idle_devices(self, count: int) -> None:
        """Say, of a job that takes a while, that the machine has more GPUs than are named."""
        present = torch.cuda.device_count() if self._first.device.type == "cuda" else 0
        unnamed = self.settings.device in ("auto", "cuda")
        if unnamed and present > 1 and count * self._first.item_seconds > _WORTH_A_NOTE:
            self.notes.append(
                f"one of {present} CUDA devices is used; device='cuda:all' uses all of them"
            )

    def _shape(self, split: Split) -> int:
        """Return how many items every batch of a split has, once it is filled up.

        It follows from the split alone, not from the rows that are missing: what is stored does not
        decide. An engine that is made for one shape keeps it.
        """
        size = self.settings.batch_size
        return max(1, min(size, len(split))) if self._first.any_shape else size

    def tell(self, reporter: Reporter) -> None:
        """Report, once, how the network ran, and what is odd about items that could be read."""
        for note in (*self.notes, *remark_notes(self.remarks, self.cuts[0].inputs.unit)):
            reporter.note(note)
        self.remarks, self.notes = {}, []


def extract(
    cuts: Backbone | Sequence[Backbone],
    split: Split,
    *,
    settings: Extraction | None = None,
    on_bad: OnBad = "raise",
    reporter: Reporter | None = None,
) -> FeatureRows:
    """Compute the features of a split in memory, without a cache.

    Nothing is kept of the trials of ``precision='auto'`` and ``engine='auto'`` either.

    Args:
        cuts: one network, cut at one or several places.
        split: the items.
        settings: batch size, precision, device.
        on_bad: ``raise`` after everything readable has been computed, or ``skip``.
        reporter: shown progress, and what is skipped.

    Returns:
        ``indices`` says which items have a row; all of them, unless some were skipped.

    Raises:
        BadFilesError: items cannot be read (``on_bad="raise"``).
        BackboneError: rows depend on the batch or on randomness.
    """
    reporter = reporter or SilentReporter()
    cuts = (cuts,) if isinstance(cuts, Backbone) else tuple(cuts)
    settings, why = settled(settings or Extraction(), cuts, split, len(split))
    if why:
        reporter.note(why)
    with (
        Extractor(cuts, settings) as extractor,
        reporter.task("extract features", len(split), cuts[0].inputs.unit) as task,
    ):
        parts = list(extractor.rows(split, task=task))
    extractor.tell(reporter)
    settle_bad_items(extractor.bad, on_bad, reporter)
    if not parts:
        raise DataError("none of the items can be read", hint="see the reasons above")
    indices = np.concatenate([part.indices for part in parts])
    order = np.argsort(indices, kind="stable")
    blocks = zip(*(part.features for part in parts), strict=True)
    return FeatureRows(indices[order], tuple(np.concatenate(block)[order] for block in blocks))


__all__ = ["Extractor", "FeatureRows", "extract"]
