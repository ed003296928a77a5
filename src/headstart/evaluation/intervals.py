"""Intervals of proportions, and of differences of paired proportions."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc, betaincinv, ndtr, ndtri, stdtrit  # scipy.stats is slow to load

from headstart.core.errors import HeadError
from headstart.core.records import Interval, Score

FloatArray = NDArray[np.float64]
LEVEL = 0.95
_GRID = 129


def proportion_interval(successes: float, n: int, *, level: float = LEVEL) -> Interval | None:
    """Return the exact interval of a proportion (Blaker 2000); None without items.

    It holds the true proportion in at least ``level`` of all samples, for every proportion and
    every n. Wilson's interval does not where good classifiers on small test sets live: for an
    accuracy of 99 % it holds it in 91 % of samples of 50 items. Clopper and Pearson's, exact too,
    is wider.

    Args:
        successes: how many items are right; a mean over repetitions may lie between two numbers.
        n: of how many.
        level: the confidence level.
    """
    if n == 0:
        return None
    low = min(_blaker_low(k, n, 1 - level) for k in _whole(successes))
    high = 1.0 - min(_blaker_low(n - k, n, 1 - level) for k in _whole(successes))
    return Interval(low, high, level, "exact", n)


def _whole(successes: float) -> set[int]:
    near = round(successes)
    return {near} if abs(successes - near) < 1e-6 else {math.floor(successes), math.ceil(successes)}


@lru_cache(maxsize=4096)
def _blaker_low(k: int, n: int, alpha: float) -> float:
    """Return the least p whose acceptability given k of n exceeds ``alpha``."""
    if k == 0:
        return 0.0
    # Between the limits whose upper tail is half of alpha and all of it.
    low, high = (float(betaincinv(k, n - k + 1, tail)) for tail in (alpha / 2, alpha))
    for _ in range(2):
        p = np.linspace(low, high, _GRID)
        accepted = _acceptability(k, n, p) > alpha
        first = int(accepted.argmax()) if accepted.any() else _GRID - 1
        low, high = float(p[max(first - 1, 0)]), float(p[first])
    return low


def _acceptability(k: int, n: int, p: FloatArray) -> FloatArray:
    """Return the upper tail from k, plus the largest lower tail that does not exceed it."""
    upper = betainc(k, n - k + 1, p)
    below, above = np.full(len(p), -1), np.full(len(p), k)  # lower tail at `below` is small enough
    while (above - below > 1).any():
        middle = (below + above) // 2
        small = _lower_tail(middle, n, p) <= upper * (1 + 1e-12)
        below, above = np.where(small, middle, below), np.where(small, above, middle)
    found: FloatArray = upper + np.where(below >= 0, _lower_tail(below, n, p), 0.0)
    return found


def _lower_tail(k: NDArray[np.int64], n: int, p: FloatArray) -> FloatArray:
    k = np.clip(k, 0, n - 1)
    tail: FloatArray = betainc(n - k, k + 1, 1.0 - p)
    return tail


def wilson_interval(successes: float, n: int, *, level: float = LEVEL) -> Interval | None:
    """Return Wilson's score interval for a proportion (Wilson 1927); None without items.

    On average over proportions it is right; see :func:`proportion_interval` for where it is not.
    """
    if n == 0:
        return None
    low, high = score_limits(successes / n, n, float(ndtri(0.5 + level / 2)))
    return Interval(low, high, level, "wilson", n)


def score_limits(p: float, n: float, z: float) -> tuple[float, float]:
    """Return Wilson's limits of a proportion ``p`` of ``n`` items; n need not be whole."""
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(max(p * (1 - p), 0.0) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def alike_limits(p: float, n: float, z: float) -> tuple[float, float]:
    """Return limits of a share with the variance of ``n`` equal items, which need not be whole.

    The wider of Wilson's and the mid-P limits (Lancaster 1961): each is right on average over
    proportions, and falls short of it where the other does not.
    """
    low, high = score_limits(p, n, z)
    tail = float(ndtr(-z))
    return min(low, _mid_p_low(p * n, n, tail)), max(high, 1.0 - _mid_p_low(n - p * n, n, tail))


def _mid_p_low(k: float, n: float, tail: float) -> float:
    """Return the p at which k or more of n, half of k itself, have the probability ``tail``."""
    if k <= 0:
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(50):
        p = (low + high) / 2
        more = float(betainc(k + 1, n - k, p)) if n - k > 1e-9 else 0.0
        found = (float(betainc(k, n - k + 1, p)) + more) / 2
        low, high = (p, high) if found < tail else (low, p)
    return low


def paired_limits(first: float, second: float, n: float, z: float) -> tuple[float, float]:
    """Return the score limits of a difference of paired proportions (Tango 1998).

    Args:
        first, second: the shares of items that only the first, and only the second, has right.
        n: of how many items; it need not be whole.
        z: the quantile.
    """
    b, c, difference = first * n, second * n, first - second

    def solve(target: float, low: float, high: float) -> float:
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if _tango(b, c, n, middle) > target else (low, middle)
        return (low + high) / 2

    return solve(z, -1.0, difference), solve(-z, difference, 1.0)


def paired_score(first: float, second: float, n: float) -> float:
    """Return the score statistic of "no difference", whose square is McNemar's."""
    return (first - second) * n / math.sqrt((first + second) * n) if first + second > 0 else 0.0


def _tango(b: float, c: float, n: float, difference: float) -> float:
    """Return the score of a difference, the nuisance parameter at its most likely value."""
    half = -b - c + (2 * n - b + c) * difference
    root = math.sqrt(max(half * half + 8 * n * c * difference * (1 - difference), 0.0))
    q = max((root - half) / (4 * n), 0.0)
    variance = n * (2 * q + difference * (1 - difference))
    return (b - c - n * difference) / math.sqrt(max(variance, 1e-300))


def paired_accuracy_difference(
    labels: np.ndarray, a: np.ndarray, b: np.ndarray, *, level: float = LEVEL
) -> Score:
    """Return accuracy of ``a`` minus accuracy of ``b`` on the same items.

    The interval is that of Tango (1998): the differences that a score test does not reject.

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
    only_a, only_b = float((right_a & ~right_b).mean()), float((right_b & ~right_a).mean())
    n = len(labels)
    if n < 2:
        return Score(only_a - only_b, None)
    low, high = paired_limits(only_a, only_b, n, float(stdtrit(n - 1, 0.5 + level / 2)))
    return Score(only_a - only_b, Interval(low, high, level, "score", n))


__all__ = [
    "LEVEL",
    "alike_limits",
    "paired_accuracy_difference",
    "paired_limits",
    "paired_score",
    "proportion_interval",
    "score_limits",
    "wilson_interval",
]
