"""Selecting parts of a model by name: exact names, globs, regular expressions, nearest names.

Names are the dotted paths of ``named_modules`` and ``state_dict``. In a glob, ``*`` also crosses
dots, as in ``fnmatch``: ``encoder.*`` selects everything below ``encoder``.
"""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Iterable, Sequence

_GLOB_SIGNS = frozenset("*?[")


def is_glob(pattern: str) -> bool:
    """Whether ``pattern`` holds a sign that makes it a glob rather than a plain name."""
    return not _GLOB_SIGNS.isdisjoint(pattern)


def matches(pattern: str | re.Pattern[str], name: str) -> bool:
    """Whether a pattern selects exactly this name.

    Args:
        pattern: a plain name, a glob, or a compiled regular expression, which must match the
            whole name.
        name: a dotted path.
    """
    if isinstance(pattern, re.Pattern):
        return pattern.fullmatch(name) is not None
    return pattern == name or (is_glob(pattern) and fnmatch.fnmatchcase(name, pattern))


def covers(pattern: str | re.Pattern[str], name: str) -> bool:
    """Whether a pattern selects this name, or a part that holds it (``fc`` covers ``fc.bias``)."""
    if matches(pattern, name):
        return True
    parents = (name[:index] for index, sign in enumerate(name) if sign == ".")
    return any(matches(pattern, parent) for parent in parents)


def nearest(name: str, names: Iterable[str], count: int = 3) -> tuple[str, ...]:
    """Return up to ``count`` names that a person may have meant, the likeliest first.

    Names whose last components equal those of ``name`` come first, since a missing or an added
    prefix (``module.``, ``encoder.``) is the usual fault; then the most similar spellings.
    """
    candidates = list(dict.fromkeys(names))
    tails = [c for c in candidates if c and (c.endswith("." + name) or name.endswith("." + c))]
    tails.sort(key=lambda c: (abs(len(c) - len(name)), c))
    similar = difflib.get_close_matches(name, candidates, n=count, cutoff=0.5)
    return tuple(dict.fromkeys([*tails, *similar]))[:count]


def quoted(names: Sequence[str], limit: int = 12) -> str:
    """Write names as ``'a', 'b' and 3 more``: at most ``limit`` of them are spelt out."""
    shown = ", ".join(repr(name) for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


__all__ = ["covers", "is_glob", "matches", "nearest", "quoted"]
