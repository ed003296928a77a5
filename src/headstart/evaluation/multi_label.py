"""How good predictions of several labels are, on one split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.core.errors import HeadError
from headstart.core.records import Score
from headstart.evaluation.intervals import proportion_interval
from headstart.evaluation.sums import figures_of_means
from headstart.evaluation.targets import as_multi_hot


@dataclass(frozen=True)
class MultiLabelEvaluation:
    """What a head for several labels scored on one split.

    Attributes:
        n: number of items.
        labels: names of the labels.
        exact_match: share of the items whose labels are all right.
        micro_f1: F1 over all pairs of item and label.
        macro_f1: mean F1 over the labels that occur or are predicted; an undefined one counts
            as 0, as in scikit-learn.
    """

    n: int
    labels: tuple[str, ...]
    exact_match: Score
    micro_f1: Score
    macro_f1: Score


def evaluate_multi_label(
    targets: object,
    probabilities: object,
    labels: Sequence[str],
    *,
    level: float = 0.95,
) -> MultiLabelEvaluation:
    """Score label probabilities; a label is predicted above 0.5.

    Args:
        targets: ``(n, k)`` memberships; above 0.5 an item has the label.
        probabilities: ``(n, k)``.
        labels: ``k`` names.
        level: the confidence level.

    Raises:
        HeadError: if shapes or values are invalid.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    k = len(labels)
    if p.ndim != 2 or p.shape[1] != k or not len(p) or not np.isfinite(p).all():
        raise HeadError(f"expected finite probabilities (items, {k}), found shape {p.shape}")
    truth, guess = as_multi_hot(targets, len(p), k) > 0.5, p > 0.5
    hits = np.concatenate([truth & guess, truth, guess], axis=1).astype(np.float64)

    tiny = np.finfo(np.float64).tiny

    def f1(means: NDArray[np.float64]) -> NDArray[np.float64]:
        both, own, given = np.split(means, 3, axis=-1)
        occurs = own + given > 0
        each = 2 * both / np.maximum(own + given, tiny)
        micro = 2 * both.sum(-1) / np.maximum((own + given).sum(-1), tiny)
        macro = each.sum(-1) / np.maximum(occurs.sum(-1), 1)
        return np.stack([micro, macro], axis=-1)

    micro, macro = figures_of_means(hits, f1, ("share", "share"), level=level)
    exact = int((truth == guess).all(axis=1).sum())
    return MultiLabelEvaluation(
        n=len(p),
        labels=tuple(labels),
        exact_match=Score(exact / len(p), proportion_interval(exact, len(p), level=level)),
        micro_f1=micro,
        macro_f1=macro,
    )


__all__ = ["MultiLabelEvaluation", "evaluate_multi_label"]
