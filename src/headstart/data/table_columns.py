"""Columns of a table beside its items, as numbers that join the features of a head.

Numbers are standardised and categories become one column each, as scikit-learn's
``StandardScaler`` and ``OneHotEncoder`` have it. What that takes is found in the training split and
kept with a run as plain values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.core.errors import DataError
from headstart.core.wording import count, did_you_mean, quoted
from headstart.data.dataset import Split
from headstart.data.labels import MISSING_TEXT, cell_text, number_of, plain_values
from headstart.data.numerals import read_numerals

MOST_CATEGORIES = 100
"""A column of text with more different values is a name of items, or a text, and no category."""


@dataclass(frozen=True)
class ColumnEncoding:
    """How one column becomes numbers.

    Attributes:
        name: of the column.
        mean, scale: of the training items, for numbers; a missing one counts as the mean.
        categories: the values of the training items; empty for numbers. An unknown or missing one
            is none of them.
    """

    name: str
    mean: float = 0.0
    scale: float = 1.0
    categories: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        """How many numbers an item gets."""
        return len(self.categories) or 1

    def __call__(self, values: Sequence[Any]) -> NDArray[np.float64]:
        """Return ``(n, width)``.

        Raises:
            DataError: a number is expected, and a value is none.
        """
        if not self.categories:
            numbers = [_number(value) for value in values]
            wrong = [v for v, number in zip(values, numbers, strict=True) if number is None]
            if wrong:
                raise DataError(
                    f"the column '{self.name}' holds {quoted([str(v) for v in wrong], 3)}, expected"
                    " numbers as in the training split",
                    hint="correct them, or leave them empty: a missing number is replaced by the"
                    " mean",
                )
            table = np.array(numbers, dtype=np.float64)[:, None]
            return np.asarray(np.nan_to_num((table - self.mean) / self.scale, nan=0.0))
        from sklearn.preprocessing import OneHotEncoder

        encoder = OneHotEncoder(
            categories=[list(self.categories)], handle_unknown="ignore", sparse_output=False
        )
        texts = np.array([[cell_text(value) or ""] for value in values], dtype=object)
        encoder.fit(np.array([[name] for name in self.categories], dtype=object))
        return np.asarray(encoder.transform(texts), dtype=np.float64)


Encodings = tuple[ColumnEncoding, ...]


def fitted_columns(split: Split, names: Sequence[str]) -> tuple[Encodings, tuple[str, ...]]:
    """Find how columns become numbers, from training items alone.

    Args:
        split: the training split, of a table.
        names: of the columns.

    Returns:
        One encoding a column, and a note that says what was made of which.

    Raises:
        DataError: there is no such column, or one holds no category.
    """
    found = fitted_values(_values(split, names))
    kinds = [
        count(one.width, "category", "categories") if one.categories else "a number"
        for one in found
    ]
    told = ", ".join(f"'{one.name}' ({kind})" for one, kind in zip(found, kinds, strict=True))
    return found, (f"columns joined to the features: {told}",)


def fitted_values(columns: Mapping[str, Sequence[Any]]) -> Encodings:
    """Find how columns become numbers, from the values of training items by name.

    Raises:
        DataError: a column holds no category.
    """
    return tuple(_fitted(name, values) for name, values in columns.items())


def encoded_values(columns: Mapping[str, Sequence[Any]], encodings: Encodings) -> Any:
    """Return columns as numbers ``(n, w)``, from their values by name.

    Raises:
        DataError: one holds what it cannot hold.
    """
    return np.concatenate([one(columns[one.name]) for one in encodings], axis=1)


def encoded_columns(split: Split, encodings: Encodings) -> NDArray[np.float64]:
    """Return the columns of a split as numbers ``(n, w)``.

    Raises:
        DataError: a column is missing, or holds what it cannot hold.
    """
    return np.asarray(encoded_values(_values(split, [one.name for one in encodings]), encodings))


def read_encodings(values: Any) -> Encodings:
    """Rebuild encodings from the plain values of a run, which are not trusted.

    Raises:
        KeyError, TypeError, ValueError: they are none.
    """
    found = []
    for each in values:
        if not isinstance(each, Mapping) or not isinstance(each["name"], str):
            raise TypeError("a column has no name")
        categories = each["categories"]
        if not isinstance(categories, list) or not all(isinstance(c, str) for c in categories):
            raise TypeError("the categories of a column are not names")
        mean, scale = float(each["mean"]), float(each["scale"])
        if not (math.isfinite(mean) and math.isfinite(scale) and scale > 0):
            raise ValueError("the scale of a column is not positive")
        found.append(ColumnEncoding(each["name"], mean, scale, tuple(categories)))
    return tuple(found)


def columns_of(split: Split) -> dict[str, list[float | str | None]]:
    """Return what else the source says of the items of a split, by column, in their order.

    A column whose every value is a number, or missing, is one of numbers, also where a CSV file has
    them as text; any other is one of texts. What is missing is None.
    """
    if split.metadata is None:
        return {}
    found: dict[str, list[float | str | None]] = {}
    for name in split.metadata.schema.names:
        values = plain_values(split.metadata.column(name).to_pylist())
        own = [values[row] for row in split.rows.tolist()]
        numbers = [None if isinstance(value, bool) else _number(value) for value in own]
        if None in numbers:
            found[name] = [cell_text(value) for value in own]
        else:
            found[name] = [None if math.isnan(value) else value for value in numbers]  # type: ignore[arg-type]
    return found


def _values(split: Split, names: Sequence[str]) -> dict[str, list[Any]]:
    table = split.metadata
    if table is None:
        raise DataError(
            f"the data has no columns besides items and labels, so columns={quoted(names, 3)}"
            " cannot be joined",
            hint="give a table (CSV, Parquet, a data frame) with these columns",
        )
    found = {}
    for name in names:
        if name not in table.schema.names:
            raise DataError(
                f"the data has no column '{name}' (columns='{','.join(names)}')",
                hint=did_you_mean(name, table.schema.names)
                or f"its columns besides items and labels are {quoted(table.schema.names, 8)}",
            )
        values = plain_values(table.column(name).to_pylist())
        found[name] = [values[row] for row in split.rows.tolist()]
    return found


def _fitted(name: str, values: Sequence[Any]) -> ColumnEncoding:
    numbers = [_number(value) for value in values]
    known = np.array([v for v in numbers if v is not None and math.isfinite(v)])
    if None not in numbers and len(known):
        from sklearn.preprocessing import StandardScaler

        scaler = StandardScaler().fit(known[:, None])
        return ColumnEncoding(name, float(scaler.mean_[0]), float(scaler.scale_[0]))
    _refuse_numerals(name, values)
    texts = sorted({text for value in values if (text := cell_text(value))})
    if not texts:
        raise DataError(
            f"the column '{name}' is empty in the training split",
            hint="remove it from columns=NAME,NAME",
        )
    if len(texts) > MOST_CATEGORIES:
        raise DataError(
            f"the column '{name}' holds {len(texts):,} different texts, expected numbers or at most"
            f" {MOST_CATEGORIES} categories",
            hint="remove it: it identifies single items, or is free text",
        )
    return ColumnEncoding(name, categories=tuple(texts))


def _refuse_numerals(name: str, values: Sequence[Any]) -> None:
    """Refuse numbers that would be taken for categories, such as ``1,000.5`` and ``50%``.

    Raises:
        DataError: all values are such numbers.
    """
    known = [text for value in values if (text := cell_text(value))]
    if not known or None in read_numerals(known, f"the column '{name}'").values:
        return
    odd = next((text for text in known if number_of(text) is None), None)
    if odd is None:
        return
    raise DataError(
        f"the column '{name}' holds '{odd}', which is no plain number",
        hint="write its numbers as 1000.5, without marks between thousands and without units",
    )


def _number(value: Any) -> float | None:
    """Return a value as a number, NaN where it is missing; None where it is none."""
    if value is None or (isinstance(value, str) and value.strip().casefold() in MISSING_TEXT):
        return math.nan
    found = number_of(value)
    return math.nan if found is not None and not math.isfinite(found) else found


__all__ = [
    "ColumnEncoding",
    "Encodings",
    "columns_of",
    "encoded_columns",
    "encoded_values",
    "fitted_columns",
    "fitted_values",
    "read_encodings",
]
