"""Batches of pixels, decoded ahead of the consumer by a pool of threads."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from headstart.core.errors import BadFilesError
from headstart.core.progress import Reporter, SilentReporter
from headstart.core.wording import count, quoted
from headstart.data.dataset import Split
from headstart.data.decoding import UndecodableError
from headstart.data.preprocessing import Preprocessing
from headstart.data.views import View

OnBad = Literal["raise", "skip"]
_CHUNK = 16  # images per task: hand-over costs little beside 16 decodings, and chunks still spread


@dataclass(frozen=True)
class Batch:
    """Some items, ready for :meth:`Preprocessing.normalise`.

    Attributes:
        indices: ``(m,) int64``, positions in the split.
        pixels: ``(m, 3, h, w) uint8``, RGB, contiguous.
    """

    indices: NDArray[np.int64]
    pixels: torch.Tensor

    def __len__(self) -> int:
        return len(self.indices)


@dataclass(frozen=True)
class BadItem:
    """An item that could not be decoded: its position in the split, where it stands, and why."""

    index: int
    origin: str
    reason: str


class BatchReader(Iterator[Batch]):
    """The iterator that :func:`read_batches` returns.

    Attributes:
        bad: the items that could not be decoded so far, in the order asked for; all of them once
            the iterator is exhausted.
    """

    def __init__(self, batches: Iterator[Batch], bad: list[BadItem]) -> None:
        self._batches = batches
        self.bad = bad

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
    preprocessing: Preprocessing,
    *,
    batch_size: int,
    view: View | None = None,
    workers: int | None = None,
    on_bad: OnBad = "raise",
    reporter: Reporter | None = None,
) -> BatchReader:
    """Decode, resize and crop items in threads, ahead of the consumer, in order.

    A bad item does not stop the others: its batch comes without it (a batch of bad items only
    does not come at all), and everything readable has been yielded before the bad ones are told.

    Args:
        split: the items.
        indices: ``(k,)`` positions in the split, in the order wanted; None: all, in order.
        preprocessing: its ``geometry`` is applied here, ``normalise`` is left to the consumer.
        batch_size: items per batch, before bad ones are taken out.
        view: a numbered augmentation; None: the images as they are (view 0).
        workers: number of threads; None: the processors this process may use, at most 8, which
            a GPU's appetite rarely exceeds. Pillow decodes outside the interpreter lock.
        on_bad: ``raise`` raises after the last batch; ``skip`` leaves bad items out and tells the
            reporter so. Both fill ``reader.bad``.
        reporter: told about skipped items.

    Returns:
        An iterator of :class:`Batch`. About two batches and two chunks per thread are in memory
        at a time. Close it, or drop it, to stop early.

    Raises:
        BadFilesError: after the last batch, listing every bad item (``on_bad="raise"``).
        ValueError: ``batch_size`` below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
    index = np.arange(len(split)) if indices is None else np.asarray(indices)
    index = np.flatnonzero(index) if index.dtype == bool else index.astype(np.int64)
    bad: list[BadItem] = []
    source = _Source(split, preprocessing, view or View())
    batches = _decode_ahead(source, index, batch_size, workers or _workers(), bad)
    return BatchReader(_settle(batches, bad, on_bad, reporter or SilentReporter()), bad)


def _workers() -> int:
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(8, available or 1)


def settle_bad_items(bad: Sequence[BadItem], on_bad: OnBad, reporter: Reporter) -> None:
    """Deal with items that could not be read, once everything readable has been.

    Args:
        bad: the items; nothing happens if there are none.
        on_bad: ``raise`` lists all of them in an error, ``skip`` in a note.
        reporter: told about skipped items.

    Raises:
        BadFilesError: ``on_bad`` is ``raise``.
    """
    if not bad:
        return
    if on_bad == "raise":
        raise BadFilesError(
            tuple((item.origin, item.reason) for item in bad),
            hint="repair or remove them, or leave them out with --bad-files skip (on_bad='skip')",
        )
    named = quoted([f"{item.origin} ({item.reason})" for item in bad], 5)
    are = "is" if len(bad) == 1 else "are"
    reporter.note(f"{count(len(bad), 'item')} cannot be read and {are} left out: {named}.")


def _settle(
    batches: Iterator[Batch], bad: list[BadItem], on_bad: OnBad, reporter: Reporter
) -> Iterator[Batch]:
    yield from batches
    settle_bad_items(bad, on_bad, reporter)


def _decode_ahead(
    source: _Source,
    index: NDArray[np.int64],
    batch_size: int,
    workers: int,
    bad: list[BadItem],
) -> Iterator[Batch]:
    """Keep the threads busy with the batches that come next, and yield them in order."""
    starts = iter(range(0, len(index), batch_size))
    pending: deque[_Pending] = deque()
    ahead = 2 + 2 * workers * _CHUNK // batch_size
    pool = ThreadPoolExecutor(workers, thread_name_prefix="headstart-decode")
    try:
        for start in starts:
            chosen = index[start : start + batch_size]
            pending.append(_Pending(source, chosen, pool))
            if len(pending) > ahead:
                yield from pending.popleft().finish(bad)
        while pending:
            yield from pending.popleft().finish(bad)
    finally:  # also when the consumer stops early
        pool.shutdown(wait=True, cancel_futures=True)


@dataclass(frozen=True)
class _Source:
    """What pixels are made from; shared by all threads."""

    split: Split
    preprocessing: Preprocessing
    view: View

    def fill(
        self, index: NDArray[np.int64], target: NDArray[np.uint8], first: int
    ) -> list[tuple[int, BadItem]]:
        """Decode a chunk into ``target``; return (place in the batch, item) for each bad one."""
        items, failed = self.split.items, []
        for j, i in enumerate(index.tolist()):
            row = int(self.split.rows[i])
            try:
                image = items.image(row)
                key = items.digest(row) if self.view.number else ""
                pixels = self.view.geometry(image, key, self.preprocessing)
                target[j] = pixels.transpose(2, 0, 1)
            except UndecodableError as error:
                failed.append((first + j, BadItem(i, items.origin(row), str(error))))
        return failed


class _Pending:
    """One batch in the making: its memory, and the tasks that fill it."""

    def __init__(self, source: _Source, index: NDArray[np.int64], pool: ThreadPoolExecutor) -> None:
        self.index = index
        size = source.preprocessing.size
        self.pixels = torch.empty((len(index), 3, *size), dtype=torch.uint8)
        target = self.pixels.numpy()
        self.tasks: list[Future[list[tuple[int, BadItem]]]] = [
            pool.submit(
                source.fill,
                index[first : first + _CHUNK],
                target[first : first + _CHUNK],
                first,
            )
            for first in range(0, len(index), _CHUNK)
        ]

    def finish(self, bad: list[BadItem]) -> Iterator[Batch]:
        failed = [failure for task in self.tasks for failure in task.result()]
        if not failed:
            yield Batch(self.index, self.pixels)
            return
        bad += [item for _, item in failed]
        good = np.ones(len(self.index), bool)
        good[[place for place, _ in failed]] = False
        if good.any():
            yield Batch(self.index[good], self.pixels[torch.from_numpy(good)])
