"""Columns of a table beside the items of an estimator's X: they join the features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headstart.core.errors import ConfigError, DataError
from headstart.core.wording import quoted
from headstart.data.labels import plain_values
from headstart.data.source import column_names
from headstart.data.table_columns import Encodings, encoded_values, fitted_values
from headstart.sklearn.faults import InputError
from headstart.sklearn.images import column_names_of, named_column


def joined_names(columns: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of columns that join the features, given as ``"age,site"`` or as a list."""
    if columns is None:
        return ()
    return column_names(columns if isinstance(columns, str) else ",".join(columns))


def column_faults(columns: object) -> list[str]:
    """Return what is wrong with the parameter ``columns``, one sentence each."""
    if columns is not None and not isinstance(columns, str | list | tuple):
        return [f"columns must be names of columns, not {columns!r}"]
    try:
        joined_names(columns)
    except (ConfigError, TypeError) as error:
        return [str(error)]
    return []


def items_of(X: Any, names: Sequence[str], asked: str | None) -> Any:
    """Return what the extractor is given of a table: all of it, or the one column that is left.

    Args:
        X: a table where ``names`` are given.
        names: of the columns that join the features.
        asked: the column of items, where the user named it.

    Raises:
        InputError: X is no table, or several columns are left.
    """
    if not names or asked is not None:
        return X
    found = [str(name) for name in column_names_of(X)]
    left = [name for name in found if name not in names]
    if len(left) != 1:
        raise InputError(
            f"besides the columns {quoted(names, 3)} of X there "
            + (f"are {quoted(left, 5)}" if left else "is none of items"),
            hint="name the column of items with image_column or text_column",
        )
    return named_column(X, left[0])


def fitted(X: Any, names: Sequence[str]) -> Encodings:
    """Find how the columns of a table become numbers.

    Raises:
        InputError: there is no such column, or it is no category.
    """
    try:
        return fitted_values(_values(X, names))
    except DataError as error:
        raise InputError(error.message, hint=error.hint) from error


def encoded(X: Any, encodings: Encodings) -> Any:
    """Return the columns of a table as numbers ``(n, w)``.

    Raises:
        InputError: there is no such column, or it holds what it cannot hold.
    """
    try:
        return encoded_values(_values(X, [one.name for one in encodings]), encodings)
    except DataError as error:
        raise InputError(error.message, hint=error.hint) from error


def _values(X: Any, names: Sequence[str]) -> dict[str, list[Any]]:
    return {name: plain_values(list(named_column(X, name, "columns"))) for name in names}


__all__ = ["column_faults", "encoded", "fitted", "items_of", "joined_names"]
