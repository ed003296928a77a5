"""Which of several inputs do a network's running statistics know best?

A batch norm keeps mean and variance of what it was given in pre-training. Inputs that are scaled,
normalised or ordered otherwise show first and strongest in the earliest layers, whose drift
therefore tells the right input from wrong ones, without labels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from headstart.freezing.drifts import LayerDrift

EARLY = 3
"""Early layers that are looked at. Later ones see what these have normalised, and tell less."""

FACTOR = 1.6
"""A correction counts if it lowers the early drift at least so much.

On right inputs no usual preprocessing did so by more than 1.2, also with tiny images; swapped
channels change it by 2.8 on photographs, a wrong mean and deviation by 9, missing scaling by
10,000.
"""

FLOOR = 0.02
"""Drift in nats below which inputs agree, whatever else would agree still better."""


def early_drift(layers: Sequence[LayerDrift]) -> float:
    """Return the geometric mean of the drift of some layers, in nats."""
    logs = [math.log(max(layer.symmetric_kl, 1e-12)) for layer in layers]
    return math.exp(sum(logs) / len(logs))


def clear_improvement(given: float, trials: Sequence[float], factor: float = FACTOR) -> int | None:
    """Return the smallest change that agrees about as well as the best, if that is clearly better.

    "About as well" is within a fifth.

    Args:
        given: early drift of the inputs as they are.
        trials: early drift after each change, from small changes to large ones.
        factor: how much better the best must be.

    Returns:
        The number of the trial; None if there is no clear improvement.
    """
    best = min(trials, default=math.inf)
    if given < FLOOR or best * factor > given:
        return None
    return next(at for at, early in enumerate(trials) if early <= 1.2 * best)


__all__ = ["EARLY", "FACTOR", "FLOOR", "clear_improvement", "early_drift"]
