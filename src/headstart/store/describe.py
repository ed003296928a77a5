"""Descriptions of feature spaces: plain JSON values → canonical text → key, and differences.

A key must mean the same tomorrow and on another machine, so a description consists of plain JSON
values. Anything else is refused rather than pickled or printed into a key.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from headstart.core import fingerprints
from headstart.core.errors import StoreError

_PREFIX = b"headstart-space-v1\n"
KEY_LENGTH = 32


class _Absent:
    """Marks a path that does not exist on one side; a type of its own, since None is a value."""

    def __repr__(self) -> str:
        return "absent"


ABSENT = _Absent()


@dataclass(frozen=True)
class Difference:
    """One path at which two descriptions differ.

    Attributes:
        path: such as ``preprocessing.resize`` or ``layers[0]``.
        left, right: the two values; :data:`ABSENT` where the path does not exist.
    """

    path: str
    left: Any
    right: Any

    def __str__(self) -> str:
        return f"{self.path}: {_show(self.left)} → {_show(self.right)}"


def checked_description(description: Mapping[str, Any]) -> dict[str, Any]:
    """Return a deep copy of ``description`` as plain JSON values.

    Raises:
        StoreError: a value is not plain (NumPy scalars and enums included) or not finite, or a key
            is not a string. The message names all such places.
    """
    faults: list[str] = []
    if not isinstance(description, Mapping):
        raise StoreError(
            f"a space is described by a mapping, not a {type(description).__name__}",
            hint='for example {"backbone": "resnet18", "layer": "pool"}',
        )
    plain = _plain(dict(description), "", faults)
    if faults:
        raise StoreError(
            "a description consists of plain JSON values: " + "; ".join(faults),
            hint="use a name, settings, or a digest of the content instead",
        )
    return plain  # type: ignore[no-any-return]


def canonical_json(description: Mapping[str, Any]) -> bytes:
    """Return the canonical JSON of a description: sorted keys, no white space, ASCII."""
    plain = checked_description(description)
    return fingerprints.canonical_json(plain).encode("ascii")


def space_key(description: Mapping[str, Any]) -> str:
    """Return the key of a description: 32 hexadecimal characters of a versioned SHA-256."""
    return fingerprints.fingerprint(_PREFIX + canonical_json(description))


def differences(left: Mapping[str, Any], right: Mapping[str, Any]) -> tuple[Difference, ...]:
    """Return the paths at which two descriptions differ: those of ``left`` in order, then new ones.

    A branch that exists on one side only counts as one difference.
    """
    return tuple(_compare(left, right, ""))


def _plain(value: Any, path: str, faults: list[str]) -> Any:
    # Exact types: numpy.float64 is a float and an enum may be a str, but JSON would not say so.
    kind = type(value)
    if value is None or kind in (bool, int, str):
        return value
    if kind is float:
        if not math.isfinite(value):
            faults.append(f"'{path}' is {value!r}, which JSON cannot express")
        return value
    if kind is list:
        return [_plain(item, f"{path}[{i}]", faults) for i, item in enumerate(value)]
    if kind is dict:
        result = {}
        for name, item in value.items():
            if type(name) is not str:
                where = f" of '{path}'" if path else ""
                faults.append(f"the key {name!r}{where} is a {type(name).__name__}, not a str")
                continue
            result[name] = _plain(item, f"{path}.{name}" if path else name, faults)
        return result
    faults.append(f"'{path}' is a {kind.__module__}.{kind.__qualname__}")
    return None


def _compare(left: Any, right: Any, path: str) -> Iterator[Difference]:
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        names = [*left, *(name for name in right if name not in left)]
        for name in names:
            inner = f"{path}.{name}" if path else name
            yield from _compare(left.get(name, ABSENT), right.get(name, ABSENT), inner)
    elif isinstance(left, list) and isinstance(right, list):
        for i in range(max(len(left), len(right))):
            yield from _compare(
                left[i] if i < len(left) else ABSENT,
                right[i] if i < len(right) else ABSENT,
                f"{path}[{i}]",
            )
    elif type(left) is not type(right) or left != right:
        yield Difference(path, left, right)


def _show(value: Any) -> str:
    if value is ABSENT:
        return "absent"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}…"
