"""Scores of held-out training rows, and what may be said of new items by them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, cast

import numpy as np
from numpy.typing import NDArray

from headstart.core.division import ranks
from headstart.core.errors import HeadError
from headstart.core.row_keys import Index, Keys
from headstart.evaluation import probability_blocks
from headstart.evaluation.conformal import (
    ScoreName,
    cross_interval,
    misfit_scores,
    most_misfit,
    thresholds,
)
from headstart.evaluation.sets import (
    NEITHER,
    NO,
    UNDECIDED,
    YES,
    AnySets,
    ClassSets,
    LabelSets,
    ValueSets,
)
from headstart.evaluation.targets import FloatArray
from headstart.evaluation.tasks import CLASSIFICATION, MULTI_LABEL, REGRESSION
from headstart.heads.base import Arrays, Head
from headstart.heads.saved import unpack_head

SCORES: tuple[ScoreName, ...] = ("lac", "aps", "raps")


@dataclass(frozen=True, eq=False)
class Calibration:
    """Scores of held-out training rows.

    Attributes:
        task: what is predicted.
        units: ``(n,)``, the number of what each row belongs to: copies, and rows of one group, are
            one unit.
        truth: class indices ``(n,)``, memberships ``(n, k)``, or of a regression the fold ``(n,)``
            that held each row out.
        scores: classification: ``(n,)`` for each kind of score, of the row's own class.
            Multi-label: ``probability (n, k)``. Regression: ``residual (n, t)``, absolute.
        heads: of a regression, the head beside each fold.
    """

    task: str
    units: Index
    truth: NDArray[np.int64]
    scores: Mapping[str, FloatArray]
    heads: tuple[Head, ...] = ()

    def sets(
        self,
        outputs: Any,
        *,
        coverage: float,
        by_class: bool = False,
        score: ScoreName = "lac",
        keys: Keys | None = None,
        names: Sequence[str] = (),
        rows: object = None,
    ) -> AnySets:
        """Return what may be said of items at a coverage.

        Args:
            outputs: ``(m, k)``, probabilities of the head, as an array or in blocks; values.
            coverage: the share of items whose truth is meant to be in its set, in (0, 1).
            by_class: of every class alike; for several labels of items with each label and of
                those without it.
            score: of a classification; see :func:`~headstart.evaluation.conformal.misfit_scores`.
            keys: m content ids, from which ``aps`` and ``raps`` draw.
            names: of the classes, labels or targets, for messages.
            rows: features ``(m, d)``, which a regression needs.

        Raises:
            HeadError: too few rows were held out for that coverage, or every class would be in
                every set.
        """
        if self.task == REGRESSION.name:
            return self._intervals(np.asarray(outputs), rows, coverage, by_class)
        if self.task == MULTI_LABEL.name:
            return self._labels(np.asarray(outputs), coverage, by_class, names)
        return self._classes(outputs, coverage, by_class, score, keys, names)

    def _classes(
        self,
        outputs: Any,
        coverage: float,
        by_class: bool,
        score: ScoreName,
        keys: Keys | None,
        names: Sequence[str],
    ) -> ClassSets:
        k = outputs.shape[1]
        own, full = self.scores[score], most_misfit(score, k)
        if by_class:
            found = [(own[self.truth == c], self.units[self.truth == c]) for c in range(k)]
            limits = thresholds(found, coverage, [_name(names, c) for c in range(k)])
        else:
            limits = np.full(k, thresholds([(own, self.units)], coverage, None)[0])
        if (limits >= full - 1e-12).all():
            raise HeadError(
                f"at coverage={coverage:.12g} every class would be in every set: a head that did"
                " not see them gives too many training items no chance",
                hint="lower the coverage, or look at the labels",
            )
        u = spread(keys, len(outputs))
        members: list[NDArray[np.int64]] = []
        for part, p in probability_blocks(outputs):
            inside = misfit_scores(p, score, u[part]) <= limits
            order = np.argsort(-p, axis=1, kind="stable")
            members += [row[kept[row]] for row, kept in zip(order, inside, strict=True)]
        return ClassSets(coverage, tuple(members), k, by_class)

    def _labels(
        self, p: FloatArray, coverage: float, by_class: bool, names: Sequence[str]
    ) -> LabelSets:
        held, has = self.scores["probability"], self.truth > 0
        own = np.where(has, 1 - held, held)
        if by_class:
            found, called = [], []
            for at in range(p.shape[1]):
                for rows, what in ((has[:, at], "with"), (~has[:, at], "without")):
                    found.append((own[rows, at], self.units[rows]))
                    called.append(f"items {what} {_name(names, at)}")
            limits = thresholds(found, coverage, called).reshape(-1, 2)
        else:  # every label has all items
            each = [thresholds([(column, self.units)], coverage, None)[0] for column in own.T]
            limits = np.repeat(each, 2).reshape(-1, 2)
        yes, no = 1 - p <= limits[:, 0], p <= limits[:, 1]
        states = np.where(yes & no, UNDECIDED, np.where(yes, YES, np.where(no, NO, NEITHER)))
        return LabelSets(coverage, states.astype(np.int8), by_class)

    def _intervals(
        self, values: FloatArray, rows: object, coverage: float, by_class: bool
    ) -> ValueSets:
        if by_class:
            raise HeadError(
                "by_class promises a coverage for the items of each class, and numbers have none",
                hint="omit by_class=True",
            )
        residual = self.scores["residual"]
        thresholds(
            [(residual[:, 0], self.units)], coverage, None
        )  # refuses what cannot be promised
        shape = (len(values), residual.shape[1])
        said = np.stack([np.reshape(head.predict(rows), shape) for head in self.heads], axis=2)
        bounds = [
            cross_interval(said[:, at], residual[:, at], self.truth, self.units, coverage)
            for at in range(shape[1])
        ]
        low, high = (np.stack(each, axis=1) for each in zip(*bounds, strict=True))
        return ValueSets(coverage, low, high)

    def check(self, head: Head) -> None:
        """Refuse a head that these rows were not kept for.

        Raises:
            HeadError: naming what differs.
        """
        width = {
            CLASSIFICATION.name: int(self.truth.max()) + 1,
            MULTI_LABEL.name: self.truth.shape[-1],
        }.get(self.task, self.heads[0].n_classes if self.heads else 0)
        fits = (
            width <= head.n_classes
            if self.task == CLASSIFICATION.name
            else (width == head.n_classes)
        )
        wide = all(each.n_features == head.n_features for each in self.heads)
        if self.task != head.task or not fits or not wide:
            raise HeadError(f"it belongs to another head than this one of {head.task}")

    def pack(self) -> tuple[Arrays, dict[str, Any]]:
        """Return arrays and plain JSON values; :meth:`unpack` is the inverse."""
        arrays: Arrays = {"units": self.units, "truth": self.truth.astype(np.int64)}
        arrays |= {f"score.{name}": np.ascontiguousarray(s) for name, s in self.scores.items()}
        documents = []
        for at, head in enumerate(self.heads):
            own, document = head.pack()
            arrays |= {f"head{at}.{name}": array for name, array in own.items()}
            documents.append(document)
        return arrays, {"task": self.task, "heads": documents}

    @classmethod
    def unpack(cls, arrays: Mapping[str, np.ndarray], values: Mapping[str, Any]) -> Self:
        """Rebuild what :meth:`pack` described, trusting neither.

        Raises:
            HeadError, KeyError, TypeError, ValueError: they disagree.
        """
        units, truth = arrays["units"], arrays["truth"]
        scores = {n.removeprefix("score."): a for n, a in arrays.items() if n.startswith("score.")}
        wanted = {
            CLASSIFICATION.name: set(SCORES),
            MULTI_LABEL.name: {"probability"},
            REGRESSION.name: {"residual"},
        }[values["task"]]
        whole = units.ndim == 1 and units.dtype == truth.dtype == np.int64
        if not whole or set(scores) != wanted or len(truth) != len(units) or not len(units):
            raise HeadError(f"its arrays are {sorted(arrays)}, and do not belong together")
        for name, score in scores.items():
            if score.dtype != np.float64 or len(score) != len(units) or np.isnan(score).any():
                raise HeadError(f"the scores {name!r} are not numbers of {len(units)} rows")
        heads = []
        for at, document in enumerate(values["heads"]):
            prefix = f"head{at}."
            own = {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
            heads.append(unpack_head(own, document, "the calibration"))
        if values["task"] == REGRESSION.name and not (
            heads and truth.min() >= 0 and truth.max() < len(heads)
        ):
            raise HeadError("it names folds whose heads it does not have")
        return cls(values["task"], units, truth, scores, tuple(heads))


def spread(keys: Keys | None, n: int) -> FloatArray:
    """Return a number in [0, 1) for each of n items, which follows from its content alone."""
    if keys is None:
        return cast(FloatArray, (np.arange(n) + 0.5) / max(n, 1))
    return cast(FloatArray, ranks(keys, 0) / 2.0**64)


def _name(names: Sequence[str], at: int) -> str:
    return f"'{names[at]}'" if at < len(names) else f"class {at}"


__all__ = ["SCORES", "Calibration", "spread"]
