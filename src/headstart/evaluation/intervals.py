"""Confidence intervals: Wilson for a proportion, Student's t for repetitions.

A figure that was measured in several repetitions on the same items has two sources of variance,
and both count: other repetitions would give another figure, and so would other items.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtr, stdtrit  # scipy.stats has them, and takes a second to load

from headstart.core.errors import HeadError
from headstart.core.records import Interval, Score

Correct = NDArray[np.bool_]
"""``(n,) bool``: which items of one repetition were classified correctly."""

LEVEL = 0.95
# A resample has a weight for each item; so many are held at once.
_CELLS_AT_ONCE = 4_000_000


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
    """A mean, its standard error, and the degrees of freedom of that error."""

    mean: float
    error: float
    freedom: float

    def half_width(self, level: float = LEVEL) -> float:
        """Return half the width of Student's t interval."""
        return float(stdtrit(self.freedom, 0.5 + level / 2)) * self.error

    def interval(self, n: int, low: float, high: float) -> Interval | None:
        """Return the interval, cut at the bounds; None if the error is unknown."""
        if not math.isfinite(self.error):
            return None
        half = self.half_width()
        return Interval(max(low, self.mean - half), min(high, self.mean + half), LEVEL, "t", n)

    @property
    def p(self) -> float:
        """The two-sided p-value of a mean of zero."""
        if not math.isfinite(self.error):
            return 1.0
        if self.error == 0.0:
            return 1.0 if self.mean == 0.0 else 0.0
        return float(2 * stdtr(self.freedom, -abs(self.mean) / self.error))


def wilson_interval(successes: float, n: int, *, level: float = 0.95) -> Interval | None:
    """Return Wilson's score interval for a proportion (Wilson 1927); None without items.

    Unlike the textbook interval it stays inside [0, 1] and is honest near 0 and 1, where good
    classifiers on small test sets live.
    """
    if n == 0:
        return None
    z = float(ndtri(0.5 + level / 2))
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
    half = _crossed(score.value, repetitions, items, count, n).half_width(wilson.level)
    low = max(0.0, min(score.value - half, wilson.low))
    high = min(1.0, max(score.value + half, wilson.high))
    return Score(score.value, Interval(low, high, wilson.level, "t", count))


def repeated_mean(correct: Sequence[Correct], *, test_train_ratio: float | None = None) -> Score:
    """Return the mean accuracy over repetitions whose single predictions are known.

    The interval is at 95 %, and counts repetitions and items; see :func:`repeated_difference`.
    For one repetition it is Wilson's.

    Args:
        correct: one array a repetition.
        test_train_ratio: as for :func:`repeated_difference`.
    """
    if len(correct) == 1:
        (only,) = correct
        return Score(float(only.mean()), wilson_interval(int(only.sum()), len(only)))
    found = _estimate([one.astype(np.float64) for one in correct], test_train_ratio)
    return Score(found.mean, found.interval(len(correct), 0.0, 1.0))


def repeated_difference(
    correct: Sequence[Correct],
    reference: Sequence[Correct],
    *,
    test_train_ratio: float | None = None,
) -> Difference:
    """Return the paired difference of two classifiers, repetition by repetition.

    With the same test items in every repetition, repetitions and items are crossed, as in
    :func:`repeated_accuracy`. With test items that are redrawn from the same data, repetitions
    share most of their items: their variance is enlarged by test over training items (Nadeau and
    Bengio 2003, "Inference for the generalization error", equation 9), and taken to be at least
    that of drawing the test items, since a few repetitions may agree better at random.

    Args:
        correct, reference: one array a repetition; both of a repetition tested the same items.
        test_train_ratio: the number of test items over that of training items, if every
            repetition draws its own test items. None: all repetitions test the same items, in the
            same order.
    """
    gaps = [one.astype(np.float64) - other for one, other in zip(correct, reference, strict=True)]
    found = _estimate(gaps, test_train_ratio)
    return Difference(found.mean, found.interval(len(gaps), -1.0, 1.0), found.p)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Correct p-values for their number (Holm 1979): step down, made monotone, at most 1."""
    order = sorted(p_values, key=lambda name: (p_values[name], name))
    corrected: dict[str, float] = {}
    highest = 0.0
    for rank, name in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p_values[name]))
        corrected[name] = highest
    return corrected


def _estimate(values: Sequence[NDArray[np.float64]], ratio: float | None) -> _Estimate:
    """Estimate a mean over repetitions and items; see :func:`repeated_difference`."""
    means = np.array([v.mean() for v in values])
    count, mean = len(values), float(means.mean())
    if count == 1:
        n = len(values[0])
        if n < 2:
            return _Estimate(mean, math.nan, math.nan)
        return _Estimate(mean, float(values[0].std(ddof=1) / math.sqrt(n)), n - 1)
    if ratio is not None:
        drawn = float(np.mean([v.var() / len(v) for v in values]))
        spread = math.sqrt(max(float(means.var(ddof=1)), drawn))
        return _Estimate(mean, spread * math.sqrt(1 / count + ratio), count - 1)
    by_item = np.mean(values, axis=0)
    n = len(by_item)
    repetitions = float(means.var(ddof=1)) / count
    items = float(by_item.var(ddof=1)) / n if n > 1 else 0.0
    return _crossed(mean, repetitions, items, count, n)


def _crossed(mean: float, repetitions: float, items: float, count: int, n: int) -> _Estimate:
    """Add the variances of the mean over ``count`` repetitions and ``n`` items (Owen 2007)."""
    variance = repetitions + items
    if variance == 0.0:
        return _Estimate(mean, 0.0, count - 1)
    freedom = variance**2 / (repetitions**2 / (count - 1) + items**2 / max(n - 1, 1))
    return _Estimate(mean, math.sqrt(variance), freedom)


def bootstrap_of_sums(
    columns: NDArray[np.float64],
    statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    *,
    level: float = LEVEL,
    seed: int = 0,
    resamples: int = 2000,
) -> tuple[Score, ...]:
    """Return figures that follow from sums over items, with percentiles of a bootstrap over items.

    Args:
        columns: ``(n, m)``, what is summed, of each item.
        statistic: sums ``(..., m)`` → figures ``(..., f)``.
        level: the confidence level.
        seed: of the bootstrap.
        resamples: how many.

    Returns:
        ``f`` scores, without an interval for a single item.
    """
    n = len(columns)
    values = statistic(columns.sum(axis=0))
    if n < 2:
        return tuple(Score(float(value), None) for value in values)
    rng = np.random.default_rng(seed)
    step = max(1, _CELLS_AT_ONCE // n)
    found = [
        statistic(rng.multinomial(n, np.full(n, 1 / n), min(step, resamples - at)) @ columns)
        for at in range(0, resamples, step)
    ]
    low, high = np.percentile(np.concatenate(found), [50 * (1 - level), 50 * (1 + level)], axis=0)
    return tuple(
        Score(float(value), Interval(float(a), float(b), level, "bootstrap", n))
        for value, a, b in zip(values, low, high, strict=True)
    )


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
    z = float(ndtri(0.5 + level / 2))
    half = z * math.sqrt(first + second - (first - second) ** 2 / total) / total
    low, high = max(-1.0, centre - half), min(1.0, centre + half)
    return Score((only_a - only_b) / n, Interval(low, high, level, "normal", n))
