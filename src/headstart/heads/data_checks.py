"""What may be wrong with the data: near-duplicates across splits, and doubtful labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headstart.core.division import make_folds
from headstart.core.errors import HeadError
from headstart.core.nearest import unit_rows
from headstart.core.row_keys import Keys
from headstart.evaluation import probability_blocks
from headstart.evaluation.targets import as_labels
from headstart.heads.contract import NEAR
from headstart.heads.features import as_features, as_rows, subset
from headstart.heads.lda import fit_lda
from headstart.heads.neighbours import nearest

_QUERY_ROWS = 1024


@dataclass(frozen=True)
class Leak:
    """A test row that nearly equals a training row.

    Attributes:
        test, train: the rows.
        similarity: cosine of the centred features; 1 for the same image.
    """

    test: int
    train: int
    similarity: float


@dataclass(frozen=True)
class DoubtfulLabel:
    """A training row whose held-out prediction confidently disagrees with its label.

    Attributes:
        row: the row.
        label, suggested: class indices, as given and as predicted.
        probability: held-out probability of ``suggested``.
        margin: how far it exceeds that of ``label``.
    """

    row: int
    label: int
    suggested: int
    probability: float
    margin: float


def find_leaks(x_train: object, x_test: object, *, threshold: float = NEAR) -> tuple[Leak, ...]:
    """List test rows whose nearest training row is nearly the same, the most similar first.

    Features are centred by the training mean before the cosine is taken: backbone features share
    a large common part, which would make everything look alike.

    Args:
        x_train, x_test: features ``(n, d)`` and ``(m, d)`` of one backbone.
        threshold: the least cosine that is reported. Re-encoded and slightly cropped copies of an
            image lie above 0.98 with the usual backbones; different images of a thing do not.

    Raises:
        HeadError: if the input is invalid.
    """
    train = as_features(x_train, name="training features")
    test = as_features(x_test, n_features=train.shape[1], name="test features")
    if not -1 <= threshold <= 1:
        raise HeadError(f"expected a threshold from -1 to 1, found {threshold}")
    centre = train.mean(axis=0, dtype=np.float64).astype(train.dtype)
    rows = unit_rows(train - centre)
    leaks = []
    for start in range(0, len(test), _QUERY_ROWS):
        block = test[start : start + _QUERY_ROWS] - centre
        similarity, index = nearest(block, rows, 1, "cosine")
        for at in np.flatnonzero(similarity[:, 0] >= threshold):
            leaks.append(Leak(start + int(at), int(index[at, 0]), float(similarity[at, 0])))
    return tuple(sorted(leaks, key=lambda leak: (-leak.similarity, leak.test)))


def doubtful_labels(y: object, held_out_probabilities: np.ndarray) -> tuple[DoubtfulLabel, ...]:
    """List rows that are confidently predicted as another class, the widest margin first.

    A prediction is confident when its probability reaches the mean probability that rows labelled
    with that class get for it, the threshold of confident learning (Northcutt et al. 2021), which
    allows for classes that are hard as a whole.

    Args:
        y: class indices ``(n,)``.
        held_out_probabilities: ``(n, k)``, each row's by a head that did not train on it, as in
            ``Trained.held_out_probabilities``.

    Raises:
        HeadError: if the shapes do not fit.
    """
    p = np.asarray(held_out_probabilities, dtype=np.float64)
    if p.ndim != 2 or not np.isfinite(p).all():
        raise HeadError(f"expected finite probabilities (items, classes), found shape {p.shape}")
    labels = as_labels(y, len(p), p.shape[1])
    suggested = p.argmax(axis=1)
    at = np.arange(len(p))
    return _doubtful(labels, p[at, labels], suggested, p[at, suggested], p.shape[1])


def doubtful_labels_of_many_classes(
    x: object,
    y: object,
    n_classes: int,
    *,
    keys: Keys | None = None,
    groups: Keys | None = None,
    seed: int = 0,
) -> tuple[tuple[DoubtfulLabel, ...], tuple[str, ...]]:
    """List doubtful labels where logistic regression in every fold would take hours.

    Linear discriminant analysis in five folds makes the held-out probabilities, of which no matrix
    of rows by classes is kept.

    Args:
        x, y, n_classes: training features ``(n, d)``, class indices ``(n,)``, their number.
        keys, groups: which rows are held out together; see :mod:`headstart.core.division`.
        seed: of the folds.

    Returns:
        What :func:`doubtful_labels` returns, and what was decided.
    """
    features = as_rows(x)
    labels = as_labels(y, len(features), n_classes)
    division = make_folds(labels, seed=seed, keys=keys, groups=groups)
    if division is None:
        return (), ("labels are not checked, because too few classes have two items",)
    own, top = np.zeros(len(labels)), np.zeros(len(labels))
    suggested = labels.copy()
    for train, held in division.splits():
        head, _ = fit_lda(subset(features, train), labels[train], n_classes)
        for part, p in probability_blocks(head.likelihoods(subset(features, held))):
            rows, at = held[part], np.arange(len(p))
            suggested[rows] = p.argmax(axis=1)
            own[rows], top[rows] = p[at, labels[rows]], p[at, suggested[rows]]
    found = _doubtful(labels, own, suggested, top, n_classes)
    note = (
        f"labels are checked by linear discriminant analysis, since {n_classes:,} classes would"
        " take logistic regression hours"
    )
    return found, (*division.notes, note)


def _doubtful(
    labels: np.ndarray, own: np.ndarray, suggested: np.ndarray, top: np.ndarray, k: int
) -> tuple[DoubtfulLabel, ...]:
    """Return the doubtful rows from the probabilities of the given and of the likeliest class."""
    count = np.bincount(labels, minlength=k)
    usual = np.bincount(labels, own, k) / np.maximum(count, 1)
    usual[count == 0] = np.inf
    doubtful = np.flatnonzero((suggested != labels) & (top >= usual[suggested]))
    found = [
        DoubtfulLabel(
            int(row),
            int(labels[row]),
            int(suggested[row]),
            float(top[row]),
            float(top[row] - own[row]),
        )
        for row in doubtful
    ]
    return tuple(sorted(found, key=lambda item: (-item.margin, item.row)))
