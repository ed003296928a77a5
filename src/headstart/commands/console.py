"""Printing: results on standard output, everything else on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.core.progress import Reporter, SilentReporter, console_reporter
from headstart.core.settings import option
from headstart.core.terminal import console, harmless, say, say_json

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


_BEGUN: ContextVar[float | None] = ContextVar("begun", default=None)


@dataclass(frozen=True)
class Printing:
    """How a command shows its result."""

    json: bool = option(False, "Print JSON on standard output.", panel="Running")
    quiet: bool = option(
        False,
        "Print only what was asked for: no notes, no progress, no tables.",
        flags=("-q",),
        panel="Running",
    )


def reporter(quiet: bool) -> Reporter:
    """Return where notes and progress of a command go."""
    return SilentReporter() if quiet else console_reporter()


def stdout() -> Console:
    """Return the console for results. It never interprets user data as markup."""
    # Without a terminal rich assumes 80 columns and would cut tables that fit into a file.
    width = None if sys.stdout.isatty() else 120
    return console(width=width)


def print_lines(console: Console, lines: Iterable[str]) -> None:
    """Print commands and paths, each on one line: a terminal wraps it, and it can be copied."""
    for line in lines:
        console.print(line, soft_wrap=True)


def print_quietly(folder: Path | None, out: Path | str | None) -> None:
    """Print the run folder alone, where its user cannot know it.

    Args:
        folder: that was written.
        out: that was asked for.
    """
    if folder is not None and out is None:
        say(folder)


def command_seconds(otherwise: float) -> float:
    """Return the time since the command began, the imports of the command line included.

    Args:
        otherwise: where no command line is running.
    """
    begun = _BEGUN.get()
    return otherwise if begun is None else time.perf_counter() - begun


@contextmanager
def timed_command(imported: float) -> Iterator[None]:
    """Take the time of a command.

    Args:
        imported: seconds that were spent before it, on importing the command line.
    """
    token = _BEGUN.set(time.perf_counter() - imported)
    try:
        yield
    finally:
        _BEGUN.reset(token)


def print_json(value: Any) -> None:
    """Print one JSON document on standard output."""
    say_json(value)


def plain_table(
    header: Sequence[str], rows: Iterable[Sequence[object]], right: Collection[str] = ()
) -> Table:
    """Return a table without lines, whose cells are never read as markup.

    Args:
        header: titles of the columns.
        rows: cells.
        right: titles of the columns whose cells are right-aligned.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in header:
        table.add_column(harmless(title), justify="right" if title in right else "left")
    for row in rows:
        table.add_row(*(Text(harmless(cell)) for cell in row))
    return table
