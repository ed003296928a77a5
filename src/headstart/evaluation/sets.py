"""Answers with a coverage: sets of classes, decided labels, intervals; and how good they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.core.records import CoverageRow, Score, SetScores
from headstart.core.row_keys import Keys
from headstart.evaluation.grouped import grouped_accuracy
from headstart.evaluation.intervals import proportion_interval
from headstart.evaluation.targets import FloatArray

Mask = NDArray[np.bool_]

_MOST_ROWS = 500
YES, NO, UNDECIDED, NEITHER = 1, 0, 2, -1
"""What is said of a label: it is there, it is not, both are plausible, neither is."""


@dataclass(frozen=True, eq=False)
class ClassSets:
    """A set of plausible classes for every item.

    Attributes:
        coverage: the share of items whose class is meant to be in its set.
        members: for every item its classes, the most probable first, ``(size,) int64``.
        n_classes: of the head.
        by_class: whether the coverage is that of every class.
    """

    coverage: float
    members: tuple[NDArray[np.int64], ...]
    n_classes: int
    by_class: bool = False

    @property
    def abstain(self) -> Mask:
        """Which items ``(n,)`` have no single answer: several classes are plausible, or none."""
        return np.array([len(each) != 1 for each in self.members], dtype=bool)

    def measured(self, truth: Any, names: Sequence[str], groups: Keys | None = None) -> SetScores:
        """Return what the sets did.

        Args:
            truth: class indices ``(n,)``.
            names: of the classes.
            groups: n, of items that are alike; they count in the interval.
        """
        labels = np.asarray(truth)
        size = np.array([len(each) for each in self.members], dtype=np.float64)
        hit = np.array(
            [label in each for label, each in zip(labels, self.members, strict=True)], dtype=bool
        )
        rows = []
        for label in np.unique(labels)[:_MOST_ROWS]:
            own = labels == label
            alike = None if groups is None else np.asarray(groups)[own]
            rows.append(_row(names[label], hit[own], size[own], alike))
        return SetScores(
            self.coverage,
            len(labels),
            _share(hit, groups),
            _mean(size),
            1.0 - _mean(self.abstain),
            _mean(size == 0),
            self.by_class,
            tuple(rows),
        )


@dataclass(frozen=True, eq=False)
class LabelSets:
    """What is said of every label of every item.

    Attributes:
        coverage: the share of items of which what is said of a label is meant to be true.
        states: ``(n, k) int8``: :data:`YES`, :data:`NO`, :data:`UNDECIDED` or :data:`NEITHER`.
        by_class: whether the coverage is that of items with the label, and of those without.
    """

    coverage: float
    states: NDArray[np.int8]
    by_class: bool = False

    @property
    def abstain(self) -> Mask:
        """Which items ``(n,)`` have a label that is not decided."""
        return np.asarray(~self._decided.all(axis=1))

    @property
    def _decided(self) -> Mask:
        return np.asarray((self.states == YES) | (self.states == NO))

    def measured(self, truth: Any, names: Sequence[str], groups: Keys | None = None) -> SetScores:
        """Return what was said, over all pairs of item and label, and label by label.

        Args:
            truth: memberships ``(n, k)``.
            names: of the labels.
            groups: n, of items that are alike.
        """
        has = np.asarray(truth) > 0.5
        hit = (self.states == UNDECIDED) | (self.states == np.where(has, YES, NO))
        open_ = (~self._decided).astype(np.float64)
        rows = [
            _row(name, hit[:, at], open_[:, at], groups)
            for at, name in enumerate(names[:_MOST_ROWS])
        ]
        # Labels of one item are not independent: the interval counts items.
        item = np.repeat(np.arange(len(has)), has.shape[1]) if groups is None else None
        grouped = np.repeat(np.asarray(groups), has.shape[1]) if item is None else item
        return SetScores(
            self.coverage,
            len(has),
            _share(hit.ravel(), grouped if has.shape[1] > 1 or groups is not None else None),
            _mean(open_.sum(axis=1)),
            1.0 - _mean(self.abstain),
            _mean((self.states == NEITHER).any(axis=1)),
            self.by_class,
            tuple(rows),
        )


@dataclass(frozen=True, eq=False)
class ValueSets:
    """An interval for every target of every item.

    Attributes:
        coverage: the share of items whose value is meant to be in its interval.
        low, high: ``(n, t)``.
    """

    coverage: float
    low: FloatArray
    high: FloatArray
    by_class: bool = False

    @property
    def abstain(self) -> Mask:
        """No item ``(n,)``: an interval is an answer."""
        return np.zeros(len(self.low), dtype=bool)

    def measured(self, truth: Any, names: Sequence[str], groups: Keys | None = None) -> SetScores:
        """Return what the intervals did, over all targets and target by target.

        Args:
            truth: values ``(n, t)``.
            names: of the targets.
            groups: n, of items that are alike.
        """
        values = np.asarray(truth, dtype=np.float64).reshape(self.low.shape)
        hit = (values >= self.low) & (values <= self.high)
        width = self.high - self.low
        rows = [_row(name, hit[:, at], width[:, at], groups) for at, name in enumerate(names)]
        item = np.arange(len(values)) if groups is None else np.asarray(groups)
        several = hit.shape[1] > 1
        covered = _share(
            hit.ravel(), np.repeat(item, hit.shape[1]) if several or groups is not None else None
        )
        mean = float("nan") if several else _mean(width)
        return SetScores(self.coverage, len(values), covered, mean, 1.0, 0.0, False, tuple(rows))


AnySets = ClassSets | LabelSets | ValueSets


def _row(name: str, hit: Mask, size: FloatArray, groups: Keys | None) -> CoverageRow:
    return CoverageRow(name, len(hit), _share(hit, groups), _mean(size))


def _share(hit: Mask, groups: Keys | None) -> Score:
    if groups is not None and len(hit):
        return grouped_accuracy(hit, groups)
    return Score(_mean(hit), proportion_interval(int(hit.sum()), len(hit)))


def _mean(values: NDArray[Any]) -> float:
    return float(values.mean()) if len(values) else float("nan")


__all__ = [
    "NEITHER",
    "NO",
    "UNDECIDED",
    "YES",
    "AnySets",
    "ClassSets",
    "LabelSets",
    "ValueSets",
]
