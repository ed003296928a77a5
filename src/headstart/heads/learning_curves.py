"""The learning curve: accuracy by labels per class, and what twice as many would bring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headstart.core.division import from_all_groups, held_out_part, shuffled_classes
from headstart.core.errors import HeadError
from headstart.core.progress import Reporter, SilentReporter
from headstart.core.records import Curve, Score
from headstart.core.row_keys import Keys, numbered, take_keys, units_among
from headstart.core.seeds import require_seeds
from headstart.evaluation import repeated_mean
from headstart.evaluation.forecast import forecast
from headstart.evaluation.repetitions import Correct
from headstart.evaluation.targets import as_labels, require_two_classes
from headstart.heads.base import Head
from headstart.heads.copies import keep_together
from headstart.heads.features import as_features
from headstart.heads.lda import fit_lda
from headstart.heads.penalty import choose_linear

FloatArray = npt.NDArray[np.float64]

_SHOTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
_GRID = tuple(float(c) for c in 10.0 ** np.arange(-5, 3.1, 1.0))
_FIFTHS = 5
_POINTS = 3  # of a curve that is extrapolated
# Above so many classes, and products of rows, features and classes, a closed form draws the curve.
_MANY_CLASSES = 250
_MOST_PRODUCTS = 500_000_000


@dataclass(frozen=True)
class LabelBudget:
    """How accuracy grows with labels.

    Attributes:
        shots: labels per class of each point; of classes with fewer, all are used.
        curve: mean held-out accuracy, with the band of its intervals.
        scores: the points with their intervals, which count repetitions and held-out items.
        accuracies: ``(points, repetitions)``.
        extrapolated: accuracy of a head that is trained on twice the labels of the last point, by
            the power law ``error = a + b shots^-c``, with an interval that predicts one such head
            (see :mod:`headstart.evaluation.forecast`); None with fewer than three points.
        gain: the same, less the accuracy of one head of the last point.
        notes: what was decided on the user's behalf.
    """

    shots: tuple[int, ...]
    curve: Curve
    scores: tuple[Score, ...]
    accuracies: np.ndarray
    extrapolated: Score | None
    gain: Score | None
    notes: tuple[str, ...]


def learning_curve(
    x: object,
    y: object,
    n_classes: int,
    *,
    shots: Sequence[int] | None = None,
    repetitions: int = 5,
    seed: int = 0,
    keys: Keys | None = None,
    groups: Keys | None = None,
    reporter: Reporter | None = None,
) -> LabelBudget:
    """Measure accuracy with few labels per class, inside the training rows.

    Each repetition holds out another fifth of the rows, draws the labels from the rest (the
    smaller sets inside the larger), and fits logistic regression with C chosen by
    cross-validation in the drawn rows alone. The only item of a class is never held out.

    Args:
        x, y, n_classes: training features ``(n, d)``, class indices ``(n,)``, their number.
        shots: labels per class; None takes 1, 2, 5, 10, ... up to what the commonest class has in
            the rest.
        repetitions: how many, at least 1.
        seed: of the divisions and the draws.
        keys, groups: what divisions and draws follow from, and which rows are held out together;
            see :mod:`headstart.core.division`.
        reporter: receives progress.

    Raises:
        HeadError: if the input is invalid or too small to hold anything out.
    """
    reporter = reporter or SilentReporter()
    require_seeds(seed)
    if repetitions < 1:
        raise HeadError(f"expected 1 repetition or more, found {repetitions}")
    features = as_features(x)
    labels = as_labels(y, len(features), n_classes)
    require_two_classes(labels)
    together = keep_together(labels, features, keys=keys)
    keys = together.keys
    divisions = [
        held_out_part(labels, repetition, parts=_FIFTHS, seed=seed, keys=keys, groups=groups)
        for repetition in range(repetitions)
    ]
    points = _points(shots, min(_most(labels[rest], keys.take(rest)) for rest, _ in divisions))
    many = n_classes > _MANY_CLASSES and features.size * n_classes > _MOST_PRODUCTS
    accuracies = np.empty((len(points), repetitions))
    right: list[list[Correct]] = [[] for _ in points]
    with reporter.task("learning curve", accuracies.size, "fits") as progress:
        for repetition, (rest, held) in enumerate(divisions):
            rank = _ranks(
                labels[rest], (seed, repetition), keys.take(rest), take_keys(groups, rest)
            )
            for at, shot in enumerate(points):
                drawn = rest[rank < shot]
                head: Head
                if many:
                    head = fit_lda(features[drawn], labels[drawn], n_classes)[0]
                else:
                    head = choose_linear(
                        features[drawn],
                        labels[drawn],
                        n_classes,
                        grid=_GRID,
                        seed=seed,
                        keys=keys.take(drawn),
                        groups=take_keys(groups, drawn),
                    ).head
                found = head.predict(features[held]) == labels[held]
                accuracies[at, repetition] = float(found.mean())
                right[at].append(found)
                progress.advance()
    # A fifth is held out, a quarter of what is left.
    scores = tuple(repeated_mean(row, test_train_ratio=1 / (_FIFTHS - 1)) for row in right)
    extrapolated = gain = None
    if len(points) >= _POINTS:
        counts = [len(held) for _, held in divisions]
        ahead = forecast(np.array(points, dtype=float), accuracies, counts, seed=seed)
        extrapolated, gain = ahead.accuracy, ahead.gain
    notes = (*together.notes, *_division_notes(labels, keys), *_point_notes(points))
    if many:
        notes += (
            f"the curve is that of linear discriminant analysis, since {n_classes:,} classes would"
            " take logistic regression hours",
        )
    return LabelBudget(
        points, _curve(points, scores), scores, accuracies, extrapolated, gain, notes
    )


def _points(shots: Sequence[int] | None, most: int) -> tuple[int, ...]:
    """Return the points of the curve, of which the last draws ``most`` labels per class."""
    if shots is not None:
        points = sorted({int(shot) for shot in shots})
        if not points or points[0] < 1 or points[-1] > most:
            raise HeadError(
                f"expected labels per class from 1 to {most} (a fifth is held out), found"
                f" {list(shots)}"
            )
        return tuple(points)
    return (*(shot for shot in _SHOTS if shot < most), most)


def _most(labels: np.ndarray, keys: Keys) -> int:
    """Return how many different items the commonest class has."""
    return max(len(rows) for rows in shuffled_classes(labels, 0, keys=keys))


def _ranks(labels: np.ndarray, seed: Sequence[int], keys: Keys, groups: Keys | None) -> np.ndarray:
    """Return a random rank inside its class for each row, from 0; copies come after all others.

    One row of every group comes before a second of any.
    """
    rank = np.full(len(labels), len(labels), dtype=np.int64)
    of = None if groups is None else numbered(groups)[0]
    for rows in shuffled_classes(labels, seed, keys=keys):
        if of is not None:
            rows = from_all_groups(rows, of[rows])
        rank[rows] = np.arange(len(rows))
    return rank


def _curve(points: tuple[int, ...], scores: tuple[Score, ...]) -> Curve:
    bounds = [(s.interval.low, s.interval.high) if s.interval else None for s in scores]
    banded = [b for b in bounds if b is not None]
    whole = len(banded) == len(scores)
    return Curve(
        name="learning curve",
        x=tuple(float(p) for p in points),
        y=tuple(s.value for s in scores),
        x_label="labels per class",
        y_label="held-out accuracy",
        low=tuple(max(0.0, b[0]) for b in banded) if whole else (),
        high=tuple(min(1.0, b[1]) for b in banded) if whole else (),
        log_x=True,
    )


def _division_notes(labels: np.ndarray, keys: Keys) -> tuple[str, ...]:
    """Say which classes the held-out fifths cannot hold each time."""
    unit = units_among(len(labels), keys).of
    counts = np.bincount(np.unique(np.stack([labels, unit]), axis=1)[0])
    single, rare = int((counts == 1).sum()), int(((counts > 1) & (counts < _FIFTHS)).sum())
    notes = []
    if single:
        notes.append(
            f"{_classes(single)} a single item, which is never held out, so that the accuracy says"
            " nothing about such a class"
        )
    if rare:
        notes.append(
            f"{_classes(rare)} fewer than {_FIFTHS} items, so that some repetitions hold out none"
        )
    return tuple(notes)


def _classes(count: int) -> str:
    return "1 class has" if count == 1 else f"{count:,} classes have"


def _point_notes(points: tuple[int, ...]) -> tuple[str, ...]:
    if len(points) < _POINTS:
        return ("too few points for an extrapolation, which needs three",)
    return ()
