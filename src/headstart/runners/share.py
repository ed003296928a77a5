"""What one worker of any runner does: its own shards first, then whatever others leave undone.

On one machine, and on a disk that locks files, claims say which rows a live process computes, and
nothing waits for a process that has died. Machines that share an object store do not see each
other's claims. There the log of the store says who is alive: a worker that has committed nothing
for a while is taken for dead, and its shards are computed by the others. Was it only slow, a shard
is computed twice and published once.
"""

from __future__ import annotations

import socket
import time
from typing import Protocol

from headstart.cache import FeatureCache, Filling
from headstart.cache.features import compute_features
from headstart.cache.fill import missing_rows
from headstart.extraction import Extractor
from headstart.runners.job import Job, Ran
from headstart.runners.plan import turns

_LEAST_PATIENCE, _SHARDS_OF_PATIENCE = 60.0, 3.0
_POLL_SECONDS, _LONGEST_POLL = 0.2, 5.0
_REMOTE_COMMIT_SECONDS = 60.0
"""On an object store every commit is an object and a record of the log that all machines read: a
worker commits when a shard is complete, and every minute of a long one."""


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
        self._longest = 0.0  # seconds that a shard took
        self._shards = job.shards()
        cache = FeatureCache(job.place)
        self._spaces = tuple(cache.space(cut, job.settings, job.view) for cut in job.cuts)
        self._memory = cache.plans()

    def run(self) -> Ran:
        """Compute until no row is missing that could be computed.

        Raises:
            BackboneError: the rows would depend on the batch or on randomness.
            StoreError: rows cannot be written; what was committed stays.
        """
        begun = time.monotonic()
        remote = self._spaces[0].is_remote
        settings = self.job.settings
        with (
            Extractor(self.job.cuts, settings, self._memory) as extractor,
            Filling(
                self._spaces,
                number=self.job.number,
                batch_size=settings.batch_size,
                storage=settings.storage,
                stages=extractor.stages,
                commit_seconds=_REMOTE_COMMIT_SECONDS if remote else None,
            ) as filling,
        ):
            extractor.ahead = self._ahead()
            self._progress = _Progress(self._told, extractor)
            own, others = turns(len(self._shards), self.index, self.of)
            for number in own:
                self._fill(filling, extractor, number)
            self._help(filling, extractor, [*own, *others], patient=remote)
            self._progress.advance(0)
        done = extractor.done
        found = extractor.throughput() if done else None
        seconds = time.monotonic() - begun
        where, notes = socket.gethostname(), tuple(extractor.notes)
        return Ran(self.index, done, seconds, found, where, notes)

    def _ahead(self) -> int:
        ids = [key for shard in self._shards for key in shard.ids]
        return -(-len(missing_rows(self._spaces, ids, self.job.number)) // self.of)

    def _fill(self, filling: Filling, extractor: Extractor, number: int) -> None:
        """Compute what is missing of one shard and not claimed, and commit it."""
        begun, shard = time.monotonic(), self._shards[number]
        compute = compute_features(extractor, self.job.splits[shard.split], self.job.view)
        before = extractor.done
        filling.fill(shard.ids, compute, self._progress, patient=False)
        if extractor.done > before:
            filling.commit()
            self._longest = max(self._longest, time.monotonic() - begun)

    def _help(
        self, filling: Filling, extractor: Extractor, order: list[int], *, patient: bool
    ) -> None:
        """Compute what others leave undone, until nothing is missing."""
        alive = _Alive(self.of, self._patience_now() if patient else 0.0)
        pause = _POLL_SECONDS
        while open_ := self._open(order, filling.lost):
            alive.see({number: len(ids) for number, ids in open_.items()})
            before = extractor.done, len(filling.lost)
            for number in alive.order(list(open_)):
                if number % self.of == self.index or not alive(number % self.of):
                    self._fill(filling, extractor, number)
                    if patient and (extractor.done, len(filling.lost)) != before:
                        break  # look at the log again: others may be at the same shards
            if (extractor.done, len(filling.lost)) != before:
                pause = _POLL_SECONDS
                continue
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_POLL if patient else _POLL_SECONDS)
            self._progress.advance(0)

    def _patience_now(self) -> float:
        if self._patience is not None:
            return self._patience
        return max(_LEAST_PATIENCE, _SHARDS_OF_PATIENCE * self._longest)

    def _open(self, order: list[int], lost: set[str]) -> dict[int, set[str]]:
        """Return the shards that are incomplete, with their missing ids, in this order."""
        ids = [key for number in order for key in self._shards[number].ids]
        missing = set(missing_rows(self._spaces, ids, self.job.number)) - lost
        if not missing:
            return {}
        found = {number: missing.intersection(self._shards[number].ids) for number in order}
        return {number: ids for number, ids in found.items() if ids}


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


__all__ = ["Share", "Told", "work"]
