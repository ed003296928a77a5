"""Wording of names, counts and figures, the same in messages, terminals, pages and pictures."""

from __future__ import annotations

import difflib
import math
import shlex
import unicodedata
from collections.abc import Iterable

NOT_DEFINED = "–"
_INVISIBLE = frozenset({"Cc", "Cs"})
# Characters that reorder the text around them; a name must not rearrange the table showing it.
_REORDERING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


# -- names ---------------------------------------------------------------------------------------


def count(number: int, noun: str, plural: str | None = None) -> str:
    """Return ``"1 image"``, ``"1,200 images"``; ``plural`` where adding an s is wrong."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


_SINGULAR = {"classes": "class", "batches": "batch", "passes": "pass", "copies": "copy"}
_SINGULAR |= {"kinds of head": "kind of head", "values of C": "value of C", "people": "person"}


def singular(plural: str) -> str:
    """Return what one of several is called: ``image`` for ``images``."""
    return _SINGULAR.get(plural, plural[:-1] if plural.endswith("s") else plural)


def verb(number: int, one: str = "is", several: str = "are") -> str:
    """Return the form of a verb that follows a count: ``1 item is``, ``2 items are``."""
    return one if number == 1 else several


def any_of(names: Iterable[object]) -> str:
    """Return ``a``, ``a or b``, ``a, b or c``."""
    *first, last = [str(name) for name in names]
    return f"{', '.join(first)} or {last}" if first else last


def quoted(names: Iterable[object], most: int = 12) -> str:
    """Return ``'a', 'b' and 3 more``: at most ``most`` names, escaped as in source code."""
    return listed([repr(str(name)) for name in names], most)


def listed(names: Iterable[object], most: int = 6) -> str:
    """Return ``a, b and 3 more``: at most ``most`` names, unchanged."""
    words = [str(name) for name in names]
    shown = ", ".join(words[:most])
    return shown if len(words) <= most else f"{shown} and {len(words) - most:,} more"


def nearest(name: str, options: Iterable[str], most: int = 3) -> tuple[str, ...]:
    """Return up to ``most`` options that ``name`` may have meant, the likeliest first.

    Case is ignored. Dotted names that end like ``name`` come first, because a missing or an extra
    prefix (``module.``, ``encoder.``) is the usual mistake; then the most similar spellings.
    """
    wanted = name.casefold()
    folded: dict[str, str] = {}
    for option in options:
        folded.setdefault(option.casefold(), option)
    tails = [o for o in folded if o and (o.endswith("." + wanted) or wanted.endswith("." + o))]
    tails.sort(key=lambda o: (abs(len(o) - len(wanted)), o))
    similar = difflib.get_close_matches(wanted, folded, n=most, cutoff=0.5)
    return tuple(folded[o] for o in dict.fromkeys([*tails, *similar]))[:most]


def did_you_mean(name: str, options: Iterable[str], most: int = 3) -> str | None:
    """Return a hint with the options nearest to ``name``, or None if none is similar."""
    near = nearest(name, options, most)
    return f"did you mean {quoted(near)}" if near else None


def clean(text: object) -> str:
    """Return ``text`` on one line, without anything that a terminal or a browser would act on.

    Line breaks and tabs become spaces. Control characters (terminal escapes among them), lone
    surrogates (file names that are not UTF-8) and characters that reorder text become ``�``.
    """
    given = str(text)
    if given.isascii() and given.isprintable():
        return given
    marks = []
    for mark in given:
        if mark in "\t\n\r\v\f\u2028\u2029":
            marks.append(" ")
        elif unicodedata.category(mark) in _INVISIBLE or mark in _REORDERING:
            marks.append("\ufffd")
        else:
            marks.append(mark)
    return "".join(marks)


def storable(text: str) -> str:
    """Return a text that can be written as UTF-8, where a file name has other bytes in hex."""
    if text.isascii():
        return text
    return (
        "".join(
            f"\\x{ord(mark) - 0xDC00:02x}" if "\udc80" <= mark <= "\udcff" else mark
            for mark in text
        )
        .encode("utf-8", "backslashreplace")
        .decode("utf-8")
    )


def shell(words: Iterable[str]) -> str:
    """Return a command that a shell takes apart into these words again, on one line.

    Words with control characters, or with bytes that are not UTF-8 (lone surrogates), are written
    as ``$'...'``, which bash, zsh and POSIX shells of 2024 know.
    """
    return " ".join(_shell_word(word) for word in words)


def _shell_word(word: str) -> str:
    if clean(word) == word:
        return shlex.quote(word)
    marks = []
    for mark in word:
        if mark in "\\'":
            marks.append("\\" + mark)
        elif clean(mark) == mark:
            marks.append(mark)
        else:
            errors = "surrogateescape" if "\udc80" <= mark <= "\udcff" else "replace"
            marks += [f"\\{byte:03o}" for byte in mark.encode("utf-8", errors)]
    return "$'" + "".join(marks) + "'"


def shorten(text: object, width: int = 28) -> str:
    """Return the cleaned text, cut in the middle to at most ``width`` columns.

    East Asian wide characters count as two columns. The middle is cut because names in a data set
    tend to differ at their ends ("2024-03-17 camera 1", "2024-03-17 camera 2").
    """
    name = clean(text)
    if columns(name) <= width:
        return name
    head, tail = (width - 1) * 2 // 3, (width - 1) - (width - 1) * 2 // 3
    return f"{_take(name, head).rstrip()}…{_take(name[::-1], tail)[::-1].lstrip()}"


def columns(text: str) -> int:
    """Return how many terminal columns ``text`` takes."""
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


# -- figures -------------------------------------------------------------------------------------


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
    """Return a duration as a person would say it: ``90 µs``, ``38 ms``, ``3.2 s``, ``1 min 14 s``.

    Rounded to two digits below a tenth of a second, and to a tenth below a minute.
    """
    if not math.isfinite(seconds):
        return NOT_DEFINED
    if 0 < seconds < 1e-4:
        return f"{format_number(1e6 * seconds, digits=2)} µs"
    if seconds < 0.0995:
        return f"{format_number(1000 * seconds, digits=2)} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def format_bytes(size: float) -> str:
    """Return a number of bytes in a decimal unit that suits it: ``12.5 MB``."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{format_number(float(size))} {unit}"
        size /= 1000
    return f"{format_number(float(size))} TB"


def format_shape(shape: Iterable[int]) -> str:
    """Return the extents of an array: ``512×14×14``."""
    return "×".join(str(extent) for extent in shape)


def first_line(error: BaseException) -> str:
    """Return the kind and the first line of an error of a library, for use in a sentence."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}".rstrip(": ")


__all__ = [
    "NOT_DEFINED",
    "clean",
    "columns",
    "count",
    "did_you_mean",
    "first_line",
    "format_bytes",
    "format_number",
    "format_percent",
    "format_seconds",
    "format_shape",
    "listed",
    "nearest",
    "quoted",
    "shell",
    "shorten",
    "singular",
    "storable",
    "verb",
]
