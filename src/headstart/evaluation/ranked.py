"""Figures of rankings, average precision and Spearman's correlation, with their intervals.

They are no means over items, so that the jackknife leaves out blocks of items: single ones where
they are few, whole groups where items belong to some, and else some 200 parts of equal size.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from headstart.core.records import Interval, Score
from headstart.core.row_keys import Keys, numbered
from headstart.evaluation.intervals import LEVEL, alike_limits

FloatArray = NDArray[np.float64]
_BLOCKS = 200
_LEAST_BLOCKS = 20
_MOST_WORK = 2e8


def average_precisions(truth: NDArray[np.bool_], scores: FloatArray) -> FloatArray:
    """Return the average precision of every label ``(k,)``, NaN where no item has it.

    ``sum_i (R_i - R_(i-1)) P_i`` over the different scores, as scikit-learn has it: ties count
    together, and nothing is interpolated.

    Args:
        truth: ``(n, k)``.
        scores: ``(n, k)``, higher for items that more likely have the label.
    """
    order = np.argsort(-scores, axis=0, kind="stable")
    sorted_truth = np.take_along_axis(truth, order, axis=0)
    sorted_scores = np.take_along_axis(scores, order, axis=0)
    return _precisions(sorted_truth, sorted_scores)


def _precisions(truth: NDArray[np.bool_], scores: FloatArray) -> FloatArray:
    """Return the average precisions of columns in descending order of their scores."""
    n, k = truth.shape
    if n == 0:
        return np.full(k, np.nan)
    hits = np.cumsum(truth, axis=0, dtype=np.float64)
    last = np.ones((n, k), bool)  # of items with equal scores
    last[:-1] = scores[1:] != scores[:-1]
    # The hits at the end of each run of ties, for all of the run: the next end, looking forward.
    rows = np.where(last, np.arange(n)[:, None], n)
    ends = np.minimum.accumulate(rows[::-1], axis=0)[::-1]
    precision = np.take_along_axis(hits, ends, axis=0) / (ends + 1)
    positives = hits[-1]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((precision * truth).sum(axis=0) / positives)


def mean_average_precision(
    truth: NDArray[np.bool_],
    scores: FloatArray,
    *,
    groups: Keys | None = None,
    level: float = LEVEL,
) -> Score:
    """Return the mean of the average precisions over the labels that occur, with its interval.

    Args:
        truth, scores: as for :func:`average_precisions`.
        groups: what every item belongs to; the interval then counts groups.
        level: the confidence level.
    """
    order = np.argsort(-scores, axis=0, kind="stable")
    sorted_truth = np.take_along_axis(truth, order, axis=0)
    sorted_scores = np.take_along_axis(scores, order, axis=0)
    k = truth.shape[1]

    def figure(block: NDArray[np.int64] | None, at: int) -> float:
        if block is None:
            each = _precisions(sorted_truth, sorted_scores)
        else:
            kept = block[order] != at
            each = np.array(
                [
                    _precisions(sorted_truth[own, i : i + 1], sorted_scores[own, i : i + 1])[0]
                    for i, own in enumerate(kept.T)
                ]
            )
        known = each[np.isfinite(each)]
        return float(known.mean()) if len(known) else math.nan

    return _jackknifed(len(truth), k, figure, _share_limits, groups, level)


def rank_correlation(
    truth: FloatArray, values: FloatArray, *, groups: Keys | None = None, level: float = LEVEL
) -> Score:
    """Return Spearman's correlation, the mean over targets, with an interval on Fisher's scale.

    Args:
        truth, values: ``(n, t)``. Where either has one value only there is no order: NaN.
        groups: what every item belongs to.
        level: the confidence level.
    """

    def figure(block: NDArray[np.int64] | None, at: int) -> float:
        kept = slice(None) if block is None else block != at
        return float(spearman(truth[kept], values[kept]).mean())

    return _jackknifed(len(truth), truth.shape[1], figure, _correlation_limits, groups, level)


def spearman(truth: FloatArray, values: FloatArray) -> FloatArray:
    """Return Spearman's correlation of every target, ``(t,)``, ties at their mean rank."""
    from scipy.stats import rankdata  # slow to load, and most jobs have no use for it

    if len(truth) < 2:
        return np.full(truth.shape[1], np.nan)
    a, b = (rankdata(one, axis=0) for one in (truth, values))
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    size = np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(size > 0, (a * b).sum(axis=0) / size, np.nan))


def _blocks(n: int, k: int, groups: Keys | None) -> tuple[NDArray[np.int64], int, bool]:
    """Return which block each item is in, how many there are, and whether they are groups."""
    if groups is not None:
        of, names = numbered(groups)
        parts = np.arange(len(names)) % min(len(names), _BLOCKS)
        return parts[np.asarray(of, np.int64)], min(len(names), _BLOCKS), True
    most = int(np.clip(_MOST_WORK / max(n * k, 1), _LEAST_BLOCKS, _BLOCKS))
    count = min(n, most)
    return np.arange(n) % count, count, False


def _jackknifed(
    n: int,
    k: int,
    figure: Callable[[NDArray[np.int64] | None, int], float],
    limits: Callable[[float, float, float, int, int], tuple[float, float] | None],
    groups: Keys | None,
    level: float,
) -> Score:
    value = figure(None, -1)
    block, count, grouped = _blocks(n, k, groups)
    if count < 2 or not math.isfinite(value):
        return Score(value, None)
    without = np.array([figure(block, at) for at in range(count)])
    without = without[np.isfinite(without)]
    if len(without) < 2:
        return Score(value, None)
    variance = (len(without) - 1) / len(without) * float(((without - without.mean()) ** 2).sum())
    units = len(numbered(groups)[1]) if grouped and groups is not None else n
    found = limits(value, variance, float(stdtrit(len(without) - 1, 0.5 + level / 2)), n, units)
    if found is None:
        return Score(value, None)
    low, high = found
    if grouped:
        return Score(value, Interval(low, high, level, "groups", units, n))
    return Score(value, Interval(low, high, level, "jackknife", n))


def _share_limits(
    value: float, variance: float, t: float, n: int, units: int
) -> tuple[float, float]:
    # Without any difference each group counts as one item, as in `grouped_share`.
    alike = value * (1 - value) / variance if variance > 0 else float(units)
    return alike_limits(value, min(alike, float(n)), t)


def _correlation_limits(
    value: float, variance: float, t: float, n: int, _units: int
) -> tuple[float, float] | None:
    if variance <= 0 or abs(value) >= 1 or n < 4:
        return None  # without any disorder there is nothing to tell how much there can be
    half = t * math.sqrt(variance) / (1 - value**2)
    middle = math.atanh(value)
    return math.tanh(middle - half), math.tanh(middle + half)


__all__ = ["average_precisions", "mean_average_precision", "rank_correlation", "spearman"]
