"""Kinds of values: how values of one sort are written as text on a command line, and read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Kind:
    """How values of one sort are written as text and read from it.

    Attributes:
        metavar: placeholder of a value in a help text, such as ``N|H,W``.
        takes: what a value looks like, for an error: ``one number, or three with commas``.
        parse: text to value; raises ValueError for anything else.
        write: value to text, the inverse of ``parse``.
        repeats: whether the flag may be given several times, which is the same as commas.
    """

    metavar: str
    takes: str
    parse: Callable[[str], Any]
    write: Callable[[Any], str] = str
    repeats: bool = False


def words_of(text: str) -> tuple[str, ...]:
    """Return the words between commas, without spaces around them."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def listed(of: Any) -> Kind:
    """Return the kind of values with commas between them: ``ridge,lda`` or ``0,1,2``.

    Args:
        of: the type of one value: ``str``, ``int``, ``float``; another is taken as ``str``.
    """
    single = of if of in (int, float) else str

    def parse(text: str) -> tuple[Any, ...]:
        return tuple(single(word) for word in words_of(text))

    def write(value: Iterable[Any]) -> str:
        return ",".join(map(str, value))

    if single is str:
        return Kind("NAME,…", "names with commas", parse, write)
    noun = "whole numbers" if single is int else "numbers"
    return Kind("N,…", f"{noun} with commas", parse, write)


MEASURED = "train"
"""In the place of a number for each channel: measured on the training split."""


def _parse_per_channel(text: str) -> float | str | tuple[float, ...]:
    if text.strip() == MEASURED:
        return MEASURED
    values = tuple(float(part) for part in (text.split(",") if "," in text else text.split()))
    if not values:
        raise ValueError(text)
    return values[0] if len(values) == 1 else values


def _write_per_channel(value: Any) -> str:
    if isinstance(value, str):
        return value
    values = value if isinstance(value, tuple | list) else (value,)
    return ",".join(map(str, values[:1] if len(set(values)) == 1 else values))


def _parse_size(text: str) -> int | tuple[int, int]:
    parts = text.lower().replace("x", " ").replace(",", " ").replace("×", " ").split()
    if len(parts) not in (1, 2) or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise ValueError(text)
    return int(parts[0]) if len(parts) == 1 else (int(parts[0]), int(parts[1]))


def _parse_json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ValueError(f"not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(text)
    return value


PER_CHANNEL = Kind(
    "M|R,G,B",
    "one number, or one for each channel, with commas",
    _parse_per_channel,
    _write_per_channel,
)
SIZE = Kind(
    "N|H,W",
    "a number of pixels, or height and width as 224,160",
    _parse_size,
    _write_per_channel,
)


def _parse_renames(text: str) -> dict[str, str | None]:
    pairs = [each.strip() for each in text.split(",") if each.strip()]
    if any("=" not in pair or pair.startswith("=") for pair in pairs):
        raise ValueError(text)
    named = (pair.split("=", 1) for pair in pairs)
    return {old.strip(): None if new.strip() == "-" else new.strip() for old, new in named}


def _write_renames(value: Any) -> str:
    return ",".join(f"{old}={'-' if new is None else new}" for old, new in value.items())


RENAMES = Kind(
    "OLD=NEW",
    "OLD=NEW (nothing after = takes OLD away, - leaves the tensors out)",
    _parse_renames,
    _write_renames,
    repeats=True,
)
JSON_OBJECT = Kind("JSON", "a JSON object", _parse_json_object, json.dumps)

__all__ = ["JSON_OBJECT", "PER_CHANNEL", "RENAMES", "SIZE", "Kind", "listed", "words_of"]
