"""Batches of items, decoded ahead of the consumer by a pool of threads."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from headstart.core.arguments import Arguments
from headstart.core.errors import BadFilesError, HeadstartError, UnreachableError
from headstart.core.progress import Reporter, SilentReporter
from headstart.core.stages import Stages, stage
from headstart.core.wording import count, quoted
from headstart.data.content import UndecodableError
from headstart.data.dataset import Split
from headstart.data.inputs import Inputs, NumberedView
from headstart.data.remarks import listening, remark_notes

OnBad = Literal["raise", "skip"]
_CHUNK = 16  # items per task: hand-over costs little beside 16 decodings, and chunks still spread


@dataclass(frozen=True)
class Batch:
    """Some decoded items.

    Attributes:
        indices: ``(m,) int64``, positions in the split.
        samples: what :meth:`Inputs.sample` made of them, m in number.
        inputs: of the backbone.
    """

    indices: NDArray[np.int64]
    samples: Sequence[Any]
    inputs: Inputs

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def collated(self) -> Arguments:
        """The samples as one batch, on the CPU."""
        return self.inputs.collate(self.samples)

    def arguments(self, device: torch.device) -> Arguments:
        """Return what the network is called with, on its device."""
        return self.inputs.finish(self.collated.to(device))


@dataclass(frozen=True)
class BadItem:
    """An item that could not be decoded: its position in the split, where it stands, and why."""

    index: int
    origin: str
    reason: str


class BatchReader(Iterator[Batch]):
    """The iterator that :func:`read_batches` returns.

    Attributes:
        bad: the items that could not be decoded so far, in the order of reading; all of them once
            the iterator is exhausted.
        remarks: what is odd about items that could be decoded, with their origins.
    """

    def __init__(
        self, batches: Iterator[Batch], bad: list[BadItem], remarks: dict[str, list[str]]
    ) -> None:
        self._batches = batches
        self.bad = bad
        self.remarks = remarks

    def __iter__(self) -> BatchReader:
        return self

    def __next__(self) -> Batch:
        return next(self._batches)

    def close(self) -> None:
        """Stop the threads; later calls of ``next`` find no more batches."""
        close = getattr(self._batches, "close", None)
        if close is not None:
            close()


def read_batches(
    split: Split,
    indices: ArrayLike | None,
    inputs: Inputs,
    *,
    batch_size: int,
    view: NumberedView | None = None,
    workers: int | None = None,
    on_bad: OnBad = "raise",
    reporter: Reporter | None = None,
    stages: Stages | None = None,
) -> BatchReader:
    """Decode items in threads, ahead of the consumer, and yield them as batches, in order.

    A batch is divided where its inputs say that items cannot be joined (:meth:`Inputs.shape`). A
    bad item does not stop the others: its batch comes without it (a batch of bad items only
    does not come at all), and bad items are reported after everything readable has been yielded.

    Args:
        split: the items.
        indices: ``(k,)`` positions in the split, in the order wanted; None: all, in order.
        inputs: decode the items here; ``Batch.arguments`` makes the network's arguments.
        batch_size: items per batch, before bad ones are taken out.
        view: a numbered augmentation; None: the items without augmentation (view 0).
        workers: number of threads; None: the processors this process may use, at most 8, which
            a GPU's appetite rarely exceeds. Pillow decodes outside the interpreter lock.
        on_bad: ``raise`` raises after the last batch; ``skip`` leaves bad items out and tells the
            reporter so. Both fill ``reader.bad``.
        reporter: shown the items that are skipped.
        stages: takes the time of reading, decoding and resizing.

    Returns:
        An iterator of :class:`Batch`. About two batches and two chunks per thread are in memory
        at a time. Close it, or drop it, to stop early.

    Raises:
        BadFilesError: after the last batch, listing every bad item (``on_bad="raise"``).
        DataError: the items are of another kind than the inputs.
        ValueError: ``batch_size`` below 1.
    """
    inputs.check_items(split.items)
    inputs.check_ready()
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
    index = np.arange(len(split)) if indices is None else np.asarray(indices)
    index = np.flatnonzero(index) if index.dtype == bool else index.astype(np.int64)
    bad: list[BadItem] = []
    augmented = view if view is not None and view.number else None
    decoder = _Decoder(split, inputs, augmented, stages or Stages())
    batches = _decode_ahead(decoder, index, batch_size, workers or default_workers(), bad)
    settled = _settle(batches, decoder, bad, on_bad, reporter or SilentReporter())
    return BatchReader(settled, bad, decoder.remarks)


def default_workers() -> int:
    """Return how many threads decode: the processors that this process may use, at most 8."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(8, available or 1)


def settle_bad_items(bad: Sequence[BadItem], on_bad: OnBad, reporter: Reporter) -> None:
    """Deal with items that could not be read, once everything readable has been.

    Args:
        bad: the items; nothing happens if there are none.
        on_bad: ``raise`` lists all of them in an error, ``skip`` in a note.
        reporter: shown the items that are skipped.

    Raises:
        BadFilesError: ``on_bad`` is ``raise``.
    """
    if not bad:
        return
    if on_bad == "raise":
        raise BadFilesError(
            tuple((item.origin, item.reason) for item in bad),
            hint="repair or remove them, or skip them with on_bad='skip'",
        )
    named = quoted([f"{item.origin} ({item.reason})" for item in bad], 5)
    are = "is" if len(bad) == 1 else "are"
    reporter.note(f"{count(len(bad), 'item')} cannot be read and {are} skipped: {named}.")


