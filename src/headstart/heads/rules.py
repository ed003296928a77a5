"""The rules by which the penalty of logistic regression is chosen among the values that were tried.

With few labels what is held out says little: of ten items a class, half a dozen values of C are
right equally often. There the rule ``prior`` adds to the held-out log loss what is known before:
for features of unit deviation, ``C d`` is log-normal around 2.5, two thirds of all cases within a
factor of 3.3. The best values at 1 to 20 labels a class lie between 1 and 50 (photographs,
CIFAR-10, digits, questions); with 2 labels the prior decides, with 200 the items do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from headstart.core.errors import HeadError
from headstart.evaluation.targets import FloatArray
from headstart.heads.logistic import DINO_GRID, LogisticPath

Rule = Literal["best", "one-standard-error", "prior"]

_FALLBACK_C = 1.0
_PRIOR_CD = 2.5
_PRIOR_DEVIATION = 1.2  # of log C d
_PRIOR_STEPS = np.arange(-3, 6) / 2  # decades around the middle


def grid_of(grid: Sequence[float] | None, rule: Rule, d: int) -> FloatArray:
    """Return the values of C to try, ascending.

    Args:
        grid: those that were asked for; None: those of the rule.
        rule: how one of them is chosen.
        d: the number of features.

    Raises:
        HeadError: there is no such rule.
    """
    if rule not in get_args(Rule):
        known = ", ".join(repr(name) for name in get_args(Rule))
        raise HeadError(f"expected one of the rules {known}, found {rule!r}")
    if grid is None and rule == "prior":
        return np.asarray(_PRIOR_CD / d * 10.0**_PRIOR_STEPS)
    return np.unique(np.asarray(DINO_GRID if grid is None else grid, dtype=np.float64))


def without_folds(grid: FloatArray, rule: Rule, d: int) -> int:
    """Return the position of the value that is taken where nothing can be held out."""
    middle = _PRIOR_CD / d if rule == "prior" else _FALLBACK_C
    return int(np.abs(np.log(grid / middle)).argmin())


def choose_penalty(path: LogisticPath, rule: Rule, d: int) -> int:
    """Return the position of the value that a rule chooses, given ``d`` features."""
    mean = path.mean_accuracy
    best = int(mean.argmax())  # the first of equals: the strongest penalty
    if rule == "prior":
        return _most_probable(path, d)
    if rule == "best":
        behind = path.accuracy[:, [best]] - path.accuracy
        error = behind.std(axis=0, ddof=1) / np.sqrt(len(behind))
        level = (mean[best] - mean <= error) & ~path.dropped
        level[best] = True
        return int(np.where(level, path.mean_log_loss, np.inf).argmin())
    return int(np.flatnonzero(mean >= mean[best] - standard_error(path)[best])[0])


def _most_probable(path: LogisticPath, d: int) -> int:
    """Return the value of the highest posterior: held-out likelihood times prior."""
    loss = float(path.held_out.sum()) * path.mean_log_loss + surprise(np.asarray(path.grid), d)
    return int(np.where(path.dropped, np.inf, loss).argmin())


def surprise(grid: FloatArray, d: int) -> FloatArray:
    """Return what the prior says against each C: its negative log density, without a constant."""
    away = np.log(grid * d / _PRIOR_CD) / _PRIOR_DEVIATION
    return np.asarray(away**2 / 2)


def standard_error(path: LogisticPath) -> FloatArray:
    """Return the standard error over folds of the held-out accuracy of each C, ``(c,)``."""
    folds = len(path.accuracy)
    return np.asarray(path.accuracy.std(axis=0, ddof=1) / np.sqrt(folds))


__all__ = [
    "Rule",
    "choose_penalty",
    "grid_of",
    "standard_error",
    "surprise",
    "without_folds",
]
