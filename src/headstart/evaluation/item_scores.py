"""How far each item is right, by task: what paired comparisons of predictions count.

A figure whose value is a mean over items can be compared item by item: the accuracy of classes, the
F1 of the labels of each item, and R², whose mean over items of ``1 - (y - f)² / var(y)`` it is.
mAP is no such mean, so that comparisons of several labels count the F1 of items.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from headstart.core.records import Interval, IntervalMethod, Score
from headstart.core.row_keys import Keys, numbered
from headstart.evaluation.classification import accuracy_score
from headstart.evaluation.intervals import LEVEL, paired_accuracy_difference
from headstart.evaluation.sums import Kind, figures_of_means

Values = NDArray[np.float64]

ITEM_FIGURES = {"classification": "accuracy", "multi-label": "F1 of items", "regression": "R²"}
"""The figure that comparisons count, by task; all are 1 at best and shown in per cent."""


def item_scores(
    task: str, truth: NDArray[np.generic], predicted: NDArray[np.generic]
) -> NDArray[np.bool_] | Values:
    """Return how far each item is right, ``(n,)``.

    Args:
        task: what the values are.
        truth: classes ``(n,)``, memberships or numbers ``(n, k)``.
        predicted: likewise.

    Returns:
        Whether the class is right; the F1 of the labels of an item, 1 where it has none and none
        is predicted; or ``1 - (y - f)² / var(y)``, the mean over the targets, whose mean over all
        items is R².
    """
    if task == "classification":
        return np.asarray(predicted == truth)
    given, made = np.asarray(truth, np.float64), np.asarray(predicted, np.float64)
    if task == "multi-label":
        own, said = given > 0.5, made > 0.5
        total = (own.sum(axis=1) + said.sum(axis=1)).astype(np.float64)
        both = 2.0 * (own & said).sum(axis=1)
        return np.asarray(np.where(total > 0, both / np.maximum(total, 1), 1.0))
    variance = given.var(axis=0)
    squared = (given - made) ** 2
    return np.asarray((1.0 - squared / np.where(variance > 0, variance, 1.0)).mean(axis=1))


def mean_item_score(
    scores: NDArray[np.bool_] | Values, task: str, *, groups: Keys | None = None
) -> Score:
    """Return the figure of items with its 95 % interval, which counts groups where there are any.

    Args:
        scores: ``(n,)``, as :func:`item_scores` returns them.
        task: what they are of.
        groups: what every item belongs to.
    """
    if scores.dtype == bool:
        right = np.ones(len(scores), np.int64)
        return accuracy_score(right, scores.astype(np.int64), groups=groups)
    kind: Kind = "explained" if task == "regression" else "share"
    values = np.asarray(scores, np.float64)[:, None]
    (found,) = figures_of_means(values, lambda means: means, (kind,), groups=groups)
    return found


def paired_item_difference(
    first: NDArray[np.bool_] | Values,
    second: NDArray[np.bool_] | Values,
    *,
    groups: Keys | None = None,
) -> Score:
    """Return the figure of the first less that of the second, on the same items.

    Without groups, that of classes has the score interval of Tango (1998). Any other has Student's
    t limits, of items or, where they belong to some, of groups.

    Args:
        first, second: ``(n,)`` each, as :func:`item_scores` returns them.
        groups: what every item belongs to.
    """
    if groups is None and first.dtype == bool and second.dtype == bool:
        return paired_accuracy_difference(np.ones(len(first), bool), first, second)
    gaps = first.astype(np.float64) - second.astype(np.float64)
    value, items = float(gaps.mean()), len(gaps)
    gaps = of_groups(gaps, groups)
    n = len(gaps)
    if n < 2:
        return Score(value, None)
    # Half an item is added to either side: few items that differ are no certainty.
    squares = float(((gaps - value) ** 2).sum())
    variance = max(squares / ((n - 1) * n), (squares + 1.0) / (n + 2.0) ** 2)
    half = float(stdtrit(n - 1, 0.5 + LEVEL / 2)) * math.sqrt(variance)
    method: IntervalMethod = "score" if groups is None else "groups"
    counted = None if groups is None else items
    return Score(value, Interval(value - half, value + half, LEVEL, method, n, counted))


def of_groups(values: Values, groups: Keys | None) -> Values:
    """Return one value a group, whose mean and its variance are those of the items as groups.

    Args:
        values: ``(n,)``, of items.
        groups: what every item belongs to; None: the values are returned as they are.
    """
    if groups is None:
        return values
    of, names = numbered(groups)
    summed = np.bincount(of, values, len(names))
    return np.asarray(summed * (len(names) / len(values)), np.float64)


__all__ = [
    "ITEM_FIGURES",
    "item_scores",
    "mean_item_score",
    "of_groups",
    "paired_item_difference",
]
