"""How much of an accuracy rests on having seen others of the same group."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headstart.core.division import make_folds, stratified_split
from headstart.core.errors import HeadError
from headstart.core.records import Score
from headstart.core.row_keys import Keys, take_keys
from headstart.evaluation.item_scores import item_scores, paired_item_difference
from headstart.evaluation.targets import FloatArray
from headstart.evaluation.tasks import task_named
from headstart.heads.contract import TrainingRows
from headstart.heads.features import as_features, as_rows, subset
from headstart.heads.registry import head_kind
from headstart.heads.thresholds import with_thresholds

_MOST_ROWS = 4000
_FOLDS = 5


@dataclass(frozen=True)
class GroupEffect:
    """Cross-validated accuracy of ridge regression, with groups torn apart and kept whole.

    Attributes:
        torn: accuracy where folds know no groups.
        whole: accuracy on the same rows where every group is in one fold.
        difference: the first minus the second, with an interval that counts groups.
        groups: how many.
    """

    torn: float
    whole: float
    difference: Score
    groups: int


def group_effect(
    features: object,
    labels: np.ndarray,
    n_classes: int,
    groups: np.ndarray,
    *,
    task: str = "classification",
    keys: Keys | None = None,
    seed: int = 0,
) -> GroupEffect | None:
    """Measure what keeping groups whole changes; None where it cannot be measured.

    The same rows are predicted twice by a ridge classifier that has not seen them: once with folds
    that know nothing of the groups, once with folds that hold whole groups out.

    Args:
        features: ``(n, d)``; beyond 4,000 rows, whole groups are drawn.
        labels: ``(n,) int64``, or memberships or numbers ``(n, k)``.
        n_classes: the number of classes, labels or targets.
        groups: ``(n,)``, what each row belongs to.
        task: what the labels mean. The effect is on accuracy, the F1 of items, or R².
        keys: n content ids.
        seed: of folds and draws.
    """
    rows = np.arange(len(labels))
    if len(rows) > _MOST_ROWS:
        share = _MOST_ROWS / len(rows)
        levels = task_named(task).encode(labels, len(labels), n_classes).levels
        rows = stratified_split(levels, share, seed=seed, keys=keys, groups=groups)[1]
    x, y = as_features(subset(as_rows(features), rows)), labels[rows]
    own, ids = groups[rows], take_keys(keys, rows)
    try:
        loose = _held_out_hits(x, y, n_classes, ids, None, seed, task)
        whole = _held_out_hits(x, y, n_classes, ids, own, seed, task)
    except HeadError:
        return None  # too few groups, or classes that lie in one
    if loose is None or whole is None:
        return None
    # Paired, item by item: the interval of a share of as many items would be far too wide.
    gap = paired_item_difference(loose.astype(np.float64), whole.astype(np.float64), groups=own)
    if gap.interval is None:
        return None
    return GroupEffect(float(loose.mean()), float(whole.mean()), gap, len(np.unique(own)))


def _held_out_hits(
    x: FloatArray,
    y: np.ndarray,
    n_classes: int,
    keys: Keys | None,
    groups: np.ndarray | None,
    seed: int,
    task: str,
) -> np.ndarray | None:
    """Return how far each row is right by a head that did not see it; None if none can be."""
    levels = task_named(task).encode(y, len(y), n_classes).levels
    folds = make_folds(levels, _FOLDS, seed=seed, keys=keys, groups=groups)
    if folds is None:
        return None
    kind, said = head_kind("ridge"), np.zeros(y.shape)
    for fit, held in folds.splits():
        within = None if groups is None else groups[fit]
        training = TrainingRows(
            x[fit],
            y[fit],
            n_classes,
            task=task,
            keys=take_keys(keys, fit),
            groups=within,
            seed=seed,
        )
        trained = with_thresholds(kind.fit(training, kind.settings({})), training)
        said[held] = trained.head.predict(x[held])
    return item_scores(task, y, said)


__all__ = ["GroupEffect", "group_effect"]
