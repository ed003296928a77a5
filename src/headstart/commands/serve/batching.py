"""What arrives together is computed together: threads that decode, one that runs the network.

A batch is made of what is ready when the network is free. It waits, a few milliseconds at most,
only while other items are being decoded: one that is alone is computed at once, and under load
batches fill up while the batch before them is computed.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from headstart.commands.serve.fault import Fault, RefusedError
from headstart.core.errors import HeadstartError
from headstart.data.content import Content

Row = dict[str, Any]


@dataclass(frozen=True)
class Given:
    """One item of a request.

    Attributes:
        name: what the answer calls it.
        content: of the item; or why it has none.
    """

    name: str
    content: Content | Fault


class Predicts(Protocol):
    """What a batcher needs of the run."""

    size: int

    def sample(self, content: Content) -> Any | Fault:
        """Decode one item; called in several threads."""

    def rows(self, samples: Sequence[Any], names: Sequence[str]) -> Sequence[Row | Fault]:
        """Predict for a batch; called in one thread."""


@dataclass(eq=False)
class _Job:
    name: str
    sample: Any
    answered: asyncio.Future[Row | Fault]
    loop: asyncio.AbstractEventLoop


class Batcher:
    """A bounded queue in front of a network. Its methods belong to one event loop.

    Args:
        model: decodes and predicts.
        queue: items that may be decoded, wait or be computed.
        wait: seconds that a batch waits for items that are being decoded.
        workers: threads that decode.
        seen: told the size and the seconds of every batch.

    Attributes:
        pending: items that are decoded, wait or are computed.
    """

    def __init__(
        self, model: Predicts, *, queue: int, wait: float, workers: int, seen: Any = None
    ) -> None:
        self._model, self._limit, self._wait, self._seen = model, queue, wait, seen
        self.pending = 0
        self._ready: deque[_Job] = deque()
        self._decoding, self._closed = 0, False
        self._item_seconds = 0.05
        self._changed = threading.Condition()
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="headstart-decode")
        self._thread = threading.Thread(target=self._run, name="headstart-network", daemon=True)
        self._thread.start()

    async def answer(self, items: Sequence[Given]) -> list[Row | Fault]:
        """Return a row or a fault for every item, in order.

        Raises:
            RefusedError: the queue has no room for all of them.
        """
        count = len(items)
        if self._closed or self.pending + count > self._limit:
            raise RefusedError(self._full(count))
        self.pending += count
        loop = asyncio.get_running_loop()
        waiting: list[asyncio.Future[Row | Fault]] = []
        try:
            waiting += [self._begin(item, loop) for item in items]
            return [await each for each in waiting]
        finally:
            for each in waiting:  # what nobody waits for any more is not computed
                each.cancel()
            self.pending -= count

    def close(self) -> None:
        """Compute what is pending, and end the threads."""
        self._pool.shutdown(wait=True)
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _full(self, count: int) -> Fault:
        retry = min(60, max(1, math.ceil(self.pending * self._item_seconds)))
        room = max(0, self._limit - self.pending)
        return Fault(
            f"room in the queue of {self._limit:,} for {count:,} more",
            f"room for {room:,}",
            f"send it again in {retry} s",
            503,
            retry,
        )

    def _begin(self, item: Given, loop: asyncio.AbstractEventLoop) -> asyncio.Future[Row | Fault]:
        answered: asyncio.Future[Row | Fault] = loop.create_future()
        if isinstance(item.content, Fault):
            answered.set_result(item.content)
            return answered
        with self._changed:
            self._decoding += 1
        self._pool.submit(self._decode, item.content, _Job(item.name, None, answered, loop))
        return answered

    def _decode(self, content: Content, job: _Job) -> None:
        try:
            sample = None if job.answered.done() else self._model.sample(content)
        except BaseException as error:
            sample = _failed(error)
        with self._changed:
            self._decoding -= 1
            if not isinstance(sample, Fault) and not job.answered.done():
                job.sample = sample
                self._ready.append(job)
            self._changed.notify_all()
        if isinstance(sample, Fault):
            _settle([job], [sample])

    def _run(self) -> None:
        while True:
            jobs = self._next()
            if not jobs:
                return
            begun = time.perf_counter()
            try:
                found = self._model.rows([job.sample for job in jobs], [job.name for job in jobs])
            except BaseException as error:  # whatever a network raises: the next batch may do
                found = [_failed(error)] * len(jobs)
            seconds = time.perf_counter() - begun
            self._item_seconds += 0.2 * (seconds / len(jobs) - self._item_seconds)
            if self._seen is not None:
                self._seen(len(jobs), seconds)
            _settle(jobs, found)

    def _next(self) -> list[_Job]:
        """Return the next batch; empty once there is nothing left and the queue is closed."""
        size = self._model.size
        with self._changed:
            while True:
                while not self._ready and not self._closed:
                    self._changed.wait()
                end = time.monotonic() + self._wait
                while len(self._ready) < size and self._decoding:
                    left = end - time.monotonic()
                    if left <= 0 or not self._changed.wait(left):
                        break
                taken = self._taken(size)
                if taken or self._closed:
                    return taken

    def _taken(self, size: int) -> list[_Job]:
        """Take up to so many jobs out of the queue that somebody waits for."""
        taken: list[_Job] = []
        while self._ready and len(taken) < size:
            job = self._ready.popleft()
            if not job.answered.done():
                taken.append(job)
        return taken


def _settle(jobs: Sequence[_Job], found: Sequence[Row | Fault]) -> None:
    """Hand results to the event loop, in one call for all of them."""

    def settle() -> None:
        for job, row in zip(jobs, found, strict=True):
            if not job.answered.done():
                job.answered.set_result(row)

    try:
        jobs[0].loop.call_soon_threadsafe(settle)
    except RuntimeError:  # the loop has ended, and nobody waits any more
        pass


def _failed(error: BaseException) -> Fault:
    """Say that the service failed; what is no message of ours may name what is private."""
    told = str(error) if isinstance(error, HeadstartError) else type(error).__name__
    return Fault("a prediction", f"the service failed ({told})", "tell the operator", 500)


__all__ = ["Batcher", "Given", "Predicts", "Row"]
