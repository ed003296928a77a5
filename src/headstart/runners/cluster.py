"""Ray: actors that keep the network and take one shard after the other.

An actor commits shards and returns how many rows it computed, never the rows. The driver holds
nothing that is not in the store, so that its death loses nothing that was committed. An actor is
given as many shards as it computes in a second, one at least, and has the next portion already;
what it has when it or its node dies is given to another one.
Without an address a cluster of this machine is started, and ended with the job.
"""

from __future__ import annotations

import contextlib
import importlib
import pickle
import re
import socket
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from headstart.cache import FeatureCache
from headstart.core.errors import HeadstartError, MissingExtraError
from headstart.core.progress import Progress, Reporter, tell
from headstart.runners.job import Job, Ran, summary
from headstart.runners.joining import joined
from headstart.runners.on_machine import on_own_device, settings_of
from headstart.runners.share import Share, together
from headstart.runners.table import Crew

_DEATHS = 3
_OLD_SECONDS = 60.0
"""A shard that an actor has had for this long is given to an idle one, too: its node may be slow,
or may never have come."""
_AGAIN_SECONDS = 1.0
_AHEAD = 2  # portions that an actor has: it does not wait for the driver between two
_GROW_SECONDS = 10.0  # between two looks at how large the cluster is
_LEAVE_SECONDS = 30.0


def run(job: Job, crew: Crew, reporter: Reporter) -> Sequence[Ran]:
    """Compute the missing rows of a job on a Ray cluster.

    Raises:
        MissingExtraError: Ray is not installed.
        ConfigError: the job cannot be sent, or there is no cluster at the address.
        HeadstartError: what an actor raised, or that they keep dying.
    """
    try:
        ray: Any = importlib.import_module("ray")
    except ImportError:
        raise MissingExtraError("ray", "ray", "runner='ray'") from None
    missing = len(job.missing(FeatureCache(job.place)))
    unit, payload = job.cuts[0].inputs.unit, job.pickled()
    with joined(ray, crew), reporter.task("extract features", missing, unit) as progress:
        begun = time.monotonic()
        found = _Actors(ray, ray.put(payload), job, crew, progress, reporter).run()
        seconds = time.monotonic() - begun
    for note in dict.fromkeys(note for ran in found for note in ran.notes):
        reporter.note(note)
    if said := summary(found, unit, seconds):
        reporter.note(said)
    return found


@dataclass(frozen=True)
class _Said:
    """What an actor says of its shards.

    Attributes:
        done: rows that it has computed so far.
        left: shards of which others have claimed rows.
        each: seconds that a shard took.
        shares: where its time goes.
    """

    done: int
    left: frozenset[int]
    each: float
    shares: str


class _Worker:
    """One actor: a share of the job, open as long as the actor lives."""

    def __init__(self, payload: bytes, index: int, of: int, threads: int | None) -> None:
        job: Job = pickle.loads(payload)  # noqa: S301  from our own driver
        self._shares = ""
        job = on_own_device(job)
        self._share = Share(settings_of(job, 0, 1, threads), index, of, self._told).__enter__()

    def _told(self, done: int, shares: str) -> None:  # noqa: ARG002
        self._shares = shares

    def where(self) -> str:
        """Return the machine, once the actor is there."""
        return socket.gethostname()

    def shards(self, numbers: tuple[int, ...]) -> _Said | HeadstartError:
        """Compute and commit some shards."""
        try:
            each = self._share.fill(numbers)
            done, left = self._share.extractor.done, self._share.left(numbers)
            return _Said(done, frozenset(left), each, self._shares)
        except HeadstartError as error:
            return error

    def leave(self) -> Ran:
        """Close the share, and return what was done."""
        self._share.__exit__()
        return self._share.ran()


@dataclass(frozen=True)
class _Portion:
    """Shards that an actor has.

    Attributes:
        actor: its number.
        shards: their numbers.
        since: when they were given to it.
    """

    actor: int
    shards: tuple[int, ...]
    since: float


