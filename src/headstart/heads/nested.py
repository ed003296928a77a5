"""Nested cross-validation: an honest figure where there is no test split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headstart.core.division import make_folds, require_two_classes_beside
from headstart.core.errors import HeadError
from headstart.core.progress import Reporter, SilentReporter
from headstart.core.records import Score
from headstart.core.row_keys import Keys
from headstart.evaluation import accuracy_score, t_interval
from headstart.evaluation.targets import as_labels, require_two_classes
from headstart.evaluation.tasks import task_named
from headstart.heads.contract import TrainingRows
from headstart.heads.copies import keep_together
from headstart.heads.features import as_features
from headstart.heads.registry import head_kind
from headstart.heads.thresholds import with_thresholds


@dataclass(frozen=True)
class NestedScore:
    """What the whole procedure, choice included, scores on rows that it never saw.

    Attributes:
        accuracy: over all rows, each predicted by the head of the fold that held it out, with
            Wilson's interval over the rows.
        over_folds: the mean of the folds' accuracies with Student's t interval. Folds share
            training rows, so it is a little narrow (Bengio and Grandvalet 2004).
        probabilities: ``(n, k) float64``, held-out.
        chosen: the hyper-parameters that each outer fold chose.
        notes: what was decided on the user's behalf.
    """

    accuracy: Score
    over_folds: Score
    probabilities: np.ndarray
    chosen: tuple[Mapping[str, float | str], ...]
    notes: tuple[str, ...]


def nested_cross_validation(
    x: object,
    y: object,
    n_classes: int,
    *,
    head: str = "linear",
    head_options: Mapping[str, Any] | None = None,
    folds: int = 5,
    seed: int = 0,
    keys: Keys | None = None,
    groups: Keys | None = None,
    names: Sequence[str] | None = None,
    reporter: Reporter | None = None,
) -> NestedScore:
    """Hold out each fold in turn from everything, the choice of hyper-parameters included.

    Args:
        x, y, n_classes: features ``(n, d)``, class indices ``(n,)``, their number.
        head, head_options: what is trained, and chooses, in each outer fold.
        folds: of the score; those of a choice inside are an option of the head.
        seed: of both.
        keys, groups: what the folds of both follow from, and which rows are held out together,
            near copies included; see :mod:`headstart.core.division` and
            :func:`~headstart.heads.keep_together`.
        names: class names, for the notes.
        reporter: receives progress.

    Raises:
        ConfigError: the head or its options are invalid.
        HeadError: if the input is invalid, or nothing can be held out.
    """
    reporter, kind = reporter or SilentReporter(), head_kind(head)
    options = kind.settings(head_options or {})
    features = as_features(x)
    labels = as_labels(y, len(features), n_classes)
    require_two_classes(labels)
    together = keep_together(labels, features, keys=keys, names=names)
    keys = together.keys
    outer = make_folds(labels, folds, seed=seed, keys=keys, groups=groups, names=names)
    if outer is None:
        raise HeadError(
            "nested cross-validation needs two classes with two different items or more",
            hint="label more items",
        )
    require_two_classes_beside(labels, outer)
    rows = TrainingRows(
        features, labels, n_classes, keys=keys, groups=groups, names=names, seed=seed
    )
    probabilities = np.zeros((len(labels), n_classes))
    chosen, per_fold, notes = [], [], [*together.notes, *outer.notes]
    with reporter.task("nested cross-validation", outer.count, "folds") as progress:
        for train, held in outer.splits():
            trained = kind.fit(rows.take(train), options)
            probabilities[held] = trained.head.predict_proba(features[held])
            per_fold.append(float((probabilities[held].argmax(axis=1) == labels[held]).mean()))
            chosen.append(dict(trained.chosen))
            notes += [note for note in trained.notes if note not in notes]
            progress.advance()
    return NestedScore(
        accuracy=accuracy_score(labels, probabilities.argmax(axis=1)),
        over_folds=t_interval(per_fold, bounds=(0, 1)),
        probabilities=probabilities,
        chosen=tuple(chosen),
        notes=tuple(notes),
    )


@dataclass(frozen=True, eq=False)
class NestedPredictions:
    """What the whole procedure says of rows that it never saw, of labels or numbers.

    Attributes:
        predicted: memberships or values ``(n, k)``.
        chosen: the hyper-parameters that each outer fold chose.
        notes: what was decided on the user's behalf.
    """

    predicted: np.ndarray
    chosen: tuple[Mapping[str, float | str], ...]
    notes: tuple[str, ...]


def nested_predictions(
    rows: TrainingRows,
    *,
    head: str = "auto",
    head_options: Mapping[str, Any] | None = None,
    folds: int = 5,
) -> NestedPredictions:
    """Predict each fold by a head that chose everything, thresholds included, beside it.

    Args:
        rows: of several labels an item, or of numbers; their keys and groups say which are held
            out together.
        head, head_options: what is trained, and chooses, beside each fold.
        folds: how many.

    Raises:
        ConfigError: the head or its options are invalid.
        HeadError: if the input is invalid, or nothing can be held out.
    """
    kind, features, y = head_kind(head), as_features(rows.x), np.asarray(rows.y)
    options = kind.settings(head_options or {})
    targets = task_named(rows.task).encode(y, len(features), rows.n_classes)
    together = keep_together(None, features, keys=rows.keys)
    outer = make_folds(
        targets.levels, folds, seed=rows.seed, keys=together.keys, groups=rows.groups
    )
    if outer is None:
        raise HeadError("nothing can be held out", hint="label more items")
    predicted, chosen = np.zeros(y.shape), []
    with rows.reporter.task("nested cross-validation", outer.count, "folds") as progress:
        for train, held in outer.splits():
            inside = rows.take(train)
            trained = with_thresholds(kind.fit(inside, options), inside)
            predicted[held] = trained.head.predict(features[held])
            chosen.append(dict(trained.chosen))
            progress.advance()
    return NestedPredictions(predicted, tuple(chosen), (*together.notes, *outer.notes))
