"""Figures that a transferred backbone has to beat, on the same test items."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from headstart.core.division import few_per_class
from headstart.core.progress import Reporter
from headstart.core.records import Baseline
from headstart.data import Inputs, Split
from headstart.evaluation import accuracy_score
from headstart.evaluation.tasks import CLASSIFICATION
from headstart.heads import choose_linear

PLAIN_ROWS = 5_000
"""The baseline without a network is there for orientation: 5,000 training items are enough."""


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
        accuracy_score(test.labels, predicted),
    )


def plain_baseline(
    train: Split, test: Split, inputs: Inputs, *, seed: int, reporter: Reporter
) -> Baseline | None:
    """Return the accuracy of logistic regression on rows made without a network.

    For images of up to 64 pixels a side these are their raw pixels; where the kind of inputs offers
    none, and with more than 1,000 classes, None is returned. At most 5,000 training items are used,
    drawn with ``seed``, class by class.
    """
    found = len(np.unique(train.labels))
    if found > PLAIN_CLASSES:
        return None
    plain = inputs.plain_rows(train, test)
    if plain is None or found < 2:
        return None
    rows = np.arange(len(train))
    if len(train) > PLAIN_ROWS:
        each = max(1, PLAIN_ROWS // len(np.unique(train.labels)))
        rows = few_per_class(train.labels, each, seed=(seed, 1), keys=train.ids)
    choice = choose_linear(
        plain.of(train.take(rows), reporter),
        train.labels[rows],
        len(train.classes),
        seed=seed,
        keys=[train.ids[row] for row in rows],
        folds=3,
        grid=(1e-4, 1e-3, 1e-2, 1e-1, 1.0),
    )
    used = f"{len(rows):,} training" if len(rows) < len(train) else "all training"
    return Baseline(
        plain.name,
        f"logistic regression on {plain.about}, {used} {inputs.unit}",
        accuracy_score(test.labels, choice.head.predict(plain.of(test, reporter))),
    )
