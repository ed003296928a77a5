"""Reporting on long work: notes, progress with rate and remaining time, and wall time by step.

The library calls a :class:`Reporter` and knows nothing about terminals. Only
:func:`console_reporter` reaches the console, and it imports rich when it is called.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from headstart.core.terminal import console, harmless, say
from headstart.core.wording import clean, columns, count, format_seconds, shorten, singular

_NOTEBOOK_WIDTH = 88
"""Columns of a line in a notebook, which does not say how wide it is."""
_NOTEBOOK_SECONDS = 0.25
"""Between two updates there: each is a message to the browser."""


class Progress(Protocol):
    """One piece of long work. Call ``advance`` as units finish."""

    def advance(self, count: int = 1) -> None:
        """Report that ``count`` more units are done."""


def tell(task: Progress, text: str) -> None:
    """Show what a piece of work spends its time on, where ``task`` has a ``tell`` that takes it."""
    take = getattr(task, "tell", None)
    if take is not None:
        take(text)


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


@dataclass
class Work:
    """How far one piece of work is, in words.

    Attributes:
        name: what is done.
        total: of units.
        unit: what several are called ("images").
        done: so many.
        seconds: since it began.
        spent: what the time goes into ("model 61 %, decode 30 %"); empty where it is not known.
    """

    name: str
    total: int
    unit: str
    done: int = 0
    seconds: float = 0.0
    spent: str = ""

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.done >= self.total

    @property
    def counted(self) -> str:
        """``359 of 782,000 images``."""
        return f"{self.done:,} of {count(self.total, singular(self.unit), self.unit)}"

    @property
    def rate(self) -> str:
        """``120 images/s``, ``4.0 s/image``; empty where nothing is known."""
        if not self.done or self.seconds <= 0:
            return ""
        rate = self.done / self.seconds
        if rate < 1:
            return f"{format_seconds(1 / rate)}/{singular(self.unit)}"
        return f"{rate:,.{0 if rate >= 10 else 1}f} {self.unit}/s"

    @property
    def time(self) -> str:
        """``2 min 14 s left``, or how long it took."""
        if self.finished:
            return format_seconds(self.seconds)
        if not self.done:
            return ""
        left = self.seconds / self.done * (self.total - self.done)
        return f"{format_seconds(max(1.0, left) if left < 60 else left)} left"

    @property
    def about(self) -> str:
        """The time that is left, in its largest unit: ``2 min left``."""
        if not self.done or self.finished:
            return self.time
        left = self.seconds / self.done * (self.total - self.done)
        size, name = next(
            (s, n) for s, n in ((3600, "h"), (60, "min"), (1, "s")) if left >= s or s == 1
        )
        return f"{max(1, round(left / size)):,} {name} left"

    def plain(self) -> str:
        """Return it as a line of a log."""
        told = ", ".join(part for part in (self.rate, self.time) if part)
        told += f"; {self.spent}" if told and self.spent else ""
        return f"{self.name}: {self.counted}" + (f" ({told})" if told else "")

    def line(self, width: int) -> str:
        """Return it as a line of a terminal, never wider than ``width`` columns.

        What matters least is left out first: the bar, what the time goes into, the rate, the count,
        the time that is left.
        """
        share = 100 if self.total <= 0 else min(100, 100 * self.done // self.total)
        percent = f"{share:3d} %"
        choices = (
            (self.counted, self.rate, self.time, self.spent),
            (self.counted, self.rate, self.time),
            (self.counted, self.time),
            (f"{self.done:,}/{self.total:,}", self.time),
            (self.time,),
            (self.about,),
            (),
        )
        for parts in choices:
            text = " · ".join([percent, *filter(None, parts)])
            room = width - columns(text) - 2
            if columns(self.name) <= room or (not parts and room > 3):
                break
        else:
            return shorten(percent.strip(), width) if width > 0 else ""
        name = shorten(self.name, room)
        bar = min(24, room - columns(name) - 2)
        if bar >= 6:
            full = bar * share // 100
            name = f"{name}  {'━' * full}{'╌' * (bar - full)}"
        return f"{name}  {text}"


class _Counting:
    """Counts what is done; the clock begins with it."""

    def __init__(self, name: str, total: int, unit: str) -> None:
        self.work = Work(clean(name), total, clean(unit))
        self.begun = time.monotonic()

    def advance(self, count: int = 1) -> None:
        self.work.done += count
        self.tick()

    def tell(self, text: str) -> None:
        """Show what the time goes into."""
        self.work.spent = text

    def tick(self) -> Work:
        self.work.seconds = max(time.monotonic() - self.begun, 1e-9)
        return self.work


class _PlainTask(_Counting):
    """Few lines: after ten seconds, then ever more rarely, and one at the end."""

    def __init__(self, name: str, total: int, unit: str) -> None:
        super().__init__(name, total, unit)
        self.next = 10.0

    def advance(self, count: int = 1) -> None:
        super().advance(count)
        if self.work.seconds >= self.next and not self.work.finished:
            self.next = max(self.work.seconds + 10.0, 1.2 * self.work.seconds)
            self.show()

    def show(self) -> None:
        say(self.tick().plain(), error=True)


class PlainReporter:
    """Plain lines on standard error, for logs and pipes."""

    def note(self, text: str) -> None:
        """Print the note as one line."""
        say(text, error=True)

    @contextmanager
    def task(self, name: str, total: int, unit: str) -> Iterator[Progress]:
        """Print an occasional line with rate and remaining time: a log of hours stays short."""
        task = _PlainTask(name, total, unit)
        try:
            yield task
        finally:
            task.show()


class RichReporter:
    """A live line on standard error, which leaves standard output clean."""

    def __init__(self) -> None:
        self._console = console(error=True)

    def __reduce__(self) -> tuple[type[RichReporter], tuple[()]]:
        # A console holds locks; a process that receives a reporter writes to its own terminal.
        return RichReporter, ()

    def note(self, text: str) -> None:
        """Print the note literally, never as markup; a path or a command stays on its line."""
        self._console.print(text, markup=False, soft_wrap=True)

    @contextmanager
    def task(self, name: str, total: int, unit: str) -> Iterator[Progress]:
        """Show name, bar, count, rate and remaining time, as far as the terminal is wide."""
        from rich.live import Live

        task = _Counting(name, total, unit)
        line = _Line(task)
        with Live(line, console=self._console, refresh_per_second=8):
            yield task


class _Line:
    """One line of progress as rich shows it, written for the width of the moment."""

    def __init__(self, task: _Counting) -> None:
        self._task = task

    def __rich_console__(self, _console: Any, options: Any) -> Iterator[Any]:
        from rich.text import Text

        text = self._task.tick().line(options.max_width - 1)
        yield Text(text, no_wrap=True, overflow="ellipsis", end="")


def in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook. Nothing is imported to find out."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else getattr(ipython, "get_ipython", lambda: None)()
    return shell is not None and hasattr(shell, "kernel")


class NotebookReporter:
    """Notes as output of the cell, and a line of progress for each piece of work."""

    def note(self, text: str) -> None:
        """Print the note as one line; standard error would look like a failure."""
        say(text)

    @contextmanager
    def task(self, name: str, total: int, unit: str) -> Iterator[Progress]:
        """Show name, bar, count, rate and remaining time, and keep the last line."""
        task = _ShownTask(name, total, unit)
        try:
            yield task
        finally:
            task.show()


class _ShownTask(_Counting):
    def __init__(self, name: str, total: int, unit: str) -> None:
        super().__init__(name, total, unit)
        self._handle: Any = None
        self._next = 0.0
        self.show()

    def advance(self, count: int = 1) -> None:
        super().advance(count)
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _NOTEBOOK_SECONDS
            self.show()

    def show(self) -> None:
        """Write the line, or write it anew."""
        import IPython.display

        shown = {"text/plain": harmless(self.tick().line(_NOTEBOOK_WIDTH))}
        if self._handle is None:
            show: Any = IPython.display.display  # untyped
            self._handle = show(shown, raw=True, display_id=True)
        else:
            self._handle.update(shown, raw=True)


def console_reporter() -> Reporter:
    """Return the reporter for standard error: live on a terminal, plain lines elsewhere.

    The kernel of a notebook shows notes and a line of progress in the output of the cell.
    Elsewhere is also a terminal that cannot move its cursor (``TERM=dumb``), and where there is no
    standard error at all nothing is reported.
    """
    if sys.stderr is None:
        return SilentReporter()
    if in_notebook():
        return NotebookReporter()
    live = sys.stderr.isatty() and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")
    return RichReporter() if live else PlainReporter()
