"""Figures that a transferred backbone has to beat, on the same test items."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse

from headstart.core.division import few_per_class, make_folds
from headstart.core.progress import Reporter
from headstart.core.records import Baseline
from headstart.data import Inputs, Split
from headstart.evaluation import accuracy_score
from headstart.evaluation.tasks import CLASSIFICATION
from headstart.heads import choose_linear

_SPARSE_GRID = (1.0, 10.0, 100.0)
"""Values of C on rows of unit length."""
PLAIN_CLASSES = 1_000
"""With more classes, of which each would have a few of these items, it is left out."""


def majority_baseline(train: NDArray[np.int64], test: Split) -> Baseline:
    """Return the accuracy of always answering the most frequent training class."""
    targets = CLASSIFICATION.encode(train, len(train), len(test.classes))
    outputs = np.tile(CLASSIFICATION.constant(targets), (len(test), 1))
    predicted = CLASSIFICATION.predict(outputs)
    return Baseline(
        CLASSIFICATION.constant_name,
        f"always '{test.classes[predicted[0]]}', the most frequent class of the training split",
        accuracy_score(test.labels, predicted, groups=test.groups),
    )


def plain_baseline(
    train: Split, test: Split, inputs: Inputs, *, seed: int, reporter: Reporter
) -> Baseline | None:
    """Return the accuracy of logistic regression on rows made without a network.

    For images of up to 64 pixels a side these are their raw pixels; where the kind of inputs offers
    none, and with more than 1,000 classes, None is returned. For texts they are TF-IDF weights. At
    most 5,000 training images and 50,000 texts are used, drawn with ``seed``, class by class.
    """
    found = len(np.unique(train.labels))
    if found > PLAIN_CLASSES:
        return None
    plain = inputs.plain_rows(train, test)
    if plain is None or found < 2:
        return None
    rows = np.arange(len(train))
    if len(train) > plain.most:
        each = max(1, plain.most // len(np.unique(train.labels)))
        rows = few_per_class(train.labels, each, seed=(seed, 1), keys=train.ids)
    known = train.take(rows)
    x, z = plain.of(known, reporter), plain.of(test, reporter)
    if issparse(x):
        predicted = _from_sparse(x, known, z, seed)
    else:
        choice = choose_linear(
            x,
            known.labels,
            len(train.classes),
            seed=seed,
            keys=known.ids,
            groups=known.groups,
            folds=3,
            grid=(1e-4, 1e-3, 1e-2, 1e-1, 1.0),
        )
        predicted = choice.head.predict(z)
    used = f"{len(rows):,} training" if len(rows) < len(train) else "all training"
    return Baseline(
        plain.name,
        f"logistic regression on {plain.about}, {used} {inputs.unit}",
        accuracy_score(test.labels, predicted, groups=test.groups),
    )


def _from_sparse(x: Any, train: Split, z: Any, seed: int) -> NDArray[np.int64]:
    """Predict by scikit-learn's logistic regression on sparse rows; C is chosen in 3 folds."""
    from sklearn.linear_model import LogisticRegression

    folds = make_folds(train.labels, 3, seed=seed, keys=train.ids)
    right = dict.fromkeys(_SPARSE_GRID, 0)
    for kept, held in () if folds is None else folds.splits():
        model = LogisticRegression(max_iter=1_000, warm_start=True)
        for c in _SPARSE_GRID:  # each begins where the one before it ended
            model.set_params(C=c).fit(x[kept], train.labels[kept])
            right[c] += int((model.predict(x[held]) == train.labels[held]).sum())
    best = max(_SPARSE_GRID, key=lambda c: (right[c], -c))
    model = LogisticRegression(C=best, max_iter=1_000).fit(x, train.labels)
    return np.asarray(model.predict(z))
