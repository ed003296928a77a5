"""Figures of several repetitions: intervals that count repetitions and items, and differences.

A figure that was measured in several repetitions on the same items has two sources of variance,
and both count: other repetitions would give another figure, and so would other items.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, stdtr, stdtrit

from headstart.core.errors import HeadError
from headstart.core.records import Interval, Score
from headstart.evaluation.intervals import (
    LEVEL,
    alike_limits,
    paired_limits,
    paired_score,
    proportion_interval,
)

Correct = NDArray[np.bool_] | NDArray[np.float64]
"""``(n,)``: which items of one repetition were classified correctly, or how far each is right
(:mod:`headstart.evaluation.item_scores`)."""


_SATTERTHWAITE_FROM = 4


@dataclass(frozen=True)
class Difference:
    """A paired difference between two accuracies.

    Attributes:
        value: the difference of the means over all repetitions, a fraction.
        interval: at 95 %; None where nothing can be estimated (one repetition of one item).
        p: two-sided p-value of "no difference".
        p_holm: the same, corrected for the number of comparisons; None until they are known.
    """

    value: float
    interval: Interval | None
    p: float
    p_holm: float | None = None

    @property
    def significant(self) -> bool:
        """Whether the corrected p-value is below 0.05."""
        return self.p_holm is not None and self.p_holm < 1 - LEVEL


@dataclass(frozen=True)
class _Estimate:
    """A mean, its variance, and the degrees of freedom of that variance."""

    mean: float
    variance: float
    freedom: float

    @property
    def quantile(self) -> float:
        """Student's t for an interval at 95 %."""
        return float(stdtrit(self.freedom, 0.5 + LEVEL / 2))

    def share_limits(self, n: float) -> tuple[float, float]:
        """Return limits of a share, for as many equal items as have its variance; else n."""
        spread = self.mean * (1.0 - self.mean)
        alike = spread / self.variance if self.variance > 0 and spread > 0 else n
        return alike_limits(self.mean, alike, self.quantile)

    def limits(self, low: float = -1.0, high: float = 1.0) -> tuple[float, float]:
        """Return Student's t limits of a difference, or of another figure between two bounds."""
        half = self.quantile * math.sqrt(self.variance)
        return max(low, self.mean - half), min(high, self.mean + half)

    @property
    def p(self) -> float:
        """The two-sided p-value of a mean of zero."""
        if self.mean == 0.0:
            return 1.0
        return float(2 * stdtr(self.freedom, -abs(self.mean) / math.sqrt(self.variance)))


def t_interval(
    values: Sequence[float] | np.ndarray,
    *,
    level: float = LEVEL,
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> Score:
    """Return the mean of repetitions with Student's t interval; none for a single one.

    It is right for figures that are independent and near normal. An accuracy near 100 % is
    neither: see :func:`repeated_accuracy`.

    Args:
        values: one figure per repetition, taken as independent.
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
    half = float(stdtrit(n - 1, 0.5 + level / 2) * array.std(ddof=1) / math.sqrt(n))
    low, high = max(mean - half, bounds[0]), min(mean + half, bounds[1])
    return Score(mean, Interval(low, high, level, "t", n))


def repeated_accuracy(accuracies: Sequence[float] | np.ndarray, n: int) -> Score:
    """Return the mean accuracy of repetitions on the same items, with a 95 % interval.

    Repetitions and items are crossed, and both are samples: the variance of the mean is at most
    the sum of the variances over either margin (Owen 2007, "The pigeonhole bootstrap", section
    3), degrees of freedom after Satterthwaite. Repetitions alone would tell how well the figure
    repeats, not how well it holds for other items. The interval is never narrower than the exact
    one for one pass over the items; for one repetition it is that.

    Args:
        accuracies: of each repetition, fractions.
        n: the number of items, the same in every repetition.

    Raises:
        HeadError: if there is no value, or one is not finite.
    """
    score, count = t_interval(accuracies), len(accuracies)
    exact = proportion_interval(score.value * n, n)
    if count < 2 or exact is None:
        return Score(score.value, exact)
    repetitions = float(np.var(accuracies, ddof=1)) / count
    items = score.value * (1.0 - score.value) / n
    low, high = _crossed(score.value, repetitions, items, count, n).share_limits(n)
    low, high = min(low, exact.low), max(high, exact.high)
    return Score(score.value, Interval(low, high, exact.level, "t", count, n))


def repeated_mean(
    correct: Sequence[Correct], *, test_train_ratio: float | None = None, share: bool = True
) -> Score:
    """Return the mean accuracy over repetitions whose single predictions are known.

    The interval is at 95 %, and counts repetitions and items; see :func:`repeated_difference`. It
    has the shape of a score interval for as many items as have the same variance, so that it is
    no point where every item is right. For one repetition it is exact.

    Args:
        correct: one array a repetition.
        test_train_ratio: as for :func:`repeated_difference`.
        share: whether the figure lies between 0 and 1; R² is at most 1, and its interval is
            Student's.
    """
    if len(correct) == 1 and correct[0].dtype == bool:
        (only,) = correct
        return Score(float(only.mean()), proportion_interval(int(only.sum()), len(only)))
    values = [one.astype(np.float64) for one in correct]
    found, n = _estimate(values, test_train_ratio, 0.0), float(np.mean([len(v) for v in values]))
    if test_train_ratio is not None:
        shared = test_train_ratio / (1 + test_train_ratio)
        n /= shared + (1 - shared) / len(values)
    if share and 0.0 <= found.mean <= 1.0:
        low, high = found.share_limits(n)
    else:
        low, high = found.limits(-math.inf, 1.0)
    items = len(values[0]) if test_train_ratio is None else sum(map(len, values))
    return Score(found.mean, Interval(low, high, LEVEL, "t", len(correct), items))


def repeated_difference(
    correct: Sequence[Correct],
    reference: Sequence[Correct],
    *,
    test_train_ratio: float | None = None,
    share: bool = True,
) -> Difference:
    """Return the paired difference of two classifiers, repetition by repetition.

    With the same test items in every repetition, repetitions and items are crossed, as in
    :func:`repeated_accuracy`. With test items that are redrawn from the same data, repetitions
    share most of their items. The variance of drawing test items is known from these, and that of
    their mean follows from how many of all items a repetition tests; what the repetitions differ
    beyond it is enlarged by test over training items (Nadeau and Bengio 2003, "Inference for the
    generalization error", equation 9). So that
    few items that differ are not certainty, half an item is added to each cell of the table of
    right and wrong (Agresti and Min 2005). For one repetition the limits are those of Tango
    (1998), and the p-value is McNemar's.

    Args:
        correct, reference: one array a repetition; both of a repetition tested the same items.
        test_train_ratio: the number of test items over that of training items, if every
            repetition draws its own test items. None: all repetitions test the same items, in the
            same order.
        share: as for :func:`repeated_mean`.
    """
    gaps = [one.astype(np.float64) - other for one, other in zip(correct, reference, strict=True)]
    if len(gaps) > 1 or (correct[0].dtype != bool and len(gaps[0]) > 1):
        found = _estimate(gaps, test_train_ratio, 1.0)
        bound = 1.0 if share else math.inf
        interval = Interval(*found.limits(-bound, bound), LEVEL, "t", len(gaps))
        return Difference(found.mean, interval, found.p)
    (gap,), n = gaps, len(gaps[0])
    if n < 2:
        return Difference(float(gap.mean()), None, 1.0)
    first, second = float((gap > 0).mean()), float((gap < 0).mean())
    t = float(stdtrit(n - 1, 0.5 + LEVEL / 2))
    interval = Interval(*paired_limits(first, second, n, t), LEVEL, "score", n)
    p = float(2 * ndtr(-abs(paired_score(first, second, n))))
    return Difference(first - second, interval, p)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Correct p-values for their number (Holm 1979): step down, made monotone, at most 1."""
    order = sorted(p_values, key=lambda name: (p_values[name], name))
    corrected: dict[str, float] = {}
    highest = 0.0
    for rank, name in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p_values[name]))
        corrected[name] = highest
    return corrected