def _settle(
    batches: Iterator[Batch],
    decoder: _Decoder,
    bad: list[BadItem],
    on_bad: OnBad,
    reporter: Reporter,
) -> Iterator[Batch]:
    yield from batches
    for note in remark_notes(decoder.remarks, decoder.inputs.unit):
        reporter.note(note)
    settle_bad_items(bad, on_bad, reporter)


def _decode_ahead(
    decoder: _Decoder,
    index: NDArray[np.int64],
    batch_size: int,
    workers: int,
    bad: list[BadItem],
) -> Iterator[Batch]:
    """Keep the threads busy with the batches that come next, and yield them in order."""
    pending: deque[tuple[NDArray[np.int64], list[Future[list[Any]]]]] = deque()
    ahead = 2 + 2 * workers * _CHUNK // batch_size
    pool = ThreadPoolExecutor(workers, thread_name_prefix="headstart-decode")

    def submit(chosen: NDArray[np.int64]) -> list[Future[list[Any]]]:
        chunks = (chosen[first : first + _CHUNK] for first in range(0, len(chosen), _CHUNK))
        return [pool.submit(decoder.decode, chunk) for chunk in chunks]

    try:
        for start in range(0, len(index), batch_size):
            chosen = index[start : start + batch_size]
            pending.append((chosen, submit(chosen)))
            if len(pending) > ahead:
                yield from decoder.batch(*pending.popleft(), bad)
        while pending:
            yield from decoder.batch(*pending.popleft(), bad)
    finally:  # also when the consumer stops early
        pool.shutdown(wait=True, cancel_futures=True)


@dataclass(frozen=True)
class _Decoder:
    """What samples are made from; shared by all threads."""

    split: Split
    inputs: Inputs
    view: NumberedView | None
    stages: Stages
    remarks: dict[str, list[str]] = field(default_factory=dict)

    def decode(self, index: NDArray[np.int64]) -> list[Any]:
        """Return for every item its sample, or a :class:`BadItem`."""
        with self.stages.collecting():
            return self._decoded(index)

    def _decoded(self, index: NDArray[np.int64]) -> list[Any]:
        items = self.split.items
        found: list[Any] = []
        waiting: list[tuple[int, Any]] = []
        for i in index.tolist():
            row = int(self.split.rows[i])
            try:
                with stage("read"):
                    content = items.checked(row)
                    key = items.digest(row) if self.view is not None else ""
                with listening() as said, stage("decode"):
                    encoded = None if self.view is not None else self.inputs.encoded(content)
                    if encoded is None:
                        found.append(self.inputs.sample(content, self.view, key))
                    else:
                        waiting.append((len(found), encoded))
                        found.append(i)
                for what in said:
                    self.remarks.setdefault(what, []).append(items.origin(row))
            except UnreachableError:
                raise
            except Exception as error:  # of a decoder or of the user's own items: one bad item
                found.append(BadItem(i, items.origin(row), _reason(error)))
        self._decode_together(waiting, found)
        return found

    def _decode_together(self, waiting: list[tuple[int, Any]], found: list[Any]) -> None:
        """Decode what waits, and put the samples in the place of their positions."""
        if not waiting:
            return
        with stage("decode"):
            made = self.inputs.decoded([encoded for _, encoded in waiting])
        for (place, _), sample in zip(waiting, made, strict=True):
            if isinstance(sample, Exception):
                i = found[place]
                row = int(self.split.rows[i])
                sample = BadItem(i, self.split.items.origin(row), _reason(sample))
            found[place] = sample

    def batch(
        self, index: NDArray[np.int64], tasks: list[Future[list[Any]]], bad: list[BadItem]
    ) -> Iterator[Batch]:
        """Yield the items that could be decoded, if any, and list the others in ``bad``.

        Neighbours of another shape are a batch of their own.
        """
        found = [sample for task in tasks for sample in task.result()]
        good = np.array([not isinstance(sample, BadItem) for sample in found], bool)
        bad += [sample for sample in found if isinstance(sample, BadItem)]
        samples, kept = [s for s in found if not isinstance(s, BadItem)], index[good]
        shapes = [self.inputs.shape(sample) for sample in samples]
        start = 0
        for end in range(1, len(samples) + 1):
            if end == len(samples) or shapes[end] != shapes[start]:
                yield Batch(kept[start:end], samples[start:end], self.inputs)
                start = end


def _reason(error: Exception) -> str:
    """Return why one item cannot be decoded; what was not foreseen comes with its kind."""
    if isinstance(error, UndecodableError | HeadstartError):
        return str(error)
    if isinstance(error, MemoryError):
        return "it needs more memory than is available"
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def unreadable(
    split: Split, inputs: Inputs, *, workers: int | None = None, reporter: Reporter | None = None
) -> tuple[BadItem, ...]:
    """Decode every item of a split once, and return those that cannot be decoded.

    Without this check a broken file would end the first epoch instead of the first minute.
    """
    reader = read_batches(split, None, inputs, batch_size=64, workers=workers, on_bad="skip")
    reporter = reporter or SilentReporter()
    with reporter.task(f"check the {inputs.unit}", len(split), inputs.unit) as task:
        for batch in reader:
            task.advance(len(batch))
    return tuple(reader.bad)


def decode_seconds(
    split: Split, inputs: Inputs, *, workers: int | None = None, items: int = 64
) -> float:
    """Measure reading and decoding, in seconds an item, on items spread over the split."""
    places = np.unique(np.linspace(0, len(split) - 1, num=min(items, len(split)), dtype=np.int64))
    begun = time.perf_counter()
    for _ in read_batches(split, places, inputs, batch_size=16, workers=workers, on_bad="skip"):
        pass
    return (time.perf_counter() - begun) / len(places)
