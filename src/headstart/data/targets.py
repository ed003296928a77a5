"""Labels of a source → what the task is, and the targets of every item.

A source's labels are classes, one an item; sets of labels; or numbers. Which, is found from the
values where it is not said, and told with the reason. What the values do not tell is asked.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from headstart.core.errors import DataError
from headstart.core.wording import count, quoted
from headstart.data.label_texts import (
    SEPARATORS,
    divides_at_spaces,
    holds,
    is_list,
    joined_names,
    members,
    multi_hot,
    separator_of,
    written_lists,
    zeros_and_ones,
)
from headstart.data.labels import class_names, plain_values
from headstart.data.names import composed
from headstart.data.numerals import Numerals, read_numerals

Task = Literal["classification", "multi-label", "regression"]
Asked = Literal["auto", "classification", "multi-label", "regression"]

_COMMA = re.compile(r"[+-]?\d+,\d+")
_MANY = 20
_FEW_EACH = 3


@dataclass(frozen=True, eq=False)
class RawTargets:
    """Targets that are no classes, as one split of a source gives them.

    Attributes:
        task: ``multi-label`` or ``regression``.
        values: the labels of every item, or ``(n, t) float64``.
        outputs: names of the labels that are declared, or of the targets.
        why: how the task was found, the end of a sentence; empty where it was given.
        empty: items whose text of labels is empty, so that they have none.
        numerals: how the numbers of each target are written.
    """

    task: Task
    values: tuple[tuple[str, ...], ...] | NDArray[np.float64]
    outputs: tuple[str, ...]
    why: str
    empty: int = 0
    numerals: tuple[Numerals, ...] = ()


@dataclass(frozen=True, eq=False)
class Labels:
    """What a split of a source says of its items.

    Attributes:
        names: the class of each item; None for one without labels; empty where ``targets`` say it.
        targets: of any other task than classification.
        doubt: what is to be said of a task that was found, a sentence; empty for none.
    """

    names: tuple[str | None, ...]
    targets: RawTargets | None = None
    doubt: str = ""


def read_labels(
    values: Sequence[Any] | NDArray[Any],
    where: str,
    task: Asked = "auto",
    declared: Sequence[str] | None = None,
    output: str = "target",
) -> Labels:
    """Return the labels of one column, and the task that they mean.

    Args:
        values: one an item: a class, a list of labels, a text of several, or a number.
        where: what they are, for messages.
        task: what they mean; ``auto``: what they look like.
        declared: names of the integers 0, 1, ... where the source declares them.
        output: the name of the target, if they are numbers.

    Raises:
        DataError: values that do not fit the task, or may be classes as well as quantities.
    """
    plain = plain_values(values)
    present = [value for value in plain if value is not None]
    lists = any(is_list(value) for value in present) or written_lists(present)
    bits = multi_hot(present, where) if lists and declared is None and len(present) else None
    if bits is not None and len(present) == len(plain) and task != "regression":
        return _of_bits(bits, where, task)
    if task == "classification" or (task == "auto" and declared is not None and not lists):
        return Labels(tuple(class_names(values, where, declared)))
    if task == "regression":
        return _numbers(plain, where, output, "")
    if task == "multi-label":
        return _sets(plain, where, declared, "", separator_of(present, asked=True))
    if lists:
        return _sets(plain, where, declared, f"{where} {holds(where)} lists", None)
    _refuse_decimal_commas(present, where)
    separator = separator_of(present, asked=False)
    if separator is not None:
        why = f"{where} {holds(where)} several labels separated by '{separator}'"
        return _sets(plain, where, declared, why, separator)
    numerals = read_numerals(present, where)
    if _fractions(present, numerals):
        return _numbers(plain, where, output, f"{where} {holds(where)} numbers with fractions")
    return Labels(
        tuple(class_names(values, where, declared)), doubt=_doubt(present, where, numerals)
    )


def read_columns(columns: dict[str, list[Any]], where: str, task: Asked = "auto") -> Labels:
    """Return the labels of several columns: 0 or 1 of each label, or one number of each target.

    Args:
        columns: the values by name.
        where: what they are, for messages.
        task: what they mean; ``auto``: several labels where all values are 0 and 1.

    Raises:
        DataError: they are neither.
    """
    names = tuple(columns)
    if task != "regression":
        bits = {name: zeros_and_ones(values) for name, values in columns.items()}
        other = [name for name, found in bits.items() if found is None]
        if not other:
            rows = zip(*(found or () for found in bits.values()), strict=True)
            sets = tuple(tuple(n for n, bit in zip(names, row, strict=True) if bit) for row in rows)
            raw = RawTargets("multi-label", sets, names, f"{where} hold 0 and 1")
            return Labels(("",) * len(sets), raw)
        if task == "multi-label":
            raise DataError(
                f"{where}: column '{other[0]}' holds values other than 0 and 1, expected 1 where"
                " an item has the label",
                hint="name columns of 0 and 1, or one column of lists",
            )
    for name, values in columns.items():
        plain = plain_values(values)
        if task == "auto" and None in read_numerals(plain, f"column '{name}'").values:
            held = quoted(dict.fromkeys(str(value) for value in plain), 3)
            raise DataError(
                f"{where}: column '{name}' holds {held}, expected 0 and 1, or numbers",
                hint="write 1 where an item has the label and 0 where it has not, or name one"
                " column with label_column=NAME",
            )
    parts = [
        _numbers(plain_values(values), f"column '{name}'", name, "") for name, values in
        columns.items()
    ]  # fmt: skip
    table = np.concatenate([_array(part) for part in parts], axis=1)
    known = np.isfinite(table).all(axis=1)
    numerals = tuple(one for part in parts if part.targets for one in part.targets.numerals)
    raw = RawTargets("regression", table, names, f"{where} hold numbers", numerals=numerals)
    return Labels(tuple("" if one else None for one in known), raw)


def read_matrix(y: NDArray[Any], where: str, task: Asked = "auto") -> Labels:
    """Return the labels of an array ``(n, k)``: memberships of 0 and 1, or numbers.

    Raises:
        DataError: it is neither.
    """
    columns = {f"{i}": y[:, i].tolist() for i in range(y.shape[1])}
    found = read_columns(columns, f"the {y.shape[1]} columns of {where}", task)
    return found


def _of_bits(bits: Sequence[Sequence[int]], where: str, task: Asked) -> Labels:
    """Return the labels of lists of 0 and 1, called after their places; one class where one is 1.

    Raises:
        DataError: classes are asked for, and they are not one-hot.
    """
    names = tuple(str(place) for place in range(len(bits[0])))
    sets = tuple(tuple(n for n, bit in zip(names, row, strict=True) if bit) for row in bits)
    hot = all(len(own) == 1 for own in sets)
    if task == "classification" and not hot:
        raise DataError(
            f"{where} {holds(where)} lists of 0 and 1 that are not one-hot, expected one class an"
            " item",
            hint="task='multi-label' takes several labels an item",
        )
    if hot and task != "multi-label":
        said = f"{where} {holds(where)} one-hot lists: the class is the place of the 1"
        return Labels(tuple(own[0] for own in sets), doubt=said)
    why = f"{where} {holds(where)} lists of 0 and 1, one for each label"
    return Labels(("",) * len(sets), RawTargets("multi-label", sets, names, why))


def targets_of_names(names: Sequence[str | None], where: str, task: Task) -> Labels:
    """Return class names as what another task asks for: folders called after an age, or texts."""
    return read_labels(list(names), where, task)


def _array(found: Labels) -> NDArray[np.float64]:
    assert found.targets is not None
    return np.asarray(found.targets.values, dtype=np.float64)


def _refuse_decimal_commas(values: Sequence[Any], where: str) -> None:
    """Ask where every text is two numbers around one comma.

    Raises:
        DataError: so it is.
    """
    texts = [value.strip() for value in values if isinstance(value, str)]
    if not texts or len(texts) < len(values) or not all(map(_COMMA.fullmatch, texts)):
        return
    raise DataError(
        f"{where} {holds(where)} texts such as '{texts[0]}': numbers with a decimal comma, or"
        " several labels?",
        hint="task='regression' reads numbers, task='multi-label' splits at the commas",
    )


def _sets(
    plain: Sequence[Any],
    where: str,
    declared: Sequence[str] | None,
    why: str,
    separator: str | None,
) -> Labels:
    rows = [members(value, where, separator) for value in plain]
    flat = [value for row in rows if row is not None for value in row]
    named = iter(class_names(flat, where, declared))
    sets: list[tuple[str, ...]] = []
    names: list[str | None] = []
    empty = 0
    texts = not any(is_list(value) for value in plain)
    for row in rows:
        found = [] if row is None else [name for _, name in zip(row, named, strict=False)]
        sets.append(tuple(dict.fromkeys(composed(name) for name in found if name is not None)))
        missing = row is None and not texts
        names.append(None if missing else "")
        empty += row is None and texts
    raw = RawTargets("multi-label", tuple(sets), tuple(declared or ()), why, empty)
    return Labels(tuple(names), raw)


def _fractions(values: Sequence[Any], found: Numerals) -> bool:
    """Return whether all values are numbers, and some of them are not whole."""
    if any(isinstance(value, bool) for value in values) or None in found.values:
        return False
    return any(not v.is_integer() for v in found.values if v is not None and np.isfinite(v))


def _numbers(plain: Sequence[Any], where: str, output: str, why: str) -> Labels:
    found = read_numerals(plain, where)
    wrong = [value for value, number in zip(plain, found.values, strict=True) if number is None]
    if wrong:
        named = quoted(dict.fromkeys(str(value) for value in wrong), 3)
        raise DataError(
            f"{where} {holds(where)} {named}, expected numbers for a regression",
            hint=_how_numbers_are_given(where),
        )
    table = np.array(found.values, dtype=np.float64)[:, None]
    if np.isinf(table).any():
        raise DataError(f"{where} {holds(where)} infinite numbers", hint="remove those items")
    names = tuple(None if np.isnan(value) else "" for value in table[:, 0])
    return Labels(names, RawTargets("regression", table, (output,), why, numerals=(found,)))


def _how_numbers_are_given(where: str) -> str:
    written = "numbers are written in one form, such as 1000.5, without units"
    if where.startswith("column "):
        return f"name a column of numbers with label_column=NAME; {written}"
    return f"name each folder after its number, or give a table with a column of numbers; {written}"


def _doubt(values: Sequence[Any], where: str, numerals: Numerals) -> str:
    """Say that whole numbers are read as classes where they may be quantities; ask where they must.

    Raises:
        DataError: so many different numbers, so few items of each, that either may be meant.
    """
    for separator in SEPARATORS[:2]:
        held = {value for value in values if isinstance(value, str) and separator in value}
        if held:
            return (
                f"{where} {holds(where)} '{separator}' in {count(len(held), 'name')} of classes,"
                f" such as {quoted(sorted(held), 1)}; task='multi-label' splits them"
            )
    if parted := joined_names(values):
        return (
            f"{where} {holds(where)} ',' between names that are also classes alone, such as"
            f" {quoted([parted], 1)}; task='multi-label' splits them"
        )
    if divides_at_spaces(values):
        return (
            f"{where} {holds(where)} few words in many combinations, which are read as one class"
            " each; task='multi-label' splits them at spaces"
        )
    numbers = numerals.values
    if not numbers or any(isinstance(value, bool) for value in values) or None in numbers:
        return ""
    different = len(set(numbers))
    if different <= _MANY:
        return ""
    if len(numbers) < _FEW_EACH * different:
        raise DataError(
            f"{where} {holds(where)} {different:,} different whole numbers in"
            f" {count(len(numbers), 'item')}: classes, or quantities?",
            hint="task='regression' predicts the number, task='classification' takes each number"
            " as a class",
        )
    return (
        f"{where} {holds(where)} {different:,} different whole numbers, which are read as classes;"
        " task='regression' predicts the number instead"
    )


__all__ = [
    "Asked",
    "Labels",
    "RawTargets",
    "Task",
    "read_columns",
    "read_labels",
    "read_matrix",
    "targets_of_names",
]
