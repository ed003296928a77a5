"""Reporting on long work: notes, progress with rate and remaining time, and wall time by step.

The library calls a :class:`Reporter` and knows nothing about terminals. Only
:func:`console_reporter` reaches the console, and it imports rich when it is called.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Progress(Protocol):
    """One piece of long work. Call ``advance`` as units finish."""

    def advance(self, count: int = 1) -> None:
        """Report that ``count`` more units are done."""


class Reporter(Protocol):
    """Receives what a person should know while work is in progress."""

    def note(self, text: str) -> None:
        """Report one fact: a default and its reason, or something done on the user's behalf."""

    def task(self, name: str, total: int, unit: str) -> AbstractContextManager[Progress]:
        """Start work of ``total`` units named ``unit`` ("images"); it ends with the context."""


class Clock:
    """Wall time by step: call it with the name of a step to time what happens in the context."""

    def __init__(self) -> None:
        self._begun = time.perf_counter()
        self._steps: dict[str, float] = {}

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        """Time one step; a step that is entered again adds up."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            elapsed = time.perf_counter() - begun
            self._steps[step] = self._steps.get(step, 0.0) + elapsed

    def seconds(self) -> dict[str, float]:
        """Return seconds by step, and ``total`` since the clock was made."""
        return {**self._steps, "total": time.perf_counter() - self._begun}


class _SilentTask:
    def advance(self, count: int = 1) -> None:
        pass


class SilentReporter:
    """Reports nothing; the default of every Python function below the commands."""

    def note(self, text: str) -> None:
        """Drop the note."""

    @contextmanager
    def task(self, name: str, total: int, unit: str) -> Iterator[Progress]:  # noqa: ARG002
        """Count nothing."""
        yield _SilentTask()


class _PlainTask:
    """At most one line every ten seconds, and one at the end."""

    def __init__(self, name: str, total: int, unit: str) -> None:
        self.name, self.total, self.unit = name, total, unit
        self.done = 0
        self.begun = self.last = time.monotonic()

    def advance(self, count: int = 1) -> None:
        self.done += count
        now = time.monotonic()
        if now - self.last >= 10.0 and self.done < self.total:
            self.last = now
            self._print(now)

    def finish(self) -> None:
        self._print(time.monotonic())

    def _print(self, now: float) -> None:
        seconds = max(now - self.begun, 1e-9)
        rate = self.done / seconds
        left = (self.total - self.done) / rate if rate > 0 else float("nan")
        tail = f", {left:.0f} s left" if self.done < self.total else f", {seconds:.1f} s"
        print(
            f"{self.name}: {self.done:,} of {self.total:,} {self.unit}"
            f" ({rate:,.0f} {self.unit}/s{tail})",
            file=sys.stderr,
            flush=True,
        )


class PlainReporter:
    """Plain lines on standard error, for logs and pipes."""

    def note(self, text: str) -> None:
        """Print the note as one line."""
        print(text, file=sys.stderr, flush=True)

    @contextmanager
    def task(self, name: str, total: int, unit: str) -> Iterator[Progress]:
        """Print an occasional line with rate and remaining time."""
        task = _PlainTask(name, total, unit)
        try:
            yield task
        finally:
            task.finish()


class _RichTask:
    def __init__(self, progress: object, task_id: int) -> None:
        self._progress, self._id = progress, task_id

    def advance(self, count: int = 1) -> None:
        self._progress.advance(self._id, count)  # type: ignore[attr-defined]


class RichReporter:
    """A live progress bar on standard error, which leaves standard output clean."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False)

    def __reduce__(self) -> tuple[type[RichReporter], tuple[()]]:
        # A console holds locks; a process that receives a reporter writes to its own terminal.
        return RichReporter, ()

    def note(self, text: str) -> None:
        """Print the note literally, never as markup."""
        self._console.print(text, markup=False)

    @contextmanager
    def task(self, name: str, total: int, unit: str) -> Iterator[Progress]:
        """Show name, bar, count, rate and remaining time."""
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            ProgressColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Task as RichProgressTask
        from rich.text import Text

        class Rate(ProgressColumn):
            def render(self, task: RichProgressTask) -> Text:
                speed = task.finished_speed or task.speed
                return Text("" if speed is None else f"{speed:,.0f} {unit}/s")

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit, markup=False),
            Rate(),
            TimeElapsedColumn(),
            TextColumn("elapsed,"),
            TimeRemainingColumn(),
            TextColumn("left"),
        )
        with Progress(*columns, console=self._console) as progress:
            yield _RichTask(progress, progress.add_task(name, total=total))


def console_reporter() -> Reporter:
    """Return the reporter for standard error: live on a terminal, plain lines elsewhere."""
    return RichReporter() if sys.stderr.isatty() else PlainReporter()
