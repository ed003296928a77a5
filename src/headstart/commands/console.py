"""Printing: results on standard output, everything else on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headstart.core.progress import Reporter, SilentReporter, console_reporter
from headstart.core.settings import option

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


@dataclass(frozen=True)
class Printing:
    """How a command shows its result."""

    json: bool = option(False, "Print JSON on standard output.", panel="Running")
    quiet: bool = option(False, "No notes and no progress.", flags=("-q",), panel="Running")


def reporter(quiet: bool) -> Reporter:
    """Return where notes and progress of a command go."""
    return SilentReporter() if quiet else console_reporter()


def stdout() -> Console:
    """Return the console for results. It never interprets user data as markup."""
    from rich.console import Console

    # Without a terminal rich assumes 80 columns and would cut tables that fit into a file.
    width = None if sys.stdout.isatty() else 120
    return Console(highlight=False, markup=False, width=width)


def print_lines(console: Console, lines: Iterable[str]) -> None:
    """Print commands and paths, each on one line: a terminal wraps it, and it can be copied."""
    for line in lines:
        console.print(line, soft_wrap=True)


def print_json(value: Any) -> None:
    """Print one JSON document on standard output."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


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
        table.add_column(title, justify="right" if title in right else "left")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    return table
