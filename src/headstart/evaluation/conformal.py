"""Conformal prediction: from scores of held-out items to sets and intervals of a chosen coverage.

A score says how badly a class, a label or a value fits an item. Whatever fits better than all but
the chosen share of the held-out truths belongs to the set. Items that are not independent (copies,
items of one group) count together as one, as in hierarchical conformal prediction (Lee, Barber and
Willett 2023), so that the coverage holds for an item of a new group.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, cast

import numpy as np

from headstart.core.errors import HeadError
from headstart.core.row_keys import Index
from headstart.core.wording import count, listed
from headstart.evaluation.targets import FloatArray

ScoreName = Literal["lac", "aps", "raps"]

RAPS_PENALTY, RAPS_FREE = 0.01, 5
"""RAPS: what every class behind the first so many adds to a score (Angelopoulos et al. 2021)."""
_ROUNDING = 1e-9


def misfit_scores(p: FloatArray, method: ScoreName, u: FloatArray) -> FloatArray:
    """Return how badly each class fits each item, ``(n, k)``; 0 is perfect.

    ``lac``: one less the probability (Sadinle, Lei and Wasserman 2019), which makes the smallest
    sets on average. ``aps``: the probability of all likelier classes plus a share ``u`` of its own
    (Romano, Sesia and Candès 2020), which makes sets larger where an item is hard. ``raps``: the
    same, and a penalty on classes far down the list (Angelopoulos et al. 2021).

    Args:
        p: probabilities ``(n, k)``.
        method: which.
        u: ``(n,)`` in [0, 1), evenly spread; ``lac`` needs none.
    """
    if method == "lac":
        return 1.0 - p
    order = np.argsort(-p, axis=1, kind="stable")
    sorted_p = np.take_along_axis(p, order, axis=1)
    scores = np.cumsum(sorted_p, axis=1) - (1.0 - u[:, None]) * sorted_p
    if method == "raps":
        scores += RAPS_PENALTY * np.maximum(np.arange(1, p.shape[1] + 1) - RAPS_FREE, 0)
    found = np.empty_like(scores)
    np.put_along_axis(found, order, scores, axis=1)
    return found


def most_misfit(method: ScoreName, k: int) -> float:
    """Return the score that no class exceeds: a threshold at it would let every class in."""
    return 1.0 + (RAPS_PENALTY * max(k - RAPS_FREE, 0) if method == "raps" else 0.0)


def unit_weights(units: Index) -> FloatArray:
    """Return what each held-out item ``(n,)`` weighs: its unit as much as the item to come.

    Args:
        units: ``(n,)``, the number of what each item belongs to; independent items have their own.
    """
    _, inverse, size = np.unique(units, return_inverse=True, return_counts=True)
    return 1.0 / (size[inverse] * (len(size) + 1.0))


def threshold(scores: FloatArray, units: Index, coverage: float) -> float:
    """Return the score up to which sets reach; infinity where the items are too few for that.

    With independent items it is the ``ceil((n + 1) coverage)``-th smallest.

    Args:
        scores: ``(n,)``, of the truth of held-out items.
        units: ``(n,)``; see :func:`unit_weights`.
        coverage: in (0, 1).
    """
    order = np.argsort(scores, kind="stable")
    total = np.cumsum(unit_weights(units)[order])
    at = int(np.searchsorted(total, coverage - _ROUNDING))
    return float(scores[order[at]]) if at < len(order) else math.inf


def units_needed(coverage: float) -> int:
    """Return how many independent held-out items a coverage needs."""
    return math.ceil(coverage / (1.0 - coverage) * (1.0 - _ROUNDING))


def highest_coverage(units: int) -> float:
    """Return the highest coverage that so many independent held-out items can promise."""
    return units / (units + 1.0)


def thresholds(
    found: Sequence[tuple[FloatArray, Index]], coverage: float, names: Sequence[str] | None
) -> FloatArray:
    """Return the threshold of each of several sets of scores.

    Args:
        found: scores ``(n,)`` and units ``(n,)`` of each.
        coverage: in (0, 1).
        names: what each set is about, for messages; None where there is one.

    Raises:
        HeadError: the items are too few for the coverage.
    """
    limits = [threshold(s, units, coverage) if len(s) else np.inf for s, units in found]
    short = [i for i, limit in enumerate(limits) if np.isinf(limit)]
    if short:
        have = [len(np.unique(found[i][1])) for i in short]
        least = int(np.argmin(have))
        where = "" if names is None else f" for {names[short[least]]}"
        several = "" if len(short) == 1 else f" ({listed([names[i] for i in short[:5]])})"  # type: ignore[index]
        most = highest_coverage(have[least])
        promise = f", which promise {_rounded_down(most)} at most" if have[least] else ""
        raise HeadError(
            f"coverage={coverage:.12g} needs"
            f" {count(units_needed(coverage), 'held-out training item')} that are independent"
            f" (copies and items of a group count once), and there"
            f" {'is' if have[least] == 1 else 'are'} {have[least]:,}{where}{promise}"
            + (f"; too few for {len(short)} in all{several}" if several else ""),
            hint="lower the coverage"
            + (", or omit by_class=True" if names is not None else "")
            + ", or label more items",
        )
    return np.array(limits)


def _rounded_down(share: float) -> str:
    """Return a share in percent that is no larger: what is promised must not be refused."""
    digits = 1 if share < 0.999 else 3
    scale = 10.0 ** (digits + 2)
    return f"{math.floor(share * scale + _ROUNDING * scale) / scale:.{digits}%}"


def cross_interval(
    values: FloatArray, residuals: FloatArray, folds: Index, units: Index, coverage: float
) -> tuple[FloatArray, FloatArray]:
    """Return CV+ intervals of one target, ``(m,)`` each (Barber, Candès, Ramdas, Tibshirani 2021).

    An interval reaches from where the held-out truths would lie, were the item predicted by the
    head that held them out. In theory it covers at least ``2 coverage - 1`` of new items, and in
    practice about ``coverage``. At low coverages its ends may have passed each other; it then
    reaches from one to the other, and covers more.

    Args:
        values: ``(m, f)``, what the head beside each fold says of the items.
        residuals: ``(n,)``, absolute errors of held-out items.
        folds: ``(n,)``, the fold that held each out.
        units: ``(n,)``; see :func:`unit_weights`.
        coverage: in (0, 1).
    """
    high = _cross_bound(values, residuals, folds, units, coverage)
    low = -_cross_bound(-values, residuals, folds, units, coverage)
    return np.minimum(low, high), np.maximum(low, high)


def _cross_bound(
    values: FloatArray, residuals: FloatArray, folds: Index, units: Index, coverage: float
) -> FloatArray:
    """Return the least v with ``coverage`` of the weight of ``values[fold] + residual`` below it.

    By bisection, since the sums are sorted within a fold: memory is that of the items, not of all
    pairs.
    """
    weight = unit_weights(units)
    if weight.sum() < coverage - _ROUNDING:
        return np.full(len(values), math.inf)
    parts = []
    for fold in range(values.shape[1]):
        inside = folds == fold
        order = np.argsort(residuals[inside], kind="stable")
        cumulated = np.concatenate([[0.0], np.cumsum(weight[inside][order])])
        parts.append((residuals[inside][order], cumulated))
    low = values.min(axis=1) + residuals.min()
    high = values.max(axis=1) + residuals.max()
    for _ in range(64):
        middle = (low + high) / 2
        below = np.zeros(len(values))
        for fold, (sorted_residuals, cumulated) in enumerate(parts):
            at = np.searchsorted(sorted_residuals, middle - values[:, fold], side="right")
            below += cumulated[at]
        enough = below >= coverage - _ROUNDING
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    return cast(FloatArray, high)


__all__ = [
    "ScoreName",
    "cross_interval",
    "highest_coverage",
    "misfit_scores",
    "most_misfit",
    "threshold",
    "thresholds",
    "unit_weights",
    "units_needed",
]
