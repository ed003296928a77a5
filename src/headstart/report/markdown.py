"""Markdown that holds text of anybody's: nothing in it is a mark, a link, a mention or HTML."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from headstart.core.wording import clean

_MARKS = re.compile(
    r"[\\`*_{}\[\]|~^$@&<>]"  # anywhere
    r"|^\s*[#+\-=](?=\s|$|[#+\-=])"  # that begins a heading, a list or a line
    r"|:(?=//)|(?<=www)\.",  # that makes a link
    re.IGNORECASE,
)
_NUMBERED = re.compile(r"^(\s*\d+)([.)])(?=\s|$)")


def plain(text: object) -> str:
    """Return text on one line, with character references in the place of marks and links."""
    shown = _MARKS.sub(lambda found: "".join(f"&#{ord(c)};" for c in found[0]), clean(text))
    return _NUMBERED.sub(lambda found: f"{found[1]}&#{ord(found[2])};", shown)


def code(text: object) -> str:
    """Return text as code in a line, whatever backticks it holds."""
    shown = clean(text)
    longest = max((len(run) for run in re.findall(r"`+", shown)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if longest or not shown.strip() else ""
    return f"{fence}{pad}{shown}{pad}{fence}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of cells that are Markdown already; the first column is text."""
    lines = [
        f"| {' | '.join(header)} |",
        f"|{'|'.join([' --- ', *(' ---: ' for _ in header[1:])])}|",
        # A bar ends a cell, even in code; outside of code :func:`plain` leaves none.
        *(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows),
    ]
    return "\n".join(lines)


__all__ = ["code", "plain", "table"]
