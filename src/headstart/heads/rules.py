"""The rules by which the penalty of logistic regression is chosen among the values that were tried.

With few labels what is held out says little: of ten items a class, half a dozen values of C are
right equally often. There the rule ``prior`` adds to the held-out log loss what is known before:
for features of unit deviation, ``C d`` is log-normal around 2.5, two thirds of all cases within a
factor of 3.3. The best values at 1 to 20 labels a class lie between 1 and 50 (photographs,
CIFAR-10, digits, questions); with 2 labels the prior decides, with 200 the items do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from headstart.core.errors import HeadError
from headstart.core.records import Curve, Score
from headstart.evaluation.intervals import proportion_interval
from headstart.evaluation.targets import FloatArray
from headstart.evaluation.tasks import CLASSIFICATION
from headstart.heads.logistic import DINO_GRID

Rule = Literal["best", "one-standard-error", "prior"]

_FALLBACK_C = 1.0
_PRIOR_CD = 2.5
_PRIOR_DEVIATION = 1.2  # of log C d
_PRIOR_STEPS = np.arange(-3, 6) / 2  # decades around the middle


class Tried(Protocol):
    """What held-out rows say of the values of C that were tried."""

    @property
    def grid(self) -> Sequence[float]:
        """The values, ascending."""

    @property
    def accuracy(self) -> FloatArray:
        """``(folds, c)``, the fraction of held-out rows that are right."""

    @property
    def held_out(self) -> FloatArray:
        """``(folds,)``, held-out rows."""

    @property
    def dropped(self) -> NDArray[np.bool_]:
        """``(c,) bool``, values that were given up."""

    @property
    def mean_accuracy(self) -> FloatArray:
        """``(c,)``, over all held-out rows."""

    @property
    def mean_log_loss(self) -> FloatArray:
        """``(c,)``, over all held-out rows."""


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


def choose_penalty(path: Tried, rule: Rule, d: int) -> int:
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


def _most_probable(path: Tried, d: int) -> int:
    """Return the value of the highest posterior: held-out likelihood times prior."""
    loss = float(path.held_out.sum()) * path.mean_log_loss + surprise(np.asarray(path.grid), d)
    return int(np.where(path.dropped, np.inf, loss).argmin())


def surprise(grid: FloatArray, d: int) -> FloatArray:
    """Return what the prior says against each C: its negative log density, without a constant."""
    away = np.log(grid * d / _PRIOR_CD) / _PRIOR_DEVIATION
    return np.asarray(away**2 / 2)


def standard_error(path: Tried) -> FloatArray:
    """Return the standard error over folds of the held-out accuracy of each C, ``(c,)``."""
    folds = len(path.accuracy)
    return np.asarray(path.accuracy.std(axis=0, ddof=1) / np.sqrt(folds))


def held_out_of(path: Tried, at: int, task: str) -> Score:
    """Return the held-out accuracy of one value, with its interval."""
    n = max(1, round(float(path.held_out.sum())))
    value = float(path.mean_accuracy[at])
    if task != CLASSIFICATION.name:  # a share of the labels of each item, which is no proportion
        return Score(value, None)
    return Score(value, proportion_interval(value * n, n))


def curve_of(path: Tried | None, at: int) -> Curve:
    """Return held-out accuracy against C, with a band of one standard error over the folds."""
    x_label, y_label = "C (inverse penalty)", "held-out accuracy"
    if path is None:
        return Curve("cross-validation", (), (), x_label, y_label, log_x=True)
    # A value that was given up has no figure of its own: a curve through the moment it was
    # dropped would show dips that no trained head has.
    kept = ~path.dropped
    mean, error = path.mean_accuracy[kept], standard_error(path)[kept]
    return Curve(
        name=f"{len(path.accuracy)}-fold cross-validation",
        x=tuple(c for c, stays in zip(path.grid, kept, strict=True) if stays),
        y=tuple(float(v) for v in mean),
        x_label=x_label,
        y_label=y_label,
        low=tuple(float(v) for v in mean - error),
        high=tuple(float(v) for v in mean + error),
        log_x=True,
        chosen=path.grid[at],
    )


__all__ = [
    "Rule",
    "Tried",
    "choose_penalty",
    "curve_of",
    "grid_of",
    "held_out_of",
    "standard_error",
    "surprise",
    "without_folds",
]
