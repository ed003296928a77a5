"""Confidence intervals: Wilson for a proportion, Student's t for repetitions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from headstart.core.errors import HeadError
from headstart.core.records import Interval, Score


def wilson_interval(successes: float, n: int, *, level: float = 0.95) -> Interval | None:
    """Return Wilson's score interval for a proportion (Wilson 1927); None without items.

    Unlike the textbook interval it stays inside [0, 1] and is honest near 0 and 1, where good
    classifiers on small test sets live.
    """
    if n == 0:
        return None
    z = float(stats.norm.ppf(0.5 + level / 2))
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return Interval(max(0.0, centre - half), min(1.0, centre + half), level, "wilson", n)


def t_interval(
    values: Sequence[float] | np.ndarray,
    *,
    level: float = 0.95,
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> Score:
    """Return the mean of repetitions with Student's t interval; none for a single one.

    Args:
        values: one figure a repetition, taken as independent.
        level: the confidence level.
        bounds: what the figure cannot leave, (0, 1) for an accuracy; the interval is cut there.

    Raises:
        HeadError: if there is no value, or one is not finite.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or len(array) == 0 or not np.isfinite(array).all():
        raise HeadError("expected a list of finite figures, one a repetition")
    n, mean = len(array), float(array.mean())
    if n < 2:
        return Score(mean, None)
    half = float(stats.t.ppf(0.5 + level / 2, n - 1) * array.std(ddof=1) / math.sqrt(n))
    low, high = max(mean - half, bounds[0]), min(mean + half, bounds[1])
    return Score(mean, Interval(low, high, level, "t", n))


def repeated_accuracy(accuracies: Sequence[float] | np.ndarray, n: int) -> Score:
    """Return the mean accuracy of repetitions on the same items, with a 95 % interval.

    Repetitions and items are crossed, and both are samples: the variance of the mean is at most
    the sum of the variances over either margin (Owen 2007, "The pigeonhole bootstrap", section
    3), degrees of freedom after Satterthwaite. Repetitions alone would tell how well the figure
    repeats, not how well it holds for other items. The interval is never narrower than Wilson's
    for one pass over the items; for one repetition it is that.

    Args:
        accuracies: of each repetition, fractions.
        n: the number of items, the same in every repetition.

    Raises:
        HeadError: if there is no value, or one is not finite.
    """
    score, count = t_interval(accuracies), len(accuracies)
    wilson = wilson_interval(score.value * n, n)
    if count < 2 or wilson is None:
        return Score(score.value, wilson)
    repetitions = float(np.var(accuracies, ddof=1)) / count
    items = score.value * (1.0 - score.value) / n
    variance = repetitions + items
    half = 0.0
    if variance > 0:
        freedom = variance**2 / (repetitions**2 / (count - 1) + items**2 / max(n - 1, 1))
        half = float(stats.t.ppf(0.5 + wilson.level / 2, freedom)) * math.sqrt(variance)
    low = max(0.0, min(score.value - half, wilson.low))
    high = min(1.0, max(score.value + half, wilson.high))
    return Score(score.value, Interval(low, high, wilson.level, "t", count))


def paired_difference(
    a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray, *, level: float = 0.95
) -> Score:
    """Return the mean of ``a - b`` over paired repetitions, with Student's t interval.

    Raises:
        HeadError: if the lengths differ.
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape:
        raise HeadError(
            f"expected pairs of repetitions, found {len(first)} figures and {len(second)}"
        )
    return t_interval(first - second, level=level)


def paired_accuracy_difference(
    labels: np.ndarray, a: np.ndarray, b: np.ndarray, *, level: float = 0.95
) -> Score:
    """Return accuracy of ``a`` minus accuracy of ``b`` on the same items.

    The interval is that of Agresti and Min (2005): Wald's for the difference of paired
    proportions after half an item is added to each cell of the 2 x 2 table.

    Args:
        labels, a, b: ``(n,) int``, the truth and two sets of predictions.
        level: the confidence level.

    Raises:
        HeadError: if the lengths differ or there is no item.
    """
    if not len(labels) == len(a) == len(b) or len(labels) == 0:
        raise HeadError(
            f"expected as many predictions as labels ({len(labels)}), found {len(a)} and {len(b)}"
        )
    right_a, right_b = np.asarray(a) == labels, np.asarray(b) == labels
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    n = len(labels)
    total, first, second = n + 2.0, only_a + 0.5, only_b + 0.5
    centre = (first - second) / total
    z = float(stats.norm.ppf(0.5 + level / 2))
    half = z * math.sqrt(first + second - (first - second) ** 2 / total) / total
    low, high = max(-1.0, centre - half), min(1.0, centre + half)
    return Score((only_a - only_b) / n, Interval(low, high, level, "normal", n))
