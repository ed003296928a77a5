"""Which column of a table holds the labels, or which columns together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow.compute as pc

from headstart.core.errors import DataError
from headstart.core.wording import quoted
from headstart.data.column_types import (
    LABEL_NAMES,
    columns_hint,
    holds_fractions,
    holds_paths,
    is_index,
    is_list,
    is_scalar,
    is_text,
    require_column,
)
from headstart.data.label_texts import zeros_and_ones
from headstart.data.targets import Asked


def label_column(
    table: Any,
    where: str,
    asked: str | None,
    image: str,
    *,
    required: bool,
    beside: Sequence[str] = (),
    task: Asked = "auto",
) -> str | tuple[str, ...] | None:
    """Return the name of the column that holds the labels.

    A customary name (label, class, category, target, y, ...) decides if it is one alone; else the
    only column of text, whole numbers or truth values that is left.

    Args:
        table: ``pyarrow.Table``.
        where: the table's name, for messages.
        asked: the name the user gave, if any; or the names of several columns, with commas.
        image: the image column.
        required: whether it is an error that there is none, or that several could be meant.
        beside: columns that hold no labels unless asked for: groups, what joins the features.
        task: what the labels mean; numbers with fractions are labels of a regression alone.

    Returns:
        The name; or the names of several columns: one-hot ones, 0 and 1 of several labels, or
        the targets of a regression.

    Raises:
        DataError: no such column; or ``required`` and no or several candidates.
    """
    if asked is not None and asked not in table.schema.names and "," in asked:
        several = tuple(name.strip() for name in asked.split(","))
        for name in several:
            require_column(table, name, where, "label_column")
        if task == "classification":
            one_hot_names(table, several, where)
        return several
    if asked is not None:
        require_column(table, asked, where, "label_column")
        return asked
    rest = [f for f in table.schema if f.name not in (image, *beside) and not is_index(f.name)]
    lists = [f.name for f in rest if is_list(f.type)]
    rest = [f for f in rest if is_scalar(f.type) and not holds_paths(table, f.name)]
    named = [f.name for f in rest if f.name.casefold() in LABEL_NAMES]
    named += [name for name in lists if name.casefold() in LABEL_NAMES]
    candidates = named or _candidates(table, rest, lists, task)
    if len(candidates) == 1:
        return str(candidates[0])
    if not required:
        return None
    part = [f.name for f in rest if _zeros_and_ones(table, f.name) is not None]
    whole = len(part) > 1 and one_hot(table, part)
    bits = len(part) > 1 and (whole or task in ("auto", "multi-label"))
    if bits and not named and set(candidates) <= set(part):
        return tuple(part)
    if candidates:
        hint = "choose one with label_column=NAME"
        if whole:
            hint = f"of these, {quoted(part)} are one-hot: label_column='{','.join(part)}'"
        elif bits:
            hint += f", or several that hold 0 and 1: label_column='{','.join(part)}'"
        raise DataError(
            f"{where} has several columns that could hold the labels: {quoted(candidates, 12)}",
            hint=hint,
        )
    raise DataError(
        f"{where} has no label column besides '{image}': expected text, whole numbers or booleans",
        hint=f"{columns_hint(table)}; choose one with label_column=NAME",
    )


def _candidates(table: Any, rest: Sequence[Any], lists: list[str], task: Asked) -> list[str]:
    """Return the columns that could hold the labels of a task, where no name says which."""
    fractions = [f.name for f in rest if holds_fractions(table, f)]
    if task == "regression":
        return fractions or [f.name for f in rest if not is_text(f.type)] or [f.name for f in rest]
    if task == "multi-label" and lists:
        return lists
    whole = [f.name for f in rest if f.name not in fractions]
    if task == "classification":
        return whole
    return whole or lists or fractions


def are_classes(table: Any, names: Sequence[str], task: Asked) -> bool:
    """Return whether several columns of labels are one-hot, so that they mean one class an item."""
    return task == "classification" or (task == "auto" and one_hot(table, names))


def one_hot(table: Any, names: Sequence[str]) -> bool:
    """Return whether exactly one of these columns is 1 in every row, and the others 0."""
    found = [_zeros_and_ones(table, name) for name in names]
    if any(values is None for values in found):
        return False
    return all(sum(row) == 1 for row in zip(*found, strict=True))


def one_hot_names(
    table: Any, names: Sequence[str], where: str = "the table"
) -> tuple[str | None, ...]:
    """Return the name of the column that is 1, for every row.

    Raises:
        DataError: they are not one-hot.
    """
    if not one_hot(table, names):
        raise DataError(
            f"the columns {quoted(names, 6)} of {where} are not one-hot: expected 0 and 1, and"
            " exactly one 1 in every row",
            hint="task='multi-label' takes 0 and 1 for several labels per item,"
            " task='regression' numbers; for one class per item, name one column with"
            " label_column=NAME",
        )
    rows = zip(*(_zeros_and_ones(table, name) or () for name in names), strict=True)
    return tuple(names[row.index(1)] for row in rows)


def _zeros_and_ones(table: Any, name: str) -> list[int] | None:
    """Return the values of a column that holds 0 and 1 in any form; None for another."""
    column = table.column(name)
    if len(pc.unique(column)) > 2:
        return None
    return zeros_and_ones(column.to_pylist())


def names_its_labels(table: Any) -> bool:
    """Return whether exactly one column has a customary name of labels."""
    return sum(name.casefold() in LABEL_NAMES for name in table.schema.names) == 1


__all__ = ["are_classes", "label_column", "names_its_labels", "one_hot", "one_hot_names"]
