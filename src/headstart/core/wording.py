"""Small helpers for messages: counts, short lists, and the nearest existing name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


def count(number: int, noun: str, plural: str | None = None) -> str:
    """Return ``"1 image"``, ``"1,200 images"``; ``plural`` where adding an s is wrong."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def few(names: Sequence[object], most: int = 5) -> str:
    """Return up to ``most`` names, quoted, then how many more there are."""
    shown = ", ".join(f"'{name}'" for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most:,} more"


def did_you_mean(name: str, options: Iterable[str]) -> str | None:
    """Return a hint with the options nearest to ``name``, or None when none is near."""
    folded = {option.casefold(): option for option in options}
    near = difflib.get_close_matches(name.casefold(), folded, n=3, cutoff=0.55)
    return f"did you mean {few([folded[match] for match in near])}" if near else None
