"""Where a probability becomes a prediction: a threshold for each label, or equal shares of classes.

Both are found from training rows alone: from probabilities of rows that a head was not trained on,
which choosing its penalty leaves behind, and from how often each class occurs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from headstart.core.wording import count
from headstart.evaluation.targets import FloatArray
from headstart.heads.contract import Trained, TrainingRows

Rule = Literal["auto", "half", "balanced", "f1"]
_EDGE = 1e-6


def with_thresholds(trained: Trained, rows: TrainingRows, rule: Rule = "auto") -> Trained:
    """Return a trained head with thresholds, and the note that says which.

    Several labels: ``f1``, which is ``auto``, takes for each label the threshold of the highest F1
    on held-out rows; ``balanced`` its share of the training items, above which a label is more
    likely than it is on average; ``half`` 0.5. Classes: ``balanced`` corrects the probabilities to
    classes of equal frequency, so that rare ones are predicted more often; otherwise nothing is
    changed. Regressions have none.

    Args:
        trained: what training returned, with ``held_out_probabilities`` where rows were held out.
        rows: the training rows.
        rule: which.
    """
    if rows.task == "classification":
        return _equal_shares(trained, rows) if rule == "balanced" else trained
    if rows.task != "multi-label" or rule == "half":
        return trained
    truth = np.asarray(rows.y) > 0.5
    weights = np.ones(len(truth)) if rows.weights is None else np.asarray(rows.weights)
    if rule == "balanced":
        share = weights @ truth / weights.sum()
        found = np.clip(share, _EDGE, 1 - _EDGE)
        note = "threshold of each label: its share of the training items"
        return replace(
            trained, head=trained.head.with_thresholds(found), notes=(*trained.notes, note)
        )
    p = trained.held_out_probabilities
    if p is None:
        note = "threshold of each label: 0.5, because no training item was held out"
        return replace(trained, notes=(*trained.notes, note))
    found = best_f1_thresholds(truth, p, weights)
    rare = int((truth.sum(axis=0) < 2).sum())
    note = (
        f"threshold of each label: that of the highest F1 on held-out training items,"
        f" {found.min():.2f} to {found.max():.2f}"
    )
    if rare:
        note += f"; 0.5 for {count(rare, 'label')} of fewer than two training items"
    return replace(trained, head=trained.head.with_thresholds(found), notes=(*trained.notes, note))


def best_f1_thresholds(
    truth: np.ndarray, probabilities: np.ndarray, weights: np.ndarray | None = None
) -> FloatArray:
    """Return for each label the threshold of the highest F1, ``(k,)``, in the middle of a gap.

    Args:
        truth: ``(n, k) bool``.
        probabilities: ``(n, k)``, of rows that the head was not trained on.
        weights: ``(n,)``, how often each row counts.
    """
    n, k = truth.shape
    share = np.ones(n) if weights is None else weights
    found = np.full(k, 0.5)
    for label in range(k):
        own = truth[:, label]
        if own.sum() < 2:
            continue
        order = np.argsort(-probabilities[:, label], kind="stable")
        p = np.clip(probabilities[order, label], _EDGE, 1 - _EDGE)
        hits = np.cumsum(own[order] * share[order])
        taken = np.cumsum(share[order])
        f1 = 2 * hits / (taken + float(share[own].sum()))
        f1[:-1][p[1:] == p[:-1]] = -1.0  # a threshold cannot part equal probabilities
        best = int(f1.argmax())
        below = p[best + 1] if best + 1 < n else 0.0
        found[label] = (p[best] + below) / 2
    return np.asarray(np.clip(found, _EDGE, 1 - _EDGE))


def _equal_shares(trained: Trained, rows: TrainingRows) -> Trained:
    """Correct the probabilities of a classifier to classes that are equally frequent."""
    labels = np.asarray(rows.y)
    counts = np.bincount(labels, rows.weights, minlength=rows.n_classes)
    share = np.where(counts > 0, counts, counts.max()) / counts.sum()
    note = (
        "balanced threshold: probabilities are those of classes equally frequent, so that rare"
        f" ones are predicted more often (training shares {share[counts > 0].min():.1%} to"
        f" {share.max():.1%})"
    )
    found = np.clip(share, _EDGE, 1 - _EDGE)
    return replace(trained, head=trained.head.with_thresholds(found), notes=(*trained.notes, note))


__all__ = ["Rule", "best_f1_thresholds", "with_thresholds"]