class _Actors:
    """The actors of one job, and the shards that are not done.

    An actor is asked for before there is room for it: that is what makes a cluster that grows by
    itself grow. It gets its first shard when it is there. Where the number of workers is not given,
    further actors are asked for when the cluster has grown.
    """

    def __init__(
        self, ray: Any, payload: Any, job: Job, crew: Crew, progress: Progress, reporter: Reporter
    ) -> None:
        self._ray, self._payload, self._crew = ray, payload, crew
        self._progress, self._reporter = progress, reporter
        shards = job.shards()
        self._waiting: deque[tuple[float, int]] = deque((0.0, n) for n in range(len(shards)))
        self._open = set(range(len(shards)))
        self._flying: dict[Any, _Portion] = {}
        self._each: dict[int, float] = {}  # seconds that a shard takes an actor
        self._coming: dict[Any, int] = {}  # actors that are not there yet
        gpu = job.settings.device != "cpu" and ray.cluster_resources().get("GPU", 0) > 0
        gpus = crew.gpus if crew.gpus is not None else 1 if gpu else 0
        self._cpus = 1.0 if crew.cpus is None else crew.cpus
        # Beside a GPU decode as many threads as the node has processors.
        self._threads = None if gpus else max(1, round(self._cpus))
        self._kind = ray.remote(num_cpus=self._cpus, num_gpus=gpus)(_Worker)
        self._actors: dict[int, Any] = {}
        self._places: dict[int, str] = {}  # the machine of each actor that is there
        self._done: dict[int, int] = {}
        self._shares: dict[int, str] = {}
        self._deaths = 0
        self._begun = self._grown = time.monotonic()
        self._said = False

    def run(self) -> list[Ran]:
        """Return when no shard is left."""
        self._grow()
        try:
            while self._open:
                self._hand_out()
                waited = [*self._flying, *self._coming]
                if not waited:
                    time.sleep(_AGAIN_SECONDS / 4)  # what is left others compute
                ready, _ = self._ray.wait(waited, timeout=_AGAIN_SECONDS)
                for reference in ready:
                    if reference in self._coming:
                        self._came(reference)
                    elif reference in self._flying:
                        self._take(reference)
                self._look()
            return self._leave()
        finally:
            for actor in self._actors.values():
                self._ray.kill(actor)

    def _wanted(self) -> int:
        """Return how many actors there should be: no more than there are shards."""
        room = self._ray.cluster_resources().get("CPU", 1) / self._cpus
        return max(1, min(self._crew.workers or max(1, int(room + 1e-9)), len(self._open)))

    def _grow(self) -> None:
        """Ask for the actors that are missing."""
        for index in range(len(self._actors), self._wanted()):
            self._start(index)

    def _look(self) -> None:
        """See from time to time whether the cluster has grown; say so where nobody comes."""
        now = time.monotonic()
        if self._crew.workers is None and now - self._grown > _GROW_SECONDS:
            self._grown = now
            self._grow()
        if not self._places and not self._said and now - self._begun > _OLD_SECONDS:
            self._said = True
            self._reporter.note(
                f"no actor has room on the cluster yet; {len(self._coming)} wait for"
                f" {self._cpus:g} processors each"
            )

    def _start(self, index: int) -> None:
        of = max(1, self._wanted())
        actor = self._kind.remote(self._payload, index, of, self._threads)
        self._actors[index], self._done[index] = actor, 0
        self._coming[actor.where.remote()] = index

    def _came(self, reference: Any) -> None:
        """Take in an actor that is there, or that could not begin."""
        index = self._coming.pop(reference)
        try:
            self._places[index] = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            raise RuntimeError(f"in actor {index}: {error}") from error
        except self._ray.exceptions.RayError as error:
            self._lost(index, (), error)

    def _hand_out(self) -> None:
        """Give every idle actor a portion, and a second one for when the first is done."""
        for depth in range(1, _AHEAD + 1):
            if depth > 1 and len(self._waiting) < len(self._places):
                return  # the last ones: to whoever is idle first
            busy = Counter(portion.actor for portion in self._flying.values())
            for index in self._places:
                numbers = () if busy[index] >= depth else self._next(index)
                if numbers:
                    reference = self._actors[index].shards.remote(numbers)
                    self._flying[reference] = _Portion(index, numbers, time.monotonic())

    def _next(self, index: int) -> tuple[int, ...]:
        """Return shards that nobody has, or the oldest that another actor has had for long."""
        now = time.monotonic()
        found: list[int] = []
        later: list[tuple[float, int]] = []
        fair = len(self._waiting) // max(1, len(self._places))
        wanted = together(self._each.get(index, 0.0), fair)
        while self._waiting and len(found) < wanted:
            due, number = self._waiting.popleft()
            if number in self._open and due <= now:
                found.append(number)
            elif number in self._open:
                later.append((due, number))
        self._waiting.extend(later)
        return tuple(found) or self._old(index, now)

    def _old(self, index: int, now: float) -> tuple[int, ...]:
        flying = Counter(number for portion in self._flying.values() for number in portion.shards)
        old = [
            (portion.since, number)
            for portion in self._flying.values()
            for number in portion.shards
            if portion.actor != index and flying[number] == 1 and now - portion.since > _OLD_SECONDS
        ]
        return (min(old)[1],) if old else ()

    def _take(self, reference: Any) -> None:
        """Take what an actor says of its shards, or that it has died."""
        portion = self._flying.pop(reference)
        index = portion.actor
        try:
            said = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            raise RuntimeError(f"in actor {index}: {error}") from error
        except self._ray.exceptions.RayError as error:
            self._lost(index, portion.shards, error)
            return
        if isinstance(said, HeadstartError):
            raise said
        self._shares[index], self._each[index] = said.shares, said.each
        self._progress.advance(said.done - self._done[index])
        self._deaths = 0 if said.done > self._done[index] else self._deaths
        self._done[index] = said.done
        again = time.monotonic() + _AGAIN_SECONDS
        self._waiting.extend((again, number) for number in sorted(said.left))
        self._open.difference_update(set(portion.shards) - said.left)
        tell(self._progress, binding(self._shares, self._places))

    def _lost(self, index: int, shards: Sequence[int], error: Exception) -> None:
        """Give its shards to another actor, and replace the one that died."""
        back = list(shards)
        for other, portion in list(self._flying.items()):
            if portion.actor == index:
                del self._flying[other]
                back += portion.shards
        self._waiting.extendleft((0.0, number) for number in reversed(back))
        self._places.pop(index, None)
        self._deaths += 1
        reason = str(error).strip().splitlines()[0]
        if self._deaths > _DEATHS * len(self._actors):
            raise HeadstartError(
                f"actors of Ray keep dying, and computed nothing in between: {reason}",
                hint="what is committed stays; run it again when the cluster is healthy",
            )
        self._reporter.note(f"actor {index} died; its shards are given to another: {reason}")
        self._start(index)

    def _leave(self) -> list[Ran]:
        """Let all actors commit and report, as far as they are there."""
        leaving = [self._actors[index].leave.remote() for index in self._places]
        ready, _ = self._ray.wait(leaving, num_returns=len(leaving), timeout=_LEAVE_SECONDS)
        found = []
        for reference in ready:
            with contextlib.suppress(self._ray.exceptions.RayError):
                found.append(self._ray.get(reference))
        return found


def binding(shares: dict[int, str], places: dict[int, str]) -> str:
    """Return where the time goes on each node: the stage that leads with most of its actors.

    Args:
        shares: of the stages of each actor, the largest first ("decode 62 %, network 30 %").
        places: the node of each actor.
    """
    nodes: dict[str, list[str]] = {}
    for index, text in sorted(shares.items()):
        if text and index in places:
            nodes.setdefault(places[index], []).append(text.partition(",")[0])
    if len(nodes) < 2:
        leading = [f"{i}: {s.partition(',')[0]}" for i, s in sorted(shares.items()) if s]
        return "actors " + ", ".join(leading[:4]) if leading else ""
    told = []
    for node, leading in list(nodes.items())[:4]:
        stages = Counter(re.sub(r" \d+ %$", "", text) for text in leading)
        stage, _ = stages.most_common(1)[0]
        told.append(f"{node}: {stage} ({len(leading)})")
    more = f", {len(nodes) - 4} more" if len(nodes) > 4 else ""
    return "nodes " + ", ".join(told) + more


__all__ = ["binding", "run"]
