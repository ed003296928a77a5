"""Knowing when not to answer: what a head keeps of held-out training rows, to make sets of it.

Conformal sets need scores of items that the head was not trained on. The head that answers is the
one trained on all rows, which knows a little more than those that were judged, so that sets are a
little too large rather than too small. With few rows every row still helps, so what was chosen is
trained again beside each twentieth of them. With more, choosing a penalty, or a head, leaves scores
behind that serve; of other heads they are made in the same folds. Intervals of numbers are CV+
(Barber et al. 2021), for which the heads of the folds are kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from headstart.core.division import Folds, make_folds
from headstart.core.errors import HeadError
from headstart.core.row_keys import Index, Keys, content_order, units_among
from headstart.evaluation.conformal import misfit_scores
from headstart.evaluation.targets import FloatArray
from headstart.evaluation.tasks import CLASSIFICATION, MULTI_LABEL, REGRESSION
from headstart.heads.base import Head
from headstart.heads.contract import HeadKind, Trained, TrainingRows
from headstart.heads.copies import keep_together
from headstart.heads.features import as_rows, blocks, subset
from headstart.heads.held_out import SCORES, Calibration, spread
from headstart.heads.many_classes import search_takes_too_long
from headstart.heads.source import StreamedFeatures

Rule = Literal["auto", "always", "never"]
CALIBRATED = 2
"""The version of what is kept; results of another one are computed again."""
_MOST_JUDGED = 5_000
"""Where folds are trained only for this, so many rows judge: half a point of coverage."""

_FEW, _FINE = 1_000, 20
"""Up to so many rows, a head that is trained fast is judged in so many folds or more."""


def calibrated(
    trained: Trained,
    rows: TrainingRows,
    kind: HeadKind | None,
    settings: Any = None,
    *,
    folds: int = 5,
    rule: Rule = "auto",
) -> Trained:
    """Return a trained head with what sets are made of, or with the reason why there is nothing.

    Args:
        trained: the head, with what its choice has held out, if it chose.
        rows: its training rows; nothing else is looked at.
        kind, settings: how it was trained; None: it can be trained in no folds.
        folds: in which rows are held out where the choice has left nothing; 20 or more where rows
            are few.
        rule: ``auto`` trains no folds where that takes long (a perceptron, thousands of classes,
            features that are read from disk); ``always`` does; ``never`` keeps nothing.
    """
    found, reason = _calibration(trained, rows, kind, settings, folds, rule)
    return replace(trained, calibration=found, uncalibrated=reason)


def _calibration(
    trained: Trained,
    rows: TrainingRows,
    kind: HeadKind | None,
    settings: Any,
    folds: int,
    rule: Rule,
) -> tuple[Calibration | None, str]:
    if rule == "never":
        return None, "with abstain='never' no held-out scores were kept"
    p = trained.held_out_probabilities
    fine = kind is not None and _is_fast(rows, kind)
    if p is not None and rows.task != REGRESSION.name and not fine:
        everything = np.arange(len(p))
        return _of_probabilities(p, everything, rows, trained.head), ""
    if kind is None:
        return None, "no training item was held out"
    long = _takes_long(rows, kind)
    if long and rule == "auto":
        return None, f"{long}, and its folds were not trained: abstain='always' trains them"
    again = _chosen(trained, kind, settings) if fine else lambda some: kind.fit(some, settings).head
    try:
        found, reason = _from_folds(trained, rows, again, folds, fine)
    except HeadError as error:
        found, reason = None, str(error)
    if found is None and p is not None and rows.task != REGRESSION.name:
        return _of_probabilities(p, np.arange(len(p)), rows, trained.head), ""
    return found, reason


def _takes_long(rows: TrainingRows, kind: HeadKind) -> str:
    """Return why training the folds takes long; empty where it does not."""
    features = as_rows(rows.x)
    if kind.stops_early:
        return f"the head {kind.name} takes long to train"
    if isinstance(features, StreamedFeatures):
        return "the features are read from disk"
    if rows.task == CLASSIFICATION.name and search_takes_too_long(features.shape, rows.n_classes):
        return f"{rows.n_classes:,} classes take long to train"
    return ""


def _is_fast(rows: TrainingRows, kind: HeadKind) -> bool:
    """Return whether what was chosen is trained in many folds within moments."""
    few = len(np.asarray(rows.y)) <= _FEW and not _takes_long(rows, kind)
    return few and rows.task != REGRESSION.name and (kind.automatic or kind.name == "auto")


def _chosen(trained: Trained, kind: HeadKind, settings: Any) -> Callable[[TrainingRows], Head]:
    """Return what trains the same head on other rows: without choosing, at its temperature."""
    fixed = kind.with_chosen(settings, trained.chosen)

    def again(rows: TrainingRows) -> Head:
        found = kind.fit(rows, fixed).head if trained.again is None else trained.again(rows)
        return found.with_temperature(trained.head.temperature)

    return again


def _from_folds(
    trained: Trained,
    rows: TrainingRows,
    train_on: Callable[[TrainingRows], Head],
    folds: int,
    fine: bool,
) -> tuple[Calibration | None, str]:
    """Train a head beside every fold, and keep what it says of the fold."""
    features = as_rows(rows.x)
    classes = rows.task == CLASSIFICATION.name
    labels = np.asarray(rows.y, dtype=np.int64) if classes else np.zeros(len(features), np.int64)
    together = keep_together(labels if classes else None, features, keys=rows.keys)
    rows = replace(rows, x=features, keys=together.keys)
    divided = make_folds(
        labels,
        max(folds, _FINE) if fine else folds,
        seed=rows.seed,
        keys=rows.keys,
        groups=rows.groups,
        every_class=not fine,
    )
    if divided is None:
        return None, "no training item can be held out"
    judged = _judges(together.keys, divided)
    outputs = np.zeros((len(features), rows.n_classes))
    heads = []
    for fold, (train, _) in enumerate(divided.splits()):
        held = judged[divided.of[judged] == fold]
        head = train_on(rows.take(train))
        some = subset(features, held)
        said = head.predict(some) if rows.task == REGRESSION.name else head.predict_proba(some)
        outputs[held] = np.reshape(said, (len(held), -1))
        heads.append(head)
    if rows.task != REGRESSION.name:
        return _of_probabilities(outputs[judged], judged, rows, trained.head), ""
    truth = np.asarray(rows.y, dtype=np.float64).reshape(len(features), -1)
    residual = np.abs(truth - outputs)[judged]
    return Calibration(
        rows.task, _units(rows, judged), divided.of[judged], {"residual": residual}, tuple(heads)
    ), ""


def _judges(keys: Keys, divided: Folds) -> Index:
    """Return the rows that judge, ascending: all, or so many that hold every fold's share."""
    n = len(divided.of)
    if n <= _MOST_JUDGED:
        return np.arange(n)
    order = content_order(keys)  # which does not depend on how files are named
    return np.sort(order[np.linspace(0, n - 1, _MOST_JUDGED).round().astype(np.int64)])


