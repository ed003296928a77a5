"""Raw label values → class names and integer labels."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.core.errors import DataError
from headstart.core.wording import count, quoted
from headstart.data.dataset import UNLABELLED
from headstart.data.names import composed

_EXACT = 2**53
_WHOLE = re.compile(r"^([+-]?\d+)\.0*$")

MISSING_TEXT = frozenset({"", "nan", "null", "na", "n/a", "<na>"})
"""Texts (lower case) that a CSV file writes for a missing value."""


def plain_values(values: Sequence[Any] | NDArray[Any]) -> list[Any]:
    """Return Python values; None for a missing one (None, NaN, NaT, pandas' NA)."""
    plain = values.tolist() if isinstance(values, np.ndarray) else list(values)
    return [None if _is_missing(value) else _python(value) for value in plain]


def cell_text(value: Any) -> str | None:
    """Return a cell as the name of a group or of a category; None where it is missing.

    Whole numbers are one name whether they came as 3 or 3.0, and so are both Unicode forms of a
    letter; white space around a text is none of it.
    """
    if value is None:
        return None
    whole = isinstance(value, float) and value.is_integer()
    text = composed(str(int(value) if whole else value).strip())
    return None if text.casefold() in MISSING_TEXT else text


def _is_missing(value: Any) -> bool:
    if value is None:
        return True
    try:
        return bool(value != value)  # NaN is not equal to itself
    except (TypeError, ValueError):
        return type(value).__name__ == "NAType"  # pandas' NA compares to nothing


def _python(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def class_names(
    values: Sequence[Any] | NDArray[Any], where: str, names: Sequence[str] | None = None
) -> list[str | None]:
    """Return the class name of every raw value; None for a missing one.

    Whole numbers become ``"3"`` whether they came as 3, 3.0 or ``"3.0"``, digit by digit, so that
    long ones stay apart; ``"03"`` stays ``"03"``. Truth values become ``"True"`` and ``"False"``.
    Texts lose surrounding white space and take the composed form of Unicode (NFC): the same name
    from another system is the same class. An empty text is a missing label.

    Args:
        values: text, integers, truth values or whole floats; None, NaN or −1 under ``names`` for
            a missing label.
        where: what the values are, for messages ("column 'label' of train.csv").
        names: names of the integers 0, 1, ... where the source declares them.

    Raises:
        DataError: fractional numbers, values of another type, or an integer without a name.
    """
    plain = plain_values(values)
    if names is not None:
        return [_declared(value, names, where) for value in plain]
    as_text = [None if value is None else _text(value, where) for value in plain]
    return _whole_number_texts(as_text, where)


def encode(
    parts: Mapping[str, Sequence[str | None]], declared: Sequence[str] | None = None
) -> tuple[tuple[str, ...], dict[str, NDArray[np.int64]]]:
    """Number the classes of all parts together.

    Args:
        parts: class name of every item, None for unlabelled, by split.
        declared: the classes in the source's own order, where it declares one; those without any
            item are dropped.

    Returns:
        The class names, and ``(n,) int64`` labels by split (−1 for unlabelled).
    """
    parts = {
        split: [None if n is None else composed(n) for n in values]
        for split, values in parts.items()
    }
    declared = None if declared is None else [composed(name) for name in declared]
    present = {name for values in parts.values() for name in values if name is not None}
    if declared is not None and present <= set(declared):
        classes = tuple(dict.fromkeys(name for name in declared if name in present))
    else:
        classes = sorted_classes(present)
    position: dict[str | None, int] = {name: i for i, name in enumerate(classes)}
    labels = {
        split: np.fromiter((position.get(v, UNLABELLED) for v in values), np.int64, len(values))
        for split, values in parts.items()
    }
    return classes, labels


def sorted_classes(names: set[str]) -> tuple[str, ...]:
    """Sort class names: by value where all are finite numbers, as text otherwise."""
    numbers = {name: number_of(name) for name in names}
    known = {name: value for name, value in numbers.items() if value is not None}
    if len(known) < len(names) or not all(map(math.isfinite, known.values())):
        return tuple(sorted(names))  # NaN has no place in an order
    return tuple(sorted(names, key=lambda name: (known[name], name)))


def number_of(value: Any) -> float | None:
    """Return a value of a table as a number, NaN and infinity included; None where it is none.

    Python takes ``1_2`` for 12; in a table that is a code, such as that of a site and a camera.
    """
    if isinstance(value, str) and "_" in value:
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def require_labels(names: Sequence[str | None], origins: Sequence[str], where: str) -> None:
    """Refuse missing labels.

    Raises:
        DataError: with the number of missing labels and the first few items.
    """
    missing = [origin for origin, name in zip(origins, names, strict=True) if name is None]
    if missing:
        raise DataError(
            f"{count(len(missing), 'item')} of {len(names):,} in {where} without a label"
            f" (missing, empty or NaN): {quoted(missing, 5)}",
            hint="give those items a label, or remove them",
        )


def _declared(value: Any, names: Sequence[str], where: str) -> str | None:
    if value is None or value == UNLABELLED:
        return None
    if isinstance(value, str) and value in names:
        return value
    if isinstance(value, int | float) and value == int(value) and 0 <= value < len(names):
        return names[int(value)]
    raise DataError(
        f"{where} holds the label {value!r}, but only {count(len(names), 'class', 'classes')}"
        f" are declared ({quoted(names, 5)})",
        hint="correct the label, or declare its class",
    )


def _text(value: Any, where: str) -> str | None:
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, bool | int):
        return str(value)
    if isinstance(value, float | Decimal):
        if not (math.isfinite(value) and value == int(value)):
            raise _fractional(value, where)
        if isinstance(value, float) and abs(value) > _EXACT:
            raise DataError(
                f"{where} holds floats beyond 2**53, such as {value:.0f}, where neighbouring"
                " whole numbers cannot be told apart",
                hint="give the labels as integers or as text",
            )
        return str(int(value))
    if isinstance(value, bytes):
        try:
            return value.decode().strip() or None
        except UnicodeDecodeError:
            pass
    raise DataError(
        f"{where} holds {type(value).__name__} values, expected one class per item: text, whole"
        " numbers or booleans",
        hint="name the column that holds the class with label_column=NAME",
    )


def _whole_number_texts(texts: list[str | None], where: str) -> list[str | None]:
    """Turn "3.0" into "3" where every text is a number: what a table writes beside NaNs."""
    present = {text for text in texts if text is not None}
    if not any("." in text for text in present):
        return texts
    try:
        numbers = {text: Decimal(text) for text in present}
    except InvalidOperation:
        return texts
    for number in numbers.values():
        if not (number.is_finite() and number == number.to_integral_value()):
            raise _fractional(number, where)
    # cut, not computed: "0012.0" stays "0012", and no digit is rounded
    return [None if text is None else _WHOLE.sub(r"\1", text) for text in texts]


def _fractional(value: float | Decimal, where: str) -> DataError:
    return DataError(
        f"{where} holds fractional numbers such as {value:g}, expected classes",
        hint="task='regression' predicts numbers; for classes name another column with"
        " label_column=NAME",
    )