def _estimate(
    values: Sequence[NDArray[np.float64]], ratio: float | None, extra: float
) -> _Estimate:
    """Estimate a mean over repetitions and items; see :func:`repeated_difference`.

    Args:
        values: of each item, an array a repetition.
        ratio: of test to training items where every repetition draws its own.
        extra: squares that are added to those of the items, and two items for each.
    """
    means = np.array([v.mean() for v in values])
    count, mean = len(values), float(means.mean())
    if count == 1:  # of one repetition the items alone tell anything
        (only,) = values
        return _Estimate(mean, _of_mean(only, extra), max(len(only) - 1, 1))
    if ratio is not None:
        # What drawing test items contributes is known from the items; what is left of the spread
        # is that of training.
        drawn = float(np.mean([_of_mean(v, extra) for v in values]))
        if count < _SATTERTHWAITE_FROM:  # two or three tell too little of it: the whole spread
            spread = max(float(means.var(ddof=1)), drawn)
            return _Estimate(mean, spread * (1 / count + ratio), count - 1)
        trained = max(float(means.var(ddof=1)) - drawn, 0.0)
        shared = ratio / (1 + ratio)  # of all items, tested in a repetition
        n = round(float(np.mean([len(v) for v in values])) / shared)
        items = drawn * (shared + (1 - shared) / count)
        return _crossed(mean, trained * (1 / count + ratio), items, count, n)
    by_item = np.mean(values, axis=0)
    repetitions = float(means.var(ddof=1)) / count
    return _crossed(mean, repetitions, _of_mean(by_item, extra), count, len(by_item))


def _of_mean(values: NDArray[np.float64], extra: float) -> float:
    """Return the variance of the mean of some items."""
    n = len(values)
    squares = float(((values - values.mean()) ** 2).sum())
    return max(squares / (max(n - 1, 1) * n), (squares + extra) / (n + 2 * extra) ** 2)


def _crossed(mean: float, repetitions: float, items: float, count: int, n: int) -> _Estimate:
    """Add the variances of the mean over ``count`` repetitions and ``n`` items (Owen 2007)."""
    variance = repetitions + items
    if variance == 0.0:
        return _Estimate(mean, 0.0, max(n - 1, 1))
    if count >= _SATTERTHWAITE_FROM:
        freedom = variance**2 / (repetitions**2 / (count - 1) + items**2 / max(n - 1, 1))
        return _Estimate(mean, variance, freedom)
    # Two or three repetitions agree at random too often: each part keeps its own quantile
    # (Cochran 1964). The degrees of freedom of the same half width serve the p-value too.
    tail = 0.5 + LEVEL / 2
    first, second = float(stdtrit(count - 1, tail)), float(stdtrit(max(n - 1, 1), tail))
    t = math.sqrt((first**2 * repetitions + second**2 * items) / variance)
    low, high = float(min(count - 1, max(n - 1, 1))), float(max(count - 1, n - 1))
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if float(stdtrit(middle, tail)) > t else (low, middle)
    return _Estimate(mean, variance, (low + high) / 2)


__all__ = [
    "Correct",
    "Difference",
    "holm",
    "repeated_accuracy",
    "repeated_difference",
    "repeated_mean",
    "t_interval",
]
