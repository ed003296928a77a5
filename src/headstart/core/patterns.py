"""Selecting parts of a model by name: exact names, globs, regular expressions.

Names are the dotted paths of ``named_modules`` and ``state_dict``. In a glob, ``*`` also crosses
dots, as in ``fnmatch``: ``encoder.*`` selects everything below ``encoder``.
"""

from __future__ import annotations

import fnmatch
import re

_GLOB_SIGNS = frozenset("*?[")


def is_glob(pattern: str) -> bool:
    """Whether ``pattern`` contains a character that makes it a glob rather than a plain name."""
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
    """Whether a pattern selects this name or a part above it (``fc`` covers ``fc.bias``)."""
    if matches(pattern, name):
        return True
    parents = (name[:index] for index, sign in enumerate(name) if sign == ".")
    return any(matches(pattern, parent) for parent in parents)


__all__ = ["covers", "is_glob", "matches"]
