"""Figures that follow from means over items, and their intervals by leaving out one item."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from headstart.core.records import Interval, Score
from headstart.core.row_keys import Keys, numbered
from headstart.evaluation.intervals import LEVEL, alike_limits

FloatArray = NDArray[np.float64]
Kind = Literal["share", "size", "explained"]
_ROWS = 4096


def figures_of_means(
    columns: FloatArray,
    statistic: Callable[[FloatArray], FloatArray],
    kinds: tuple[Kind, ...],
    *,
    groups: Keys | None = None,
    level: float = LEVEL,
) -> tuple[Score, ...]:
    """Return figures that follow from means over items, each with its interval.

    The standard error is that of the jackknife (Efron and Stein 1981). A share of 0 to 1 gets
    limits for as many items as have its variance; a size above 0 Student's t on the scale of
    its logarithm; and an explained share, at most 1, that of what it leaves unexplained.

    Args:
        columns: ``(n, m)``, what is averaged, of each item.
        statistic: means ``(..., m)`` → figures ``(..., f)``.
        kinds: of the ``f`` figures.
        groups: what every item belongs to: then a group is left out in turn, not an item.
        level: the confidence level.

    Returns:
        ``f`` scores, without an interval for a single item.
    """
    items, values = len(columns), statistic(columns.mean(axis=0))
    sizes = np.ones(items)
    if groups is not None:
        of, names = numbered(groups)
        sizes = np.bincount(of, minlength=len(names)).astype(np.float64)
        summed = np.zeros((len(names), columns.shape[1]))
        np.add.at(summed, of, columns)
        columns = summed
    n = len(columns)
    if n < 2:
        return tuple(Score(float(value), None) for value in values)
    total = columns.sum(axis=0)
    without = np.concatenate(
        [
            statistic((total - columns[at : at + _ROWS]) / (items - sizes[at : at + _ROWS, None]))
            for at in range(0, n, _ROWS)
        ]
    )
    t = float(stdtrit(n - 1, 0.5 + level / 2))
    return tuple(
        _score(float(value), found, kind, t, level, None if groups is None else items)
        for value, found, kind in zip(values, without.T, kinds, strict=True)
    )


def _score(
    value: float, without: FloatArray, kind: Kind, t: float, level: float, items: int | None
) -> Score:
    n = len(without)

    def interval(low: float, high: float) -> Interval:
        if items is None:
            return Interval(low, high, level, "jackknife", n)
        return Interval(low, high, level, "groups", n, items)

    if kind == "share":
        variance = _variance(without)
        alike = value * (1 - value) / variance if variance > 0 else float(n)
        low, high = alike_limits(value, alike, t)
        return Score(value, interval(low, high))
    sizes = without if kind == "size" else 1.0 - without
    size = value if kind == "size" else 1.0 - value
    if size <= 0 or sizes.min() <= 0:
        return Score(value, None)  # without any error there is nothing to tell how large it can be
    factor = math.exp(t * math.sqrt(_variance(np.log(sizes))))
    low, high = size / factor, size * factor
    if kind == "explained":
        low, high = 1.0 - high, 1.0 - low
    return Score(value, interval(low, high))


def _variance(without: FloatArray) -> float:
    n = len(without)
    return float((n - 1) / n * ((without - without.mean()) ** 2).sum())


__all__ = ["figures_of_means"]
