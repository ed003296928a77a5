"""Intervals of figures whose items belong to groups: patients, sites, films.

Items of a group are alike, so a thousand slices of ten patients say little more about the next
patient than ten items would. What varies from group to group is found by leaving out one group in
turn (the jackknife of Efron and Stein 1981, clusters in place of items). The interval is that of
as many independent items as have the same variance, with Student's t for the number of groups: it
stays within 0 and 1, and does not collapse where no group has a mistake.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from headstart.core.records import Interval, Score
from headstart.core.row_keys import Index, Keys, numbered
from headstart.evaluation.intervals import LEVEL, alike_limits

FloatArray = NDArray[np.float64]


def grouped_figures(
    labels: Index, predicted: Index, k: int, groups: Keys, *, level: float = LEVEL
) -> tuple[Score, Score, Score]:
    """Return accuracy, balanced accuracy and macro F1 with intervals that count groups.

    Args:
        labels, predicted: ``(n,) int64`` in ``[0, k)``.
        k: the number of classes.
        groups: n names.
        level: the confidence level.

    Returns:
        The three scores; without intervals where there is one group only.
    """
    group, names = numbered(groups)
    count = len(names)
    hit = labels == predicted
    right = np.bincount(labels[hit], minlength=k).astype(np.float64)
    support = np.bincount(labels, minlength=k).astype(np.float64)
    guessed = np.bincount(predicted, minlength=k).astype(np.float64)
    n = len(labels)
    value = _figures(right, support, guessed)
    without = np.empty((count, 3))
    order = np.argsort(group, kind="stable")
    ends = np.cumsum(np.bincount(group, minlength=count))
    for at, rows in enumerate(np.split(order, ends[:-1])):
        truth, guess = labels[rows], predicted[rows]
        if len(rows) < n:
            without[at] = _figures(
                right - np.bincount(truth[hit[rows]], minlength=k),
                support - np.bincount(truth, minlength=k),
                guessed - np.bincount(guess, minlength=k),
            )
    first, second, third = (
        grouped_share(float(v), w, n, level=level) for v, w in zip(value, without.T, strict=True)
    )
    return first, second, third


def grouped_accuracy(right: NDArray[np.bool_], groups: Keys, *, level: float = LEVEL) -> Score:
    """Return the share of items ``(n,)`` that are right, with an interval that counts groups."""
    group, names = numbered(groups)
    hits, size = np.bincount(group, right, len(names)), np.bincount(group, minlength=len(names))
    n, total = len(right), float(right.sum())
    left = np.maximum(n - size, 1)
    return grouped_share(total / n, (total - hits) / left, n, level=level)


def grouped_share(value: float, without: FloatArray, n: int, *, level: float = LEVEL) -> Score:
    """Return a share with the interval that follows from leaving out one group in turn.

    Args:
        value: the share of all items, in [0, 1].
        without: ``(groups,)``, the share without each group.
        n: the number of items, more than which no variance counts for.
        level: the confidence level.
    """
    count = len(without)
    if count < 2:
        return Score(value, None)
    variance = (count - 1) / count * float(((without - without.mean()) ** 2).sum())
    # Where groups do not differ at all, each counts as one item: nothing tells how alike they are.
    alike = value * (1 - value) / variance if variance > 0 else float(count)
    t = float(stdtrit(count - 1, 0.5 + level / 2))
    low, high = alike_limits(value, min(alike, float(n)), t)
    return Score(value, Interval(low, high, level, "groups", count, n))


def _figures(right: FloatArray, support: FloatArray, guessed: FloatArray) -> FloatArray:
    occurs, counted = support > 0, (support + guessed) > 0
    recall = right[occurs] / support[occurs]
    f1 = 2 * right[counted] / (support + guessed)[counted]
    return np.array([right.sum() / support.sum(), recall.mean(), f1.mean()])


__all__ = ["grouped_accuracy", "grouped_figures", "grouped_share"]
