"""How good a head is on parts of the items: by the values of any column that says more of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from headstart.core.records import Interval, Score
from headstart.core.row_keys import Keys, numbered
from headstart.core.wording import format_number
from headstart.evaluation.grouped import grouped_accuracy
from headstart.evaluation.intervals import LEVEL, proportion_interval

VALUES = 30
"""Different values up to which each is a slice; more numbers are divided into four ranges, and more
names are no slices."""


@dataclass(frozen=True)
class Slice:
    """The items that have one value of a column.

    Attributes:
        value: in words; a range of numbers.
        n: how many there are.
        score: the share that is right, or the mean error, with its interval.
    """

    value: str
    n: int
    score: Score


def slices(
    values: Sequence[Any],
    measured: NDArray[Any],
    *,
    groups: Keys | None = None,
) -> tuple[Slice, ...]:
    """Score the items by the values of a column, in the order of the values.

    Args:
        values: ``(n,)``, of the column; None where an item has none.
        measured: ``(n,)``: bool, whether an item is right; or float, its error.
        groups: what each item belongs to, where that counts for the intervals.

    Returns:
        One slice a value; nothing where all items have one value, or nearly every one its own.
    """
    parts = _parts(values)
    if len(parts) < 2:
        return ()
    found = []
    for name, rows in parts:
        some = None if groups is None else [groups[i] for i in rows.tolist()]
        found.append(Slice(name, len(rows), _score(measured[rows], some)))
    return tuple(found)


def group_slices(groups: Keys, measured: NDArray[Any]) -> tuple[Slice, ...]:
    """Score every group of items, the worst first.

    Intervals are those of the items of a group: they say how sure its figure is, and nothing of
    the next group.

    Args:
        groups: ``(n,)``, names.
        measured: ``(n,)``: bool, whether an item is right; or float, its error.

    Returns:
        One slice a group; nothing where there is one group only, or each has a single item.
    """
    number, names = numbered(groups)
    if not 1 < len(names) < len(number):
        return ()
    found = []
    for at, rows in enumerate(np.split(np.argsort(number, kind="stable"), _ends(number))):
        found.append(Slice(str(names[at]), len(rows), _score(measured[rows], None)))
    sign = 1 if measured.dtype == np.bool_ else -1
    return tuple(sorted(found, key=lambda each: (sign * each.score.value, each.value)))


def _ends(number: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.cumsum(np.bincount(number))[:-1]


def _score(measured: NDArray[Any], groups: Keys | None) -> Score:
    if measured.dtype != np.bool_:
        return mean_score(measured, groups)
    if groups is not None:
        return grouped_accuracy(measured, groups)
    n, right = len(measured), int(measured.sum())
    return Score(right / n, proportion_interval(right, n))


def mean_score(values: NDArray[Any], groups: Keys | None = None, *, level: float = LEVEL) -> Score:
    """Return the mean of some numbers with Student's interval, which counts groups where there are.

    Of a single number, or of a single group, nothing says how much others would differ.
    """
    n, mean = len(values), float(values.mean())
    units, error = n, float(values.std(ddof=1)) / math.sqrt(n) if n > 1 else 0.0
    if groups is not None:
        of, names = numbered(groups)
        units, size = len(names), np.bincount(of)
        without = (values.sum() - np.bincount(of, values)) / np.maximum(n - size, 1)
        error = math.sqrt((units - 1) / units * float(((without - without.mean()) ** 2).sum()))
    if units < 2:
        return Score(mean, None)
    half = float(stdtrit(units - 1, 0.5 + level / 2)) * error
    if groups is None:
        return Score(mean, Interval(mean - half, mean + half, level, "t", n))
    return Score(mean, Interval(mean - half, mean + half, level, "groups", units, n))


def _parts(values: Sequence[Any]) -> list[tuple[str, NDArray[np.int64]]]:
    """Divide items by the values of a column, or by ranges of them."""
    known = [value for value in values if value is not None and not _is_nan(value)]
    different = set(known)
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in different)
    if not 1 < len(different) < max(2, len(known)) and not (numbers and len(different) > VALUES):
        return []
    if len(different) <= VALUES:
        ordered = sorted(different, key=lambda value: (isinstance(value, str), value))
        place = {value: at for at, value in enumerate(ordered)}
        of = np.array([-1 if _is_nan(value) else place.get(value, -1) for value in values])
        names = [format_number(v) if numbers else str(v) for v in ordered]
    elif numbers:
        column = np.array([np.nan if value is None else float(value) for value in values])
        edges = np.unique(np.nanquantile(column, (0.25, 0.5, 0.75)))
        of = np.where(np.isnan(column), -1, np.searchsorted(edges, column, side="left"))
        bounds = [format_number(float(edge)) for edge in edges]
        names = [
            f"up to {bounds[0]}",
            *(f"{low} to {high}" for low, high in pairwise(bounds)),
            f"above {bounds[-1]}",
        ]
    else:
        return []
    parts = [(name, np.flatnonzero(of == at)) for at, name in enumerate(names)]
    if (of < 0).any():
        parts.append(("(none)", np.flatnonzero(of < 0)))
    return [(name, rows) for name, rows in parts if len(rows)]


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


__all__ = ["VALUES", "Slice", "group_slices", "mean_score", "slices"]
