"""Where the time of a pipeline goes: reading, decoding, resizing, the model, writing, waiting.

Stages run at the same time in several threads, so that their times add up to more than the wall
time. Beside it each stage has the processor time of its threads, which is what one of them would
need if nothing else ran on the machine.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass

STAGES = ("read", "decode", "resize", "collate", "model", "write", "waiting")

_COLLECTING: ContextVar[Stages | None] = ContextVar("headstart_stages", default=None)

_IDLE = 0.1
"""A stage that uses less of a processor than this share of its time waits for something else: a
disk, or a device with threads of its own. Then its wall time is what it needs."""


class Stages:
    """Seconds by stage, added up by any number of threads.

    A stage that is entered within another one counts for itself alone.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads: list[dict[str, list[float]]] = []
        self._own = _Thread()

    def __call__(self, stage: str) -> AbstractContextManager[None]:
        """Add the time of the context to a stage."""
        if self._own.times is None:
            self._own.times = {}
            with self._lock:
                self._threads.append(self._own.times)
        return _Timed(self._own, self._own.times.setdefault(stage, [0.0, 0.0]))

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Let :func:`stage` add to these, in this thread and as long as the context lasts."""
        token = _COLLECTING.set(self)
        try:
            yield
        finally:
            _COLLECTING.reset(token)

    def _sums(self, stage: str) -> tuple[float, float]:
        """Return the wall time and the processor time of a stage, over all threads."""
        with self._lock:
            found = [times[stage] for times in self._threads if stage in times]
        return sum(wall for wall, _ in found), sum(busy for _, busy in found)

    def seconds(self) -> dict[str, float]:
        """Return wall seconds by stage, over all threads."""
        return {name: wall for name in STAGES if (wall := self._sums(name)[0]) > 0}

    def needed(self, stage: str) -> float:
        """Return the seconds that one thread needs for a stage where nothing disturbs it."""
        wall, busy = self._sums(stage)
        return busy if busy > _IDLE * wall else wall

    def shares(self) -> str:
        """Return the largest shares of the time, in words: ``model 61 %, decode 30 %``."""
        seconds = self.seconds()
        total = sum(seconds.values())
        if not total:
            return ""
        largest = sorted(seconds.items(), key=lambda pair: -pair[1])[:3]
        shown = [(name, round(100 * value / total)) for name, value in largest]
        return ", ".join(f"{name} {share} %" for name, share in shown if share)


class _Thread(threading.local):
    """What one thread has measured, and the stages that it is in."""

    times: dict[str, list[float]] | None = None
    inner: _Timed | None = None


class _Timed:
    """One stage of one thread. Items pass by the thousand, so it does little."""

    __slots__ = ("_begun", "_outer", "_thread", "_total", "_worked", "inside")

    def __init__(self, thread: _Thread, total: list[float]) -> None:
        self._thread, self._total = thread, total
        self.inside = (0.0, 0.0)

    def __enter__(self) -> None:
        self._outer, self._thread.inner = self._thread.inner, self
        self._begun, self._worked = time.perf_counter(), time.thread_time()

    def __exit__(self, *_: object) -> None:
        wall, busy = time.perf_counter() - self._begun, time.thread_time() - self._worked
        self._total[0] += wall - self.inside[0]
        self._total[1] += busy - self.inside[1]
        self._thread.inner = self._outer
        if self._outer is not None:
            known = self._outer.inside
            self._outer.inside = (known[0] + wall, known[1] + busy)


def stage(name: str) -> AbstractContextManager[None]:
    """Add the time of the context to a stage of whoever collects in this thread, if anybody."""
    stages = _COLLECTING.get()
    return nullcontext() if stages is None else stages(name)


@dataclass(frozen=True)
class Throughput:
    """What the stages of an extraction could do, each alone.

    Attributes:
        items: that were computed.
        workers: threads that read and decode.
        seconds: wall time by stage, over all threads.
        rates: items a second by what does it (``reading``, ``decoding``, ``model``, ``writing``),
            if it had the machine for itself.
    """

    items: int
    workers: int
    seconds: Mapping[str, float]
    rates: Mapping[str, float]

    @classmethod
    def of(cls, stages: Stages, items: int, workers: int, devices: int = 1) -> Throughput:
        """Add up what the stages took for so many items.

        Args:
            stages: of the pipeline.
            items: that were computed.
            workers: threads that read and decode.
            devices: that the network ran on at the same time.
        """
        spent = {
            "reading": stages.needed("read") / workers,
            "decoding": sum(map(stages.needed, ("decode", "resize", "collate"))) / workers,
            "model": stages.needed("model") / devices,
            "writing": stages.needed("write"),
        }
        rates = {name: items / value for name, value in spent.items() if value > 0}
        return cls(items, workers, stages.seconds(), rates)

    @property
    def binds(self) -> str:
        """What is slowest; empty where nothing was measured."""
        return min(self.rates, key=lambda name: self.rates[name], default="")

    def verdict(self, unit: str) -> str:
        """Say what binds, and what the next slowest could do; empty where nothing was measured.

        Args:
            unit: what several items are called ("images").
        """
        if not self.binds:
            return ""
        rivals = ("decoding", "reading") if self.binds == "model" else ("model",)
        known = [name for name in rivals if name in self.rates]
        text = f"{self.binds}-bound: {self._does(self.binds, unit)}"
        if known:
            other = min(known, key=lambda name: self.rates[name])
            text += f", {self._could(other)} {_rounded(self.rates[other])}"
        return text

    def describe(self, unit: str) -> dict[str, object]:
        """Return what ``run.json`` says of it, in plain values."""
        return {
            "items": self.items,
            "workers": self.workers,
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
            "items_per_second": {name: round(value, 1) for name, value in self.rates.items()},
            "verdict": self.verdict(unit),
        }

    def _does(self, name: str, unit: str) -> str:
        rate = f"{_rounded(self.rates[name])} {unit}/s"
        threads = "1 thread" if self.workers == 1 else f"{self.workers} threads"
        verb = "s" if self.workers == 1 else ""
        return {
            "reading": f"{threads} read{verb} {rate}",
            "decoding": f"{threads} decode{verb} {rate}",
            "model": f"the model takes {rate}",
            "writing": f"{rate} are written",
        }[name]

    def _could(self, name: str) -> str:
        threads = "1 thread" if self.workers == 1 else f"{self.workers} threads"
        verb = {"reading": "read", "decoding": "decode"}.get(name)
        return f"{threads} could {verb}" if verb else "the model could take"


def _rounded(rate: float) -> str:
    """Return a rate to two digits, which is as well as it is known."""
    if rate < 10:
        return f"{rate:.2g}"
    digits = len(str(int(rate))) - 2
    return f"{round(rate / 10**digits) * 10**digits:,}"


__all__ = ["STAGES", "Stages", "Throughput", "stage"]
