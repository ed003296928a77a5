"""How good predicted values are, on one split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.core.errors import HeadError
from headstart.core.records import Score
from headstart.evaluation.sums import Kind, figures_of_means
from headstart.evaluation.targets import as_regression_targets


@dataclass(frozen=True)
class RegressionEvaluation:
    """What a regression scored on one split; means over the targets where there are several.

    Attributes:
        n: number of items.
        targets: names of the targets.
        mean_absolute_error, root_mean_squared_error: in the unit of the targets.
        r2: explained share of the variance; 1 is perfect, 0 is the mean of the test targets.
    """

    n: int
    targets: tuple[str, ...]
    mean_absolute_error: Score
    root_mean_squared_error: Score
    r2: Score


def evaluate_regression(
    targets: object,
    values: object,
    names: Sequence[str],
    *,
    level: float = 0.95,
) -> RegressionEvaluation:
    """Score predicted values.

    Args:
        targets: ``(n,)`` or ``(n, t)``.
        values: what was predicted, in the same shape.
        names: ``t`` names.
        level: the confidence level.

    Raises:
        HeadError: if shapes or values are invalid.
    """
    found = np.asarray(values)
    truth = as_regression_targets(targets, len(found))
    guess = as_regression_targets(found, len(found))
    t = len(names)
    if truth.shape != guess.shape or truth.shape[1] != t or not len(truth):
        raise HeadError(
            f"expected values of shape ({len(truth)}, {t}), found {guess.shape} and targets of"
            f" shape {truth.shape}"
        )
    # Around the mean: the sums below would lose small differences of large numbers.
    centred, error = truth - truth.mean(axis=0), truth - guess
    columns = np.concatenate([np.abs(error), error**2, centred, centred**2], axis=1)

    def figures(means: NDArray[np.float64]) -> NDArray[np.float64]:
        absolute, squared, first, second = np.split(means, 4, axis=-1)
        variance = np.maximum(second - first**2, np.finfo(np.float64).tiny)
        r2 = 1.0 - squared / variance
        return np.stack([absolute.mean(-1), np.sqrt(squared).mean(-1), r2.mean(-1)], axis=-1)

    kinds: tuple[Kind, ...] = ("size", "size", "explained")
    scores = figures_of_means(columns, figures, kinds, level=level)
    return RegressionEvaluation(len(truth), tuple(names), *scores)


__all__ = ["RegressionEvaluation", "evaluate_regression"]
