"""What may be wrong with labels that are several an item, and with numbers; and what more would
bring. The counterpart of :mod:`headstart.heads.data_checks` and of the learning curve of classes.

Everything rests on predictions for training rows by heads that did not see them, near copies and
members of a group included.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.core.division import few_per_class, held_out_part, make_folds
from headstart.core.errors import HeadError
from headstart.core.progress import Reporter
from headstart.core.records import Score
from headstart.core.row_keys import take_keys
from headstart.core.wording import count, format_number, format_percent
from headstart.evaluation import t_interval
from headstart.evaluation.targets import FloatArray
from headstart.evaluation.tasks import task_named
from headstart.heads.base import Head
from headstart.heads.contract import Trained, TrainingRows
from headstart.heads.copies import keep_together
from headstart.heads.data_checks import doubtful_labels
from headstart.heads.features import as_rows
from headstart.heads.registry import automatic_heads, head_kind
from headstart.heads.thresholds import with_thresholds

FAR = 4.0
"""Robust deviations from which an error is doubtful: 6 of 100,000 normal ones lie beyond."""
_FIFTHS = 5
_LEAST_ITEMS = 8
_MAD = 1.4826  # of a normal distribution, its deviation over its median absolute deviation


@dataclass(frozen=True)
class DoubtfulMembership:
    """A label that a training row has, or has not, against a confident held-out prediction.

    Attributes:
        row: the row.
        label: which label.
        has: whether the row has it.
        probability: held-out probability of the opposite.
        margin: how far it exceeds that of what is given.
    """

    row: int
    label: int
    has: bool
    probability: float
    margin: float


@dataclass(frozen=True)
class DoubtfulValue:
    """A number that lies far from its held-out prediction.

    Attributes:
        row: the row.
        target: which target.
        value, expected: as given and as predicted.
        deviations: the error in robust deviations of all errors of the target.
    """

    row: int
    target: int
    value: float
    expected: float
    deviations: float


@dataclass(frozen=True, eq=False)
class HeldOut:
    """What heads say of training rows that they did not see.

    Attributes:
        outputs: ``(n, k)``, probabilities or values; None: nothing could be held out.
        head: trained on all rows, with the thresholds that follow from them.
        notes: what was decided on the user's behalf.
    """

    outputs: NDArray[np.float64] | None
    head: Head
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class ItemBudget:
    """How the figure of a task grows with the number of training items.

    Attributes:
        items: of each point, each twice the one before.
        figure: its name.
        scores: the points, means over the repetitions with Student's t interval.
        values: ``(points, repetitions)``.
        doubled: what the last doubling of the items brought, paired by repetition; None with one
            point.
        notes: what was decided on the user's behalf.
    """

    items: tuple[int, ...]
    figure: str
    scores: tuple[Score, ...]
    values: np.ndarray
    doubled: Score | None
    notes: tuple[str, ...]


def held_out_outputs(rows: TrainingRows, folds: int = 5) -> HeldOut:
    """Predict every training row by a head that did not see it, nor its copies, nor its group.

    Args:
        rows: of several labels an item, or of numbers.
        folds: how many.
    """
    kind, task = head_kind(automatic_heads(rows.task)[0]), task_named(rows.task)
    x, y = as_rows(rows.x), np.asarray(rows.y)
    targets = task.encode(y, len(x), rows.n_classes)
    together = keep_together(None, x, keys=rows.keys)
    division = make_folds(
        targets.levels, folds, seed=rows.seed, keys=together.keys, groups=rows.groups
    )
    settings = kind.settings({}, **kind.coarse)
    whole = kind.fit(rows, settings)
    if division is None:
        return HeldOut(None, whole.head, (*together.notes, "no training item can be held out"))
    outputs = np.zeros(y.shape)
    for train, held in division.splits():
        head = kind.fit(rows.take(train), settings).head
        inside = rows.take(held).x
        outputs[held] = (
            head.predict(inside) if task.probabilities is None else head.predict_proba(inside)
        )
    trained = with_thresholds(Trained(whole.head, held_out_probabilities=outputs), rows)
    return HeldOut(outputs, trained.head, (*together.notes, *division.notes))


def doubtful_memberships(y: np.ndarray, held_out: FloatArray) -> tuple[DoubtfulMembership, ...]:
    """List labels that are confidently predicted otherwise, the widest margin first.

    Every label is a question of its own, with or without it; see
    :func:`~headstart.heads.doubtful_labels` for what confident means.

    Args:
        y: memberships ``(n, k)``.
        held_out: probabilities ``(n, k)``, each row's by a head that did not see it.
    """
    found = [
        DoubtfulMembership(one.row, label, one.label == 1, one.probability, one.margin)
        for label in range(y.shape[1])
        for one in doubtful_labels(
            (y[:, label] > 0.5).astype(np.int64),
            np.stack([1.0 - held_out[:, label], held_out[:, label]], axis=1),
        )
    ]
    return tuple(sorted(found, key=lambda each: (-each.margin, each.row, each.label)))


def doubtful_values(y: np.ndarray, held_out: FloatArray) -> tuple[DoubtfulValue, ...]:
    """List numbers that lie far from what is predicted of them, the farthest first.

    Args:
        y: numbers ``(n, t)``.
        held_out: what heads that did not see a row say of it, ``(n, t)``.
    """
    error = np.asarray(y, np.float64) - held_out
    middle = np.median(error, axis=0)
    scale = _MAD * np.median(np.abs(error - middle), axis=0)
    scale = np.where(scale > 0, scale, np.maximum(error.std(axis=0), 1e-300))
    far = np.abs(error - middle) / scale
    found = [
        DoubtfulValue(int(i), int(j), float(y[i, j]), float(held_out[i, j]), float(far[i, j]))
        for i, j in np.argwhere(far >= FAR)
    ]
    return tuple(sorted(found, key=lambda each: (-each.deviations, each.row, each.target)))


def item_curve(rows: TrainingRows, *, repetitions: int = 5, reporter: Reporter) -> ItemBudget:
    """Measure how the figure of a task grows with training items, inside the training rows.

    Each repetition holds another fifth of the rows out, groups whole, and trains on an eighth, a
    quarter, half and all of the rest, the smaller sets inside the larger.

    Args:
        rows: of several labels an item, or of numbers.
        repetitions: how many, at least 1.
        reporter: receives progress.

    Raises:
        HeadError: too few rows to hold anything out.
    """
    kind, task = head_kind(automatic_heads(rows.task)[0]), task_named(rows.task)
    x, y = as_rows(rows.x), np.asarray(rows.y)
    targets = task.encode(y, len(x), rows.n_classes)
    together = keep_together(None, x, keys=rows.keys)
    divisions = [
        held_out_part(
            targets.levels, part, parts=_FIFTHS, seed=rows.seed, keys=together.keys,
            groups=rows.groups,
        )
        for part in range(repetitions)
    ]  # fmt: skip
    keys, groups = together.keys, rows.groups
    most = min(len(set(keys.take(rest))) for rest, _ in divisions)  # copies count once
    points = tuple(n for n in (most // 8, most // 4, most // 2, most) if n >= _LEAST_ITEMS)
    if not points:
        raise HeadError(
            f"{count(len(x), 'training item')} are too few to hold some out",
            hint=f"{2 * _LEAST_ITEMS} are enough",
        )
    settings, names = kind.settings({}, **kind.coarse), rows.names or [""] * rows.n_classes
    values, figure = np.empty((len(points), repetitions)), ""
    with reporter.task("learning curve", values.size, "fits") as progress:
        for repetition, (rest, held) in enumerate(divisions):
            z, truth, one = rows.take(held).x, y[held], np.zeros(len(rest), np.int64)
            for at, n in enumerate(points):
                drawn = few_per_class(
                    one, n, seed=(rows.seed, repetition), keys=keys.take(rest),
                    groups=take_keys(groups, rest),
                )  # fmt: skip
                head = kind.fit(rows.take(rest[drawn]), settings).head
                said = head.predict(z) if task.probabilities is None else head.predict_proba(z)
                first = task.evaluate(truth, said, names).figures()[0]
                values[at, repetition], figure = first.score.value, first.name
                progress.advance()
    finite = np.where(np.isfinite(values), values, 0.0)
    scores = tuple(t_interval(row, bounds=(-np.inf, 1.0)) for row in finite)
    doubled = None
    if len(points) > 1:
        doubled = t_interval(finite[-1] - finite[-2])
    return ItemBudget(points, figure, scores, finite, doubled, together.notes)


def described(
    found: Sequence[DoubtfulMembership | DoubtfulValue], names: Sequence[str]
) -> list[Mapping[str, str | int]]:
    """Return doubts in words: the row, what is given, what is expected, and how sure that is."""
    told: list[Mapping[str, str | int]] = []
    for each in found:
        if isinstance(each, DoubtfulMembership):
            with_it, without = f"'{names[each.label]}'", f"no '{names[each.label]}'"
            given, expected = (with_it, without) if each.has else (without, with_it)
            sure = format_percent(each.probability)
        else:
            said = "" if len(names) == 1 else f"{names[each.target]} "
            given, expected = (f"{said}{format_number(v)}" for v in (each.value, each.expected))
            sure = f"{each.deviations:.1f} deviations"
        told.append({"row": each.row, "given": given, "expected": expected, "sure": sure})
    return told


__all__ = [
    "FAR",
    "DoubtfulMembership",
    "DoubtfulValue",
    "HeldOut",
    "ItemBudget",
    "described",
    "doubtful_memberships",
    "doubtful_values",
    "held_out_outputs",
    "item_curve",
]