def _of_probabilities(p: FloatArray, at: Index, rows: TrainingRows, head: Head) -> Calibration:
    """Keep the scores of held-out probabilities ``(m, k)`` of the rows ``at``."""
    units = _units(rows, at)
    y = np.asarray(rows.y)[at]
    if rows.task == MULTI_LABEL.name:
        held = np.asarray(p, dtype=np.float64)
        return Calibration(rows.task, units, (y > 0.5).astype(np.int64), {"probability": held})
    u = spread(rows.keys, len(rows.y))[at]  # type: ignore[arg-type]
    own: dict[str, FloatArray] = {name: np.empty(len(p)) for name in SCORES}
    for part in blocks(len(p)):
        block = np.asarray(p[part], dtype=np.float64)
        if head.thresholds is not None:  # the head corrects what it says by the shares of classes
            block = block / head.thresholds
            block /= np.maximum(block.sum(axis=1, keepdims=True), 1e-300)
        for name in SCORES:
            scores = misfit_scores(block, name, u[part])
            own[name][part] = scores[np.arange(len(block)), y[part]]
    return Calibration(rows.task, units, y.astype(np.int64), own)


def _units(rows: TrainingRows, at: Index) -> Index:
    of = units_among(len(rows.y), rows.keys, rows.groups).of[at]  # type: ignore[arg-type]
    return np.unique(of, return_inverse=True)[1].astype(np.int64)


__all__ = ["CALIBRATED", "Rule", "calibrated"]
