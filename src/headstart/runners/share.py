"""What one worker of any runner does: its own shards first, then whatever others leave undone.

On one machine, and on a disk that locks files, claims say which rows a live process computes, and
nothing waits for a process that has died. Machines that share an object store do not see each
other's claims. There the log of the store says who is alive: a worker that has committed nothing
for a while is taken for dead, and its shards are computed by the others. Was it only slow, a shard
is computed twice and published once.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Protocol

from headstart.cache import FeatureCache, Filling
from headstart.cache.computing import compute_features
from headstart.cache.fill import missing_rows
from headstart.extraction import Extractor
from headstart.runners.job import Job, Ran
from headstart.runners.plan import turns

_LEAST_PATIENCE, _SHARDS_OF_PATIENCE = 60.0, 3.0
_POLL_SECONDS, _LONGEST_POLL = 0.2, 5.0
_REMOTE_COMMIT_SECONDS = 60.0
"""On an object store every commit is an object and a record of the log that all machines read: a
worker commits when a shard is complete, and every minute of a long one."""
_COMMIT_SECONDS = 0.25
"""On a disk a commit costs some thousandths of a second of processor time, beside the next batches:
so much work is what a worker that is killed has not committed, and not the portion that it has."""
TOGETHER_SECONDS = 1.0
"""Shards that take less are computed in one go, so that decoding does not begin anew with each, and
claims and commits are few."""


class Told(Protocol):
    """Hears how far a worker is: rows done since the last call, and where its time goes."""

    def __call__(self, done: int, shares: str, /) -> None:
        """Take one report."""


class _Progress:
    """Passes on how many rows an extractor has computed; those of others are theirs to report."""

    def __init__(self, told: Told | None, extractor: Extractor) -> None:
        self._told, self._extractor = told, extractor
        self._done, self._shares = 0, ""

    def advance(self, count: int = 1) -> None:  # noqa: ARG002
        if self._told is not None:
            done, self._done = self._extractor.done - self._done, self._extractor.done
            self._told(done, self._shares)

    def tell(self, text: str) -> None:
        self._shares = text


class Share:
    """The work of one worker.

    Args:
        job: the rows to compute.
        index, of: which worker this is, and of how many.
        told: hears how far it is.
        patience: see :class:`~headstart.runners.table.Crew`.
    """

    def __init__(
        self,
        job: Job,
        index: int,
        of: int,
        told: Told | None = None,
        patience: float | None = None,
    ) -> None:
        self.job, self.index, self.of = job, index, of
        self._told = told
        self._patience = patience
        self._begun = time.monotonic()
        self._longest = 0.0  # seconds that a shard took
        self._complete: set[int] = set()  # shards, as far as was looked
        self._each = 0.0  # seconds that a shard took on the last occasion
        self._shards = job.shards()
        cache = FeatureCache(job.place)
        self._spaces = tuple(cache.space(cut, job.settings, job.view) for cut in job.cuts)
        self._memory = cache.plans()

    def __enter__(self) -> Share:
        settings = self.job.settings
        with contextlib.ExitStack() as open_:
            self.extractor = open_.enter_context(Extractor(self.job.cuts, settings, self._memory))
            self.filling = open_.enter_context(
                Filling(
                    self._spaces,
                    number=self.job.number,
                    batch_size=settings.batch_size,
                    storage=settings.storage,
                    stages=self.extractor.stages,
                    commit_seconds=_REMOTE_COMMIT_SECONDS if self.is_remote else _COMMIT_SECONDS,
                )
            )
            self.extractor.ahead = self._ahead()
            self._progress = _Progress(self._told, self.extractor)
            self._close = open_.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._close.close()

    @property
    def is_remote(self) -> bool:
        """Whether workers on other machines do not see the claims of this one."""
        return self._spaces[0].is_remote

    @property
    def count(self) -> int:
        """How many shards the job has."""
        return len(self._shards)

    def run(self) -> Ran:
        """Compute until no row is missing that could be computed.

        Raises:
            BackboneError: the rows would depend on the batch or on randomness.
            StoreError: rows cannot be written; what was committed stays.
        """
        with self:
            own, others = turns(self.count, self.index, self.of)
            for numbers in self._together(own):
                self.fill(numbers, commit=self.is_remote)
            self.filling.commit()
            self._help([*own, *others], patient=self.is_remote)
            self._progress.advance(0)
        return self.ran()

    def ran(self) -> Ran:
        """Return what was done so far."""
        done = self.extractor.done
        found = self.extractor.throughput() if done else None
        seconds = time.monotonic() - self._begun
        notes = tuple(self.extractor.notes)
        return Ran(self.index, done, seconds, found, socket.gethostname(), notes)

    def _ahead(self) -> int:
        ids = [key for shard in self._shards for key in shard.ids]
        return -(-len(missing_rows(self._spaces, ids, self.job.number)) // self.of)

    def fill(self, numbers: Sequence[int], *, commit: bool = True) -> float:
        """Compute what is missing of some shards and not claimed; return the seconds of a shard.

        Args:
            numbers: of the shards.
            commit: wait until it is committed; else that goes on beside the next shards.
        """
        begun, before = time.monotonic(), self.extractor.done
        for split, group in groupby(numbers, lambda number: self._shards[number].split):
            compute = compute_features(self.extractor, self.job.splits[split], self.job.view)
            ids = [key for number in group for key in self._shards[number].ids]
            self.filling.fill(ids, compute, self._progress, patient=False)
        if self.extractor.done > before:
            if commit:
                self.filling.commit()
            else:
                self.filling.commit_soon()
            self._each = (time.monotonic() - begun) / len(numbers)
            self._longest = max(self._longest, self._each)
        return self._each

    def _together(self, numbers: Sequence[int]) -> Iterator[Sequence[int]]:
        """Yield shards in the groups in which they are computed, in order.

        On an object store each is alone: its commit is what others know this worker by.
        """
        at = 0
        while at < len(numbers):
            size = 1 if self.is_remote else together(self._each, len(numbers) - at)
            yield numbers[at : at + size]
            at += size

    def left(self, numbers: Sequence[int]) -> dict[int, int]:
        """Return how many rows are missing and can be computed, of those shards that lack any."""
        return {number: len(ids) for number, ids in self._open(numbers).items()}

    def _help(self, order: list[int], *, patient: bool) -> None:
        """Compute what others leave undone, until nothing is missing."""
        alive = _Alive(self.of, self._patience_now() if patient else 0.0)
        pause = _POLL_SECONDS
        while open_ := self._open(order):
            alive.see({number: len(ids) for number, ids in open_.items()})
            before = self._settled()
            free = [
                number
                for number in alive.order(list(open_))
                if number % self.of == self.index or not alive(number % self.of)
            ]
            for numbers in self._together(free):
                self.fill(numbers)
                if patient and self._settled() != before:
                    break  # look at the log again: others may be at the same shards
            if self._settled() != before:
                pause = _POLL_SECONDS
                continue
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_POLL if patient else _POLL_SECONDS)
            self._progress.advance(0)

    def _settled(self) -> tuple[int, int]:
        """Return how many rows were computed here, and how many could not be."""
        return self.extractor.done, len(self.filling.lost)

    def _patience_now(self) -> float:
        if self._patience is not None:
            return self._patience
        return max(_LEAST_PATIENCE, _SHARDS_OF_PATIENCE * self._longest)

    def _open(self, order: Sequence[int]) -> dict[int, set[str]]:
        """Return the shards that are incomplete, with their missing ids, in this order."""
        order = [number for number in order if number not in self._complete]
        ids = [key for number in order for key in self._shards[number].ids]
        missing = set(missing_rows(self._spaces, ids, self.job.number)) - self.filling.lost
        found = {number: missing.intersection(self._shards[number].ids) for number in order}
        self._complete.update(number for number, ids in found.items() if not ids)
        return {number: ids for number, ids in found.items() if ids}


def together(each: float, left: int) -> int:
    """Return how many shards are best computed in one go.

    Args:
        each: seconds that one takes; 0: unknown.
        left: shards that the worker may take; the last ones are smaller portions, so that all
            workers end at the same time.
    """
    return max(1, min(int(TOGETHER_SECONDS / each) if each else 1, -(-left // 2)))


class _Alive:
    """Which workers still commit rows, as far as the log says.

    A worker takes its shards in their order, and helpers take the first open one of another last:
    while that one changes, its worker is alive.
    """

    def __init__(self, of: int, patience: float) -> None:
        self._of, self._patience = of, patience
        self._at: dict[int, tuple[tuple[int, int], float]] = {}  # by worker: where, since when
        self._dead: set[int] = set()

    def see(self, missing: dict[int, int]) -> None:
        """Take in how many rows of each shard are missing."""
        now = time.monotonic()
        first = {n % self._of: n for n in sorted(missing, reverse=True)}
        for worker, number in first.items():
            place = (number, missing[number])
            if worker not in self._at or self._at[worker][0] != place:
                self._at[worker] = (place, now)

    def order(self, numbers: list[int]) -> list[int]:
        """Return shards with the one that each worker is at behind all others."""
        current = {place[0] for place, _ in self._at.values()}
        return sorted(numbers, key=lambda number: number in current)

    def __call__(self, worker: int) -> bool:
        """Whether a worker's shards are better left to it."""
        if time.monotonic() - self._at[worker][1] >= self._patience:
            self._dead.add(worker)
        return worker not in self._dead


def work(
    job: Job,
    index: int,
    of: int,
    told: Told | None = None,
    patience: float | None = None,
) -> Ran:
    """Do one worker's share of a job, and what others leave undone; see :class:`Share`."""
    return Share(job, index, of, told, patience).run()


__all__ = ["Share", "Told", "together", "work"]
