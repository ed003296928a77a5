"""Numbers as people write them in tables: 1,000.5 and 1.000,5, 2,5, 1'000, 50 %.

How one is meant is decided by a whole column, never by a single value: ``1,000`` is a thousand
beside ``1,000.5`` and one beside ``0,250``; where nothing else decides, it is asked about.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from headstart.core.errors import DataError
from headstart.core.wording import quoted
from headstart.data.labels import number_of

_SIGN = r"[+\-\u2212]?"
_SPACES = "\u00a0\u202f\u2009 '\u2019"
_GROUPED = re.compile(rf"{_SIGN}\d{{1,3}}(?:([{_SPACES}])\d{{3}})(?:\1\d{{3}})*([.,]\d+)?")
_COMMA_GROUPS = re.compile(rf"{_SIGN}\d{{1,3}}(,\d{{3}})+(\.\d*)?")
_POINT_GROUPS = re.compile(rf"{_SIGN}\d{{1,3}}(\.\d{{3}})+(,\d*)?")
_COMMA = re.compile(rf"{_SIGN}\d+,\d+")
_EITHER = re.compile(rf"{_SIGN}[1-9]\d{{0,2}},\d{{3}}")
_POINT = re.compile(rf"{_SIGN}\d*\.\d+")
_PERCENT = re.compile(r"\s*%$")


@dataclass(frozen=True)
class Numerals:
    """A column of numbers.

    Attributes:
        values: the number of each; NaN for a missing one, None for what is none.
        told: in which form they are written, a phrase with an example; empty for plain numbers.
        decimal: what stands before decimals; empty where there are none.
        percent: whether they are written in per cent.
    """

    values: tuple[float | None, ...]
    told: str = ""
    decimal: str = ""
    percent: bool = False


def read_numerals(values: Sequence[Any], where: str) -> Numerals:
    """Return the values of a column as numbers, in the one form in which all of them are written.

    Args:
        values: plain values; None for a missing one.
        where: what they are, for messages.

    Raises:
        DataError: commas may stand before decimals or between thousands.
    """
    texts = [_text(value) for value in values]
    present = [text for text in texts if text is not None]
    plain = _numbers(values)
    if None not in plain:
        return Numerals(plain, decimal="." if any("." in text for text in present) else "")
    percent = all(_PERCENT.search(text) for text in present)
    if percent:
        texts = [None if text is None else _PERCENT.sub("", text) for text in texts]
        present = [text for text in texts if text is not None]
    form = _form(present, where)
    if form is None and not percent:
        return Numerals(plain)
    form = form or _Form("", "", ".")
    made = _numbers([None if text is None else form.plain(text) for text in texts])
    if None in made:
        return Numerals(made)
    ways = " and ".join(way for way in (form.how, "in per cent" if percent else "") if way)
    at = next(i for i, (text, number) in enumerate(zip(texts, made, strict=True))
              if text is not None and (percent or number_of(text) != number))  # fmt: skip
    told = f"{ways}, so that '{_text(values[at])}' is read as {made[at]:.15g}"
    marked = form.between in (",", ".") or any(form.before in text for text in present)
    return Numerals(made, told, form.before if marked else "", percent)


@dataclass(frozen=True)
class _Form:
    """How numbers are written: what stands between thousands, and before decimals."""

    how: str
    between: str
    before: str

    def plain(self, text: str) -> str:
        """Return a number as Python writes it."""
        for mark in self.between:
            text = text.replace(mark, "")
        return text.replace(self.before, ".").replace("\u2212", "-")


_THOUSANDS = _Form("with commas between thousands", ",", ".")
_DECIMAL = _Form("with decimal commas", "", ",")
_CONTINENTAL = _Form("with points between thousands and decimal commas", ".", ",")
_SPACED = _Form("with spaces or apostrophes between thousands", _SPACES, ".")
_SPACED_COMMA = _Form(
    "with spaces or apostrophes between thousands and decimal commas", _SPACES, ","
)


def _form(texts: Sequence[str], where: str) -> _Form | None:
    """Return the form of all texts; None for plain numbers, and where no form is that of all.

    Raises:
        DataError: two forms are.
    """
    odd = [text for text in texts if number_of(text) is None]
    if not odd:
        return None
    spaced = [found for text in odd if (found := _GROUPED.fullmatch(text))]
    if spaced:
        comma = any((found[2] or "").startswith(",") for found in spaced)
        comma = comma or any(_COMMA.fullmatch(text) for text in odd)
        if comma and any(_POINT.fullmatch(text) for text in texts):
            return None
        return _SPACED_COMMA if comma else _SPACED
    points = [text for text in texts if _POINT.fullmatch(text)]
    if any(map(_POINT_GROUPS.fullmatch, odd)):  # with a comma, or a second point
        fits = all(_POINT_GROUPS.fullmatch(text) or "." not in text for text in texts)
        return _CONTINENTAL if fits else None
    if not all(_COMMA.fullmatch(text) or _COMMA_GROUPS.fullmatch(text) for text in odd):
        return None
    grouped = all(_COMMA_GROUPS.fullmatch(text) for text in odd)
    sure = points or any(text.count(",") > 1 or "." in text for text in odd)
    if grouped and sure:
        return _THOUSANDS
    if sure:
        return None  # decimal commas beside decimal points
    if all(_EITHER.fullmatch(text) for text in odd):
        raise DataError(
            f"{where} {'hold' if where.startswith('the ') else 'holds'} numbers such as"
            f" {quoted(odd[:1], 1)}: is the comma one between thousands, or before decimals?",
            hint="write all of them without commas, as 1000 and 1.5",
        )
    return _DECIMAL


def _numbers(values: Sequence[Any]) -> tuple[float | None, ...]:
    return tuple(math.nan if value is None else number_of(value) for value in values)


def _text(value: Any) -> str | None:
    return None if value is None else str(value).strip()


__all__ = ["Numerals", "read_numerals"]
