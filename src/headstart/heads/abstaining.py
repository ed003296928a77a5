"""Knowing when not to answer: what a head keeps of held-out training rows, to make sets of it.

Conformal sets need scores of items that the head was not trained on. Choosing a penalty, or a head,
leaves such scores behind; of other heads they are made in the same folds. The head that answers is
the one trained on all rows, which knows a little more than those that were judged, so that sets
are a little too large rather than too small. Intervals of numbers are CV+ (Barber et al. 2021), for
which the heads of the folds are kept.
"""

from __future__ import annotations

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
CALIBRATED = 1
"""The version of what is kept; results of another one are computed again."""
_MOST_JUDGED = 5_000
"""Where folds are trained only for this, so many rows judge: half a point of coverage."""


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
        folds: in which rows are held out where the choice has left nothing.
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
    if p is not None and rows.task != REGRESSION.name:
        everything = np.arange(len(p))
        return _of_probabilities(p, everything, rows, trained.head), ""
    if kind is None:
        return None, "no training item was held out"
    long = _takes_long(rows, kind)
    if long and rule == "auto":
        return None, f"{long}, and its folds were not trained: abstain='always' trains them"
    try:
        return _from_folds(trained, rows, kind, settings, folds)
    except HeadError as error:
        return None, str(error)


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


def _from_folds(
    trained: Trained, rows: TrainingRows, kind: HeadKind, settings: Any, folds: int
) -> tuple[Calibration | None, str]:
    """Train a head beside every fold, and keep what it says of the fold."""
    features = as_rows(rows.x)
    classes = rows.task == CLASSIFICATION.name
    labels = np.asarray(rows.y, dtype=np.int64) if classes else np.zeros(len(features), np.int64)
    together = keep_together(labels if classes else None, features, keys=rows.keys)
    rows = replace(rows, x=features, keys=together.keys)
    divided = make_folds(labels, folds, seed=rows.seed, keys=rows.keys, groups=rows.groups)
    if divided is None:
        return None, "no training item can be held out"
    judged = _judges(together.keys, divided)
    outputs = np.zeros((len(features), rows.n_classes))
    heads = []
    for fold, (train, _) in enumerate(divided.splits()):
        held = judged[divided.of[judged] == fold]
        head = kind.fit(rows.take(train), settings).head
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
