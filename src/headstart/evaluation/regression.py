"""How good predicted values are, on one split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.core.errors import HeadError
from headstart.core.records import NamedScore, Score, SetScores, Unlike
from headstart.core.row_keys import Keys
from headstart.evaluation.ranked import rank_correlation, spearman
from headstart.evaluation.sums import Kind, figures_of_means
from headstart.evaluation.targets import as_regression_targets


@dataclass(frozen=True)
class TargetScores:
    """One row of the table of targets; errors in the unit of the target.

    Attributes:
        target: its name.
        mean_absolute_error, root_mean_squared_error, r2, spearman: of this target alone.
        mean, deviation: of the test items.
    """

    target: str
    mean_absolute_error: float
    root_mean_squared_error: float
    r2: float
    spearman: float
    mean: float
    deviation: float


@dataclass(frozen=True)
class RegressionEvaluation:
    """What a regression scored on one split; means over the targets where there are several.

    Attributes:
        n: number of items.
        targets: names of the targets.
        mean_absolute_error, root_mean_squared_error: in the unit of the targets.
        r2: explained share of the variance; 1 is perfect, 0 is the mean of the test targets. NaN
            where a target does not vary.
        spearman: Spearman's correlation of ranks, the mean over the targets.
        per_target: one row for each target.
        sets: what conformal intervals of several coverages did; empty where none were made.
        unlike: how many items are unlike the training items; None where nobody asked.
    """

    n: int
    targets: tuple[str, ...]
    mean_absolute_error: Score
    root_mean_squared_error: Score
    r2: Score
    spearman: Score
    per_target: tuple[TargetScores, ...] = ()
    sets: tuple[SetScores, ...] = ()
    unlike: Unlike | None = None

    def figures(self) -> tuple[NamedScore, ...]:
        """Return all scores with their names, the one that runs are compared by first."""
        return (
            NamedScore("R²", self.r2, unit="number"),
            NamedScore("MAE", self.mean_absolute_error, unit="number", higher=False),
            NamedScore("RMSE", self.root_mean_squared_error, unit="number", higher=False),
            NamedScore("Spearman", self.spearman, unit="number"),
        )


def evaluate_regression(
    targets: object,
    values: object,
    names: Sequence[str],
    *,
    groups: Keys | None = None,
    level: float = 0.95,
) -> RegressionEvaluation:
    """Score predicted values.

    Args:
        targets: ``(n,)`` or ``(n, t)``.
        values: what was predicted, in the same shape.
        names: ``t`` names.
        groups: what every item belongs to; intervals then count groups.
        level: the confidence level.

    Raises:
        HeadError: if shapes or values are invalid.
    """
    found = np.asarray(values)
    truth = np.asarray(as_regression_targets(targets, len(found)), np.float64)
    guess = np.asarray(as_regression_targets(found, len(found)), np.float64)
    t = len(names)
    if truth.shape != guess.shape or truth.shape[1] != t or not len(truth):
        raise HeadError(
            f"expected values of shape ({len(truth)}, {t}), found {guess.shape} and targets of"
            f" shape {truth.shape}"
        )
    # Around the mean: the sums below would lose small differences of large numbers.
    centred, error = truth - truth.mean(axis=0), truth - guess
    columns = np.concatenate([np.abs(error), error**2, centred, centred**2], axis=1)
    flat = np.ptp(truth, axis=0) == 0

    def figures(means: NDArray[np.float64]) -> NDArray[np.float64]:
        absolute, squared, first, second = np.split(means, 4, axis=-1)
        variance = np.maximum(second - first**2, np.finfo(np.float64).tiny)
        r2 = 1.0 - squared / variance
        return np.stack([absolute.mean(-1), np.sqrt(squared).mean(-1), r2.mean(-1)], axis=-1)

    kinds: tuple[Kind, ...] = ("size", "size", "explained")
    absolute, root, r2 = figures_of_means(columns, figures, kinds, groups=groups, level=level)
    if flat.any():
        r2 = Score(float("nan"), None)
    ranks = rank_correlation(truth, guess, groups=groups, level=level)
    rows = _per_target(truth, guess, names)
    return RegressionEvaluation(len(truth), tuple(names), absolute, root, r2, ranks, rows)


def _per_target(
    truth: NDArray[np.float64], guess: NDArray[np.float64], names: Sequence[str]
) -> tuple[TargetScores, ...]:
    error, ranks = truth - guess, spearman(truth, guess)
    squared, variance = (error**2).mean(axis=0), truth.var(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        r2 = np.where(variance > 0, 1.0 - squared / variance, np.nan)
    return tuple(
        TargetScores(
            str(name),
            float(np.abs(error[:, i]).mean()),
            float(np.sqrt(squared[i])),
            float(r2[i]),
            float(ranks[i]),
            float(truth[:, i].mean()),
            float(truth[:, i].std()),
        )
        for i, name in enumerate(names)
    )


__all__ = ["RegressionEvaluation", "TargetScores", "evaluate_regression"]
