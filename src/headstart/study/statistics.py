"""How sure a mean over repetitions is, how sure a difference, and what many comparisons cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from headstart.core.records import Interval, Score
from headstart.evaluation import wilson_interval

Right = NDArray[np.bool_]
"""``(n,) bool``: which test items of one repetition were classified rightly."""

LEVEL = 0.95


@dataclass(frozen=True)
class Difference:
    """A paired difference from the reference.

    Attributes:
        value: mean accuracy minus that of the reference, a fraction.
        interval: at 95 %; None where nothing could be estimated (one repetition of one item).
        p: two-sided p-value of "no difference".
        p_holm: the same, corrected for all distinct comparisons of the study; None until then.
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
    value: float
    error: float
    freedom: float


def mean_accuracy(right: Sequence[Right], *, redrawn: bool, ratio: float) -> Score:
    """Return the mean accuracy over repetitions with a 95 % interval.

    With one repetition the interval is Wilson's.

    Args:
        right: one array a repetition; the same items in the same order unless ``redrawn``.
        redrawn: whether every repetition tested on other items.
        ratio: test items over training items.
    """
    accuracies = [float(r.mean()) for r in right]
    if len(right) == 1:
        return Score(accuracies[0], wilson_interval(int(right[0].sum()), len(right[0])))
    estimate = _estimate([r.astype(np.float64) for r in right], redrawn, ratio)
    return Score(estimate.value, _interval(estimate, len(right), 0.0, 1.0))


def difference(
    right: Sequence[Right], reference: Sequence[Right], *, redrawn: bool, ratio: float
) -> Difference:
    """Return the paired difference of two configurations, repetition by repetition.

    Args: as for :func:`mean_accuracy`; repetition r of both tested on the same items.
    """
    gaps = [a.astype(np.float64) - b for a, b in zip(right, reference, strict=True)]
    estimate = _estimate(gaps, redrawn, ratio)
    if not math.isfinite(estimate.error):
        return Difference(estimate.value, None, 1.0)
    if estimate.error == 0.0:
        p = 1.0 if estimate.value == 0.0 else 0.0
    else:
        p = float(2 * stats.t.sf(abs(estimate.value) / estimate.error, estimate.freedom))
    return Difference(estimate.value, _interval(estimate, len(right), -1.0, 1.0), p)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Correct p-values for their number (Holm 1979): step down, made monotone, at most 1."""
    order = sorted(p_values, key=lambda name: (p_values[name], name))
    corrected: dict[str, float] = {}
    highest = 0.0
    for rank, name in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p_values[name]))
        corrected[name] = highest
    return corrected


def _estimate(values: Sequence[NDArray[np.float64]], redrawn: bool, ratio: float) -> _Estimate:
    """Estimate a mean over repetitions and items, and its standard error.

    With fixed test items, repetitions and items are crossed, and both are samples: the variance
    of the mean is at most the sum of the variances over either margin (Owen 2007, "The pigeonhole
    bootstrap", section 3); degrees of freedom after Satterthwaite. Repetitions alone would tell
    how well the training repeats, not how well the figure holds for other items.

    With redrawn splits, the repetitions share most of their items, and their variance is enlarged
    by test over training items (Nadeau and Bengio 2003, "Inference for the generalization error",
    equation 9). It is taken to be at least that of drawing the test items.
    """
    means = np.array([v.mean() for v in values])
    count, value = len(values), float(means.mean())
    if count == 1:
        n = len(values[0])
        if n < 2:
            return _Estimate(value, math.nan, math.nan)
        return _Estimate(value, float(values[0].std(ddof=1) / math.sqrt(n)), n - 1)
    if redrawn:
        # By luck few repetitions can agree better than items drawn anew ever would.
        drawn = float(np.mean([v.var() / len(v) for v in values]))
        spread = math.sqrt(max(float(means.var(ddof=1)), drawn))
        return _Estimate(value, spread * math.sqrt(1 / count + ratio), count - 1)
    by_item = np.mean(values, axis=0)
    n = len(by_item)
    repetitions = float(means.var(ddof=1)) / count
    items = float(by_item.var(ddof=1)) / n if n > 1 else 0.0
    variance = repetitions + items
    if variance == 0.0:
        return _Estimate(value, 0.0, count - 1)
    spread_out = repetitions**2 / (count - 1) + (items**2 / (n - 1) if n > 1 else 0.0)
    return _Estimate(value, math.sqrt(variance), variance**2 / spread_out)


def _interval(estimate: _Estimate, count: int, low: float, high: float) -> Interval | None:
    if not math.isfinite(estimate.error):
        return None
    half = float(stats.t.ppf(0.5 + LEVEL / 2, estimate.freedom)) * estimate.error
    return Interval(
        max(low, estimate.value - half), min(high, estimate.value + half), LEVEL, "t", count
    )


__all__ = ["Difference", "Right", "difference", "holm", "mean_accuracy"]
