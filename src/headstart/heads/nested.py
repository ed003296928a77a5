"""Nested cross-validation: an honest figure when there is no test split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from headstart.core.division import Keys, make_folds
from headstart.core.errors import HeadError
from headstart.core.progress import Reporter, SilentReporter
from headstart.core.records import Score
from headstart.evaluation.classification import accuracy_score
from headstart.evaluation.intervals import t_interval
from headstart.evaluation.targets import as_labels, require_two_classes
from headstart.heads.base import Head
from headstart.heads.checks import as_features
from headstart.heads.choose import Selection, choose_linear

Choose = Callable[..., Selection]


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
    chosen: tuple[dict[str, float], ...]
    notes: tuple[str, ...]


def nested_cross_validation(
    x: object,
    y: object,
    n_classes: int,
    *,
    folds: int = 5,
    inner_folds: int = 5,
    seed: int = 0,
    keys: Keys | None = None,
    groups: Keys | None = None,
    names: Sequence[str] | None = None,
    choose: Choose = choose_linear,
    reporter: Reporter | None = None,
) -> NestedScore:
    """Hold out each fold in turn from everything, the choice of hyper-parameters included.

    Args:
        x, y, n_classes: features ``(n, d)``, class indices ``(n,)``, their number.
        folds, inner_folds: of the score, and of the choice inside.
        seed: of both.
        keys, groups: what the folds of both follow from, and which rows are held out together;
            see :mod:`headstart.core.division`.
        names: class names, for the notes.
        choose: called with training rows; anything with the signature of ``choose_linear``.
        reporter: is told how the work goes.

    Raises:
        HeadError: if the input is unfit, or nothing can be held out.
    """
    reporter = reporter or SilentReporter()
    features = as_features(x)
    labels = as_labels(y, len(features), n_classes)
    require_two_classes(labels)
    outer = make_folds(labels, folds, seed=seed, keys=keys, groups=groups, names=names)
    if outer is None:
        raise HeadError(
            "nested cross-validation needs two classes with two items or more",
            hint="label more items",
        )
    probabilities = np.zeros((len(labels), n_classes))
    chosen, per_fold = [], []
    notes = list(outer.notes)
    with reporter.task("nested cross-validation", outer.count, "folds") as progress:
        for train, held in outer.splits():
            selection = choose(
                features[train],
                labels[train],
                n_classes,
                seed=seed,
                folds=inner_folds,
                keys=None if keys is None else [keys[row] for row in train],
                groups=None if groups is None else [groups[row] for row in train],
                names=names,
            )
            head: Head = selection.head
            probabilities[held] = head.predict_proba(features[held])
            right = probabilities[held].argmax(axis=1) == labels[held]
            per_fold.append(float(right.mean()))
            chosen.append(dict(selection.chosen))
            notes += [note for note in selection.notes if note not in notes]
            progress.advance()
    return NestedScore(
        accuracy=accuracy_score(labels, probabilities.argmax(axis=1)),
        over_folds=t_interval(per_fold, bounds=(0, 1)),
        probabilities=probabilities,
        chosen=tuple(chosen),
        notes=tuple(notes),
    )
