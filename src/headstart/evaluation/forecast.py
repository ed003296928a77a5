"""What more labels would bring: a power law through a learning curve, and how far to trust it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.core.records import Interval, Score
from headstart.evaluation.intervals import LEVEL

FloatArray = NDArray[np.float64]

_EXPONENTS = np.linspace(0.05, 1.5, 30)
# The law holds for many labels, not for one or two: the last five points shape it.
_LAST = 5
_DRAWS = 1000
_FEW = 10


@dataclass(frozen=True)
class Forecast:
    """What heads that are trained on twice as many labels would score.

    Attributes:
        accuracy: of one head trained on a new draw of twice the labels of the last point, on
            unlimited new items.
        gain: the same, less the accuracy of the head of the last point.
    """

    accuracy: Score
    gain: Score


def forecast(shots: FloatArray, accuracies: FloatArray, held: Sequence[int], *, seed: int = 0
             ) -> Forecast:  # fmt: skip
    """Extrapolate a learning curve to twice the labels of its last point.

    The intervals are predictions: they count what the law's parameters rest on (the differences
    between points, by repetition, with Student's t; and the level of the curve, by the items that
    were held out), and the draw of labels, in which one head differs from another. With one
    repetition nothing is known of either, and there are none.

    Args:
        shots: ``(p,)``, labels per class, ascending; three or more.
        accuracies: ``(p, r)``, of each point and repetition.
        held: the number of items held out in each repetition.
        seed: of the draws of parameters.
    """
    shots, accuracies = shots[-_LAST:], accuracies[-_LAST:]
    error = 1.0 - accuracies
    mean, count = error.mean(axis=1), error.shape[1]
    now, then = _doubled(shots, mean)
    if count < 2:
        return Forecast(Score(1.0 - then, None), Score(now - then, None))
    rng = np.random.default_rng(seed)
    items = float(np.sum(held))
    gaps = error - error[-1]  # of every point to the last, in which the items cancel
    spread = gaps - gaps.mean(axis=1, keepdims=True)
    total, wrong = float(error[-1].var(ddof=1)), float(mean[-1]) * items
    by_items = float(mean[-1] * (1 - mean[-1]) / np.mean(held))
    found = np.empty((_DRAWS, 2))
    for at in range(_DRAWS):
        scale = np.sqrt((count - 1) / rng.chisquare(count - 1))
        step = spread @ rng.normal(size=count) / np.sqrt(count * (count - 1)) * scale
        level = rng.beta(wrong + 0.5, items - wrong + 0.5)
        # How far one head differs from another: what the repetitions differ beyond their items.
        noise = np.sqrt(max(total * scale**2 - by_items, 0.0))
        if wrong < _FEW:
            noise = max(noise, level / 2)
        level += noise / np.sqrt(count) * rng.normal()
        curve = np.clip(gaps.mean(axis=1) + step + level, 0.0, 1.0)
        first, second = _doubled(shots, curve)
        new = second + noise * rng.normal()
        found[at] = 1.0 - new, first + noise * rng.normal() - new
    tails = [50 * (1 - LEVEL), 50 * (1 + LEVEL)]
    low, high = np.percentile(found, tails, axis=0)
    values = np.array([1.0 - then, now - then])
    low, high = np.minimum(low, values), np.maximum(high, values)
    low[0], high[0] = max(low[0], 0.0), min(high[0], 1.0)
    accuracy, gain = (
        Score(float(v), Interval(float(a), float(b), LEVEL, "prediction", count, round(items)))
        for v, a, b in zip(values, low, high, strict=True)
    )
    return Forecast(accuracy, gain)


def fit_power_law(shots: FloatArray, error: FloatArray) -> tuple[float, float, float]:
    """Return (a, b, c) of ``error = a + b shots^-c``, a and b not negative, by least squares.

    The exponent is searched on a grid; a and b follow in closed form.
    """
    basis = shots[:, None] ** -_EXPONENTS  # (p, exponents)
    centred = basis - basis.mean(axis=0)
    slope = error @ centred / np.maximum((centred**2).sum(axis=0), 1e-300)
    floor = error.mean() - slope * basis.mean(axis=0)
    plain = error @ basis / (basis**2).sum(axis=0)
    a = np.concatenate([floor, np.zeros_like(plain)])
    b = np.concatenate([slope, plain])
    both = np.concatenate([basis, basis], axis=1)
    loss = ((a + b * both - error[:, None]) ** 2).sum(axis=0)
    loss[(a < 0) | (b < 0)] = np.inf
    level = float(error.min())
    if not np.isfinite(loss).any():
        return level, 0.0, 1.0
    best = int(loss.argmin())
    return float(a[best]), float(b[best]), float(_EXPONENTS[best % len(_EXPONENTS)])


def _doubled(shots: FloatArray, error: FloatArray) -> tuple[float, float]:
    """Return the law's error at the last point, and at twice its labels."""
    a, b, c = fit_power_law(shots, error)
    return a + b * float(shots[-1]) ** -c, a + b * float(2 * shots[-1]) ** -c


__all__ = ["Forecast", "fit_power_law", "forecast"]
