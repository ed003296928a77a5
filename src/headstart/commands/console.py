"""Printing: results on standard output, everything else on standard error."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from headstart.core.progress import Reporter, SilentReporter, console_reporter

if TYPE_CHECKING:
    from rich.console import Console


def reporter(quiet: bool) -> Reporter:
    """Return where notes and progress of a command go."""
    return SilentReporter() if quiet else console_reporter()


def stdout() -> Console:
    """Return the console for results. It never interprets user data as markup."""
    from rich.console import Console

    # Off a terminal rich assumes 80 columns and would cut tables that a file has room for.
    width = None if sys.stdout.isatty() else 120
    return Console(highlight=False, markup=False, width=width)


def print_json(value: Any) -> None:
    """Print one JSON document on standard output."""
    print(json.dumps(value, indent=2, ensure_ascii=False))
