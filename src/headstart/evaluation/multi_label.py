"""How good predictions of several labels are, on one split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.core.errors import HeadError
from headstart.core.records import NamedScore, Score, SetScores, Unlike
from headstart.core.row_keys import Keys
from headstart.evaluation.grouped import grouped_accuracy
from headstart.evaluation.intervals import proportion_interval
from headstart.evaluation.ranked import average_precisions, mean_average_precision
from headstart.evaluation.sums import figures_of_means
from headstart.evaluation.targets import as_multi_hot


@dataclass(frozen=True)
class LabelScores:
    """One row of the table of labels. What does not exist is NaN, as in ``ClassScores``.

    Attributes:
        label: its name.
        average_precision: area under the curve of precision over recall.
        precision, recall, f1: at the threshold.
        support: items that have it.
        predicted: items that it is predicted for.
        threshold: the probability above which it is predicted.
    """

    label: str
    average_precision: float
    precision: float
    recall: float
    f1: float
    support: int
    predicted: int
    threshold: float


@dataclass(frozen=True)
class MultiLabelEvaluation:
    """What a head for several labels scored on one split.

    Attributes:
        n: number of items.
        labels: names of the labels.
        mean_average_precision: over the labels that occur; it needs no threshold.
        exact_match: share of the items whose labels are all right.
        micro_f1: F1 over all pairs of item and label.
        macro_f1: mean F1 over the labels that occur or are predicted; an undefined one counts
            as 0, as in scikit-learn.
        per_label: one row for each label.
        sets: what conformal sets of several coverages did; empty where none were made.
        unlike: how many items are unlike the training items; None where nobody asked.
    """

    n: int
    labels: tuple[str, ...]
    mean_average_precision: Score
    exact_match: Score
    micro_f1: Score
    macro_f1: Score
    per_label: tuple[LabelScores, ...] = ()
    sets: tuple[SetScores, ...] = ()
    unlike: Unlike | None = None

    def figures(self) -> tuple[NamedScore, ...]:
        """Return all scores with their names, the one that runs are compared by first."""
        return (
            NamedScore("mAP", self.mean_average_precision),
            NamedScore("micro F1", self.micro_f1),
            NamedScore("macro F1", self.macro_f1),
            NamedScore("exact match", self.exact_match),
        )


def evaluate_multi_label(
    targets: object,
    probabilities: object,
    labels: Sequence[str],
    *,
    thresholds: object = None,
    groups: Keys | None = None,
    level: float = 0.95,
) -> MultiLabelEvaluation:
    """Score label probabilities.

    Args:
        targets: ``(n, k)`` memberships; above 0.5 an item has the label.
        probabilities: ``(n, k)``.
        labels: ``k`` names.
        thresholds: ``(k,)``, above which a label is predicted; None: 0.5.
        groups: what every item belongs to; intervals then count groups.
        level: the confidence level.

    Raises:
        HeadError: if shapes or values are invalid.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    k = len(labels)
    if p.ndim != 2 or p.shape[1] != k or not len(p) or not np.isfinite(p).all():
        raise HeadError(f"expected finite probabilities (items, {k}), found shape {p.shape}")
    above = np.full(k, 0.5) if thresholds is None else np.asarray(thresholds, np.float64)
    truth, guess = as_multi_hot(targets, len(p), k) > 0.5, p > above
    hits = np.concatenate([truth & guess, truth, guess], axis=1).astype(np.float64)

    tiny = np.finfo(np.float64).tiny

    def f1(means: NDArray[np.float64]) -> NDArray[np.float64]:
        both, own, given = np.split(means, 3, axis=-1)
        occurs = own + given > 0
        each = 2 * both / np.maximum(own + given, tiny)
        micro = 2 * both.sum(-1) / np.maximum((own + given).sum(-1), tiny)
        macro = each.sum(-1) / np.maximum(occurs.sum(-1), 1)
        return np.stack([micro, macro], axis=-1)

    micro, macro = figures_of_means(hits, f1, ("share", "share"), groups=groups, level=level)
    right = (truth == guess).all(axis=1)
    exact = int(right.sum())
    return MultiLabelEvaluation(
        n=len(p),
        labels=tuple(labels),
        mean_average_precision=mean_average_precision(truth, p, groups=groups, level=level),
        exact_match=Score(exact / len(p), proportion_interval(exact, len(p), level=level))
        if groups is None
        else grouped_accuracy(right, groups, level=level),
        micro_f1=micro,
        macro_f1=macro,
        per_label=_per_label(truth, guess, p, labels, above),
    )


def _per_label(
    truth: NDArray[np.bool_],
    guess: NDArray[np.bool_],
    p: NDArray[np.float64],
    labels: Sequence[str],
    thresholds: NDArray[np.float64],
) -> tuple[LabelScores, ...]:
    both, own, given = ((part.sum(axis=0)) for part in (truth & guess, truth, guess))
    with np.errstate(invalid="ignore", divide="ignore"):
        precision, recall = both / given, both / own
        f1 = np.where(own + given > 0, 2 * both / (own + given), np.nan)
    precisions = average_precisions(truth, p)
    return tuple(
        LabelScores(
            str(name),
            float(precisions[i]),
            float(precision[i]),
            float(recall[i]),
            float(f1[i]),
            int(own[i]),
            int(given[i]),
            float(thresholds[i]),
        )
        for i, name in enumerate(labels)
    )


__all__ = ["LabelScores", "MultiLabelEvaluation", "evaluate_multi_label"]
