"""How figures and names are worded, the same in the terminal, in a page and in a picture."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping
from typing import Any

from headstart.core.records import Interval, Score

NOT_DEFINED = "–"
_INVISIBLE = frozenset({"Cc", "Cs"})
# Marks that reorder the text around them; a name must not rearrange the table it stands in.
_REORDERING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def clean(text: object) -> str:
    """Return ``text`` on one line, with nothing in it that a terminal or a browser would obey.

    Line breaks and tabs become spaces; control characters (terminal escapes among them), lone
    surrogates (file names that are not UTF-8) and marks that reorder text become ``�``.
    """
    marks = []
    for mark in str(text):
        if mark in "\t\n\r\v\f\u2028\u2029":
            marks.append(" ")
        elif unicodedata.category(mark) in _INVISIBLE or mark in _REORDERING:
            marks.append("\ufffd")
        else:
            marks.append(mark)
    return "".join(marks)


def shorten(text: object, width: int = 28) -> str:
    """Return the cleaned text, cut in the middle to at most ``width`` columns.

    East Asian wide characters count as two columns. The middle goes because names in a data set
    tend to differ at their ends ("2024-03-17 camera 1", "2024-03-17 camera 2").
    """
    name = clean(text)
    if _columns(name) <= width:
        return name
    head, tail = (width - 1) * 2 // 3, (width - 1) - (width - 1) * 2 // 3
    return f"{_take(name, head).rstrip()}…{_take(name[::-1], tail)[::-1].lstrip()}"


def _columns(text: str) -> int:
    return sum(_column(mark) for mark in text)


def _column(mark: str) -> int:
    if unicodedata.combining(mark):
        return 0
    return 2 if unicodedata.east_asian_width(mark) in "WF" else 1


def _take(text: str, width: int) -> str:
    used = 0
    for position, mark in enumerate(text):
        used += _column(mark)
        if used > width:
            return text[:position]
    return text


def format_percent(fraction: float, *, digits: int = 1) -> str:
    """Return ``0.9412`` as ``94.1 %``; a value that is not finite as a dash."""
    return f"{100 * fraction:.{digits}f} %" if math.isfinite(fraction) else NOT_DEFINED


def format_number(value: float, *, digits: int = 3) -> str:
    """Return a number with ``digits`` significant digits and no needless exponent."""
    if not math.isfinite(value):
        return NOT_DEFINED
    if value == int(value) and abs(value) < 1e6:
        return f"{int(value):,}"
    size = abs(value)
    if size >= 1e6 or size < 1e-4:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        if "." in mantissa:
            mantissa = mantissa.rstrip("0").rstrip(".")
        return f"{mantissa}e{int(exponent)}"
    decimals = max(0, digits - 1 - math.floor(math.log10(size)))
    return f"{value:,.{decimals}f}"


def format_seconds(seconds: float) -> str:
    """Return a duration as a person would say it: ``38 ms``, ``3.2 s``, ``1 min 14 s``."""
    if not math.isfinite(seconds):
        return NOT_DEFINED
    if seconds < 0.0995:
        return f"{format_number(1000 * seconds, digits=2)} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def format_interval(interval: Interval) -> str:
    """Return ``95 % interval 88.9–96.9, Wilson, n = 153``; bounds in per cent."""
    level = format_number(100 * interval.level)
    bounds = f"{100 * interval.low:.1f}–{100 * interval.high:.1f}"
    basis = {
        "wilson": f"Wilson, n = {interval.n:,}",
        "bootstrap": f"bootstrap over items, n = {interval.n:,}",
        "t": f"t over {interval.n:,} repetitions",
        "normal": f"normal over {interval.n:,} repetitions",
    }[interval.method]
    return f"{level} % interval {bounds}, {basis}"


def format_score(score: Score) -> str:
    """Return ``94.1 % (95 % interval 88.9–96.9, Wilson, n = 153)``.

    Without an interval the figure stands alone; a figure that is not finite reads "not defined".
    """
    if not math.isfinite(score.value):
        return "not defined"
    value = format_percent(score.value)
    return value if score.interval is None else f"{value} ({format_interval(score.interval)})"


def flatten(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return nested settings as (dotted name, text) pairs in the order given."""
    rows: list[tuple[str, str]] = []
    for name, value in values.items():
        full = f"{prefix}{name}"
        if isinstance(value, Mapping) and value:
            rows.extend(flatten(value, f"{full}."))
        else:
            rows.append((full, _plain(value)))
    return rows


def _plain(value: Any) -> str:
    if value is None:
        return NOT_DEFINED
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return NOT_DEFINED
    if isinstance(value, list | tuple | set | frozenset):
        return ", ".join(_plain(item) for item in value) or NOT_DEFINED
    return clean(value)
