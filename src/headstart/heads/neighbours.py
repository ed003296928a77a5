"""Heads without training: nearest neighbours and nearest class mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self, cast, get_args

import numpy as np

from headstart.core.errors import HeadError
from headstart.core.nearest import BLOCK, Metric, as_compared, nearest_rows
from headstart.core.row_keys import Index, Keys
from headstart.evaluation.targets import FloatArray, as_labels, as_weights, require_two_classes
from headstart.heads.base import Arrays, Head, expect_arrays
from headstart.heads.calibration import calibration_rows, fit_temperature
from headstart.heads.copies import keep_together, members_of_several, units_left_out
from headstart.heads.features import Features, as_rows, blocks
from headstart.heads.options import NeighboursOptions
from headstart.heads.source import StreamedFeatures

Weights = Literal["softmax", "uniform"]

_QUERY_ROWS = 1024
_TRAIN_ROWS = BLOCK
# For training rows on disk: more queries at a time, so that the disk is read less often.
_STREAMED_QUERY_ROWS = 8192
_STREAMED_TRAIN_ROWS = 2048


@dataclass(frozen=True, eq=False)
class NeighboursHead(Head):
    """The vote of the k nearest training rows.

    Attributes:
        rows: ``(n, d) float32``, the training features; of unit length for ``cosine``. Features
            on disk stay there unchanged; saving the head reads them into memory.
        labels: ``(n,) int64``.
        classes: the number of classes.
        k: how many neighbours vote.
        metric: ``cosine`` similarity or ``euclidean`` distance.
        weights: ``softmax`` weighs a neighbour by ``exp(similarity / softness)`` (Wu et al. 2018,
            and DINO); ``uniform`` counts votes.
        softness: the temperature of the weights; 0.07 for cosine is that of DINO. For the
            Euclidean metric the similarity is minus the squared distance.
        counts: ``(n,) float64``, how many of the k neighbours each row is; None: one.
    """

    kind: ClassVar[str] = "neighbours"
    rounds_by_company: ClassVar[bool] = True

    rows: Features
    labels: np.ndarray
    classes: int
    k: int = 20
    metric: Metric = "cosine"
    weights: Weights = "softmax"
    softness: float = 0.07
    task: str = "classification"
    temperature: float = 1.0
    counts: FloatArray | None = None

    @property
    def n_features(self) -> int:
        """The width of the features."""
        return int(self.rows.shape[1])

    @property
    def n_classes(self) -> int:
        """The number of classes."""
        return self.classes

    def decision(self, x: Features) -> FloatArray:
        """Return the log of the vote shares ``(n, k) float64``; ``-inf`` for no vote."""
        shares = np.empty((len(x), self.classes))
        streamed = isinstance(self.rows, StreamedFeatures)
        most = self._most()
        step = _STREAMED_QUERY_ROWS if streamed else _QUERY_ROWS
        for block in blocks(len(x), step):
            similarity, index = nearest(x[block], self.rows, most, self.metric)
            if self.weights == "softmax":
                vote = np.exp((similarity - similarity.max(axis=1, keepdims=True)) / self.softness)
            else:
                vote = np.ones_like(similarity)
            if self.counts is not None:
                count = self.counts[index]
                before = np.cumsum(count, axis=1) - count
                vote *= np.clip(self.k - before, 0.0, count)
            vote /= vote.sum(axis=1, keepdims=True)
            part = np.zeros((len(vote), self.classes))
            np.add.at(part, (np.arange(len(vote))[:, None], self.labels[index]), vote)
            shares[block] = part
        with np.errstate(divide="ignore"):
            return cast(FloatArray, np.log(shares))

    def _most(self) -> int:
        """Return how many rows hold the k nearest, whichever these are."""
        if self.counts is None:
            return self.k
        enough = int(np.searchsorted(np.cumsum(np.sort(self.counts)), self.k)) + 1
        return min(enough, len(self.labels))

    def state(self) -> tuple[Arrays, dict[str, Any]]:
        """Return the training rows, labels and counts, and the options."""
        options = {
            "classes": self.classes,
            "k": self.k,
            "metric": self.metric,
            "weights": self.weights,
            "softness": self.softness,
        }
        rows = self.rows
        if isinstance(rows, StreamedFeatures):
            rows = as_compared(np.asarray(rows), self.metric)
        counts = {} if self.counts is None else {"counts": self.counts}
        return {"rows": rows, "labels": self.labels, **counts}, options

    @classmethod
    def from_state(cls, arrays: Mapping[str, np.ndarray], options: Mapping[str, Any]) -> Self:
        """Rebuild the head; refuse labels out of range and unknown options."""
        counted: dict[str, tuple[int | str, ...]] = {"counts": ("n",)} if "counts" in arrays else {}
        expect_arrays(arrays, {"rows": ("n", "d"), "labels": ("n",), **counted})
        labels = as_labels(arrays["labels"], len(arrays["rows"]), int(options["classes"]))
        if options["metric"] not in get_args(Metric) or options["weights"] not in get_args(Weights):
            raise HeadError(f"the options of the head are unknown: {dict(options)}")
        most = len(labels) if not counted else max(1, int(arrays["counts"].sum()))
        if not (1 <= int(options["k"]) <= most and float(options["softness"]) > 0):
            raise HeadError(f"the options of the head are impossible: {dict(options)}")
        return cls(
            arrays["rows"].astype(np.float32),
            labels,
            int(options["classes"]),
            int(options["k"]),
            options["metric"],
            options["weights"],
            float(options["softness"]),
            counts=as_weights(arrays.get("counts"), len(labels)),
        )


def fit_neighbours(
    x: object,
    y: object,
    n_classes: int,
    *,
    k: int = 20,
    metric: Metric = "cosine",
    weights: Weights = "softmax",
    softness: float = 0.07,
    sample_weight: object = None,
) -> NeighboursHead:
    """Remember the training rows; see :class:`NeighboursHead` for the options.

    A ``k`` above the number of rows is cut to it. With ``sample_weight`` ``(n,)`` a row is so many
    of the k neighbours: a weight of 2 is the row twice.

    Raises:
        ConfigError: options are invalid; all are named.
        HeadError: the input is invalid.
    """
    NeighboursOptions(k, metric, weights, softness)  # which checks them
    features = as_rows(x)
    labels = as_labels(y, len(features), n_classes)
    require_two_classes(labels)
    rows = features if isinstance(features, StreamedFeatures) else as_compared(features, metric)
    counts = as_weights(sample_weight, len(labels))
    most = len(rows) if counts is None else max(1, int(counts.sum()))
    k = min(k, most)
    return NeighboursHead(rows, labels, n_classes, k, metric, weights, softness, counts=counts)


def nearest(
    queries: FloatArray, rows: Features, k: int, metric: Metric
) -> tuple[FloatArray, np.ndarray]:
    """Return the k most similar rows to each query; see :mod:`headstart.core.nearest`.

    Args:
        queries: ``(m, d)``.
        rows: ``(n, d) float32``; of unit length for ``cosine``, unless they are streamed.
        k: how many, at most n.
        metric: similarity is the cosine, or minus the squared Euclidean distance.

    Returns:
        similarities ``(m, k) float64`` and row numbers ``(m, k) int64``.
    """
    streamed = isinstance(rows, StreamedFeatures)
    step = _STREAMED_TRAIN_ROWS if streamed else _TRAIN_ROWS
    return nearest_rows(queries, rows, k, metric, block=step, prepared=not streamed)


@dataclass(frozen=True, eq=False)
class PrototypeHead(Head):
    """The nearest class mean, by cosine.

    Attributes:
        centre: ``(d,) float64``, the mean of the training rows, taken out before the cosine.
        prototypes: ``(k, d) float64``, of unit length.
        present: ``(k,) bool``, the classes that the training rows held.
        temperature: fitted to left-out cosines by :func:`fit_prototype`.
    """

    kind: ClassVar[str] = "prototype"

    centre: FloatArray
    prototypes: FloatArray
    present: np.ndarray
    task: str = "classification"
    temperature: float = 1.0

    @property
    def n_features(self) -> int:
        """The width of the features."""
        return int(self.prototypes.shape[1])

    @property
    def n_classes(self) -> int:
        """The number of classes."""
        return int(self.prototypes.shape[0])

    def decision(self, x: Features) -> FloatArray:
        """Return the cosine with each class mean, ``(n, k) float64``."""
        cosine = np.empty((len(x), len(self.prototypes)))
        for rows in blocks(len(x)):
            cosine[rows] = _unit(x[rows] - self.centre) @ self.prototypes.T
        return cast(FloatArray, np.where(self.present, cosine, -np.inf))

    def state(self) -> tuple[Arrays, dict[str, Any]]:
        """Return the arrays; there are no options."""
        present = self.present.astype(np.uint8)
        return {"centre": self.centre, "prototypes": self.prototypes, "present": present}, {}

    @classmethod
    def from_state(cls, arrays: Mapping[str, np.ndarray], options: Mapping[str, Any]) -> Self:
        """Rebuild the head; refuse wrong shapes."""
        if options:
            raise HeadError(f"the options of the head are unknown: {dict(options)}")
        expect_arrays(arrays, {"centre": ("d",), "prototypes": ("k", "d"), "present": ("k",)})
        present = arrays["present"].astype(bool)
        if not present.any():
            raise HeadError("the head knows no class")
        return cls(
            arrays["centre"].astype(np.float64), arrays["prototypes"].astype(np.float64), present
        )


def fit_prototype(
    x: object,
    y: object,
    n_classes: int,
    *,
    sample_weight: object = None,
    keys: Keys | None = None,
    groups: Keys | None = None,
) -> PrototypeHead:
    """Average the unit-length, centred features of each class.

    The temperature is fitted to the cosines of each row with class means that are taken without
    it, which costs nothing: the sum of the class less the row.

    Args:
        x, y, n_classes: features ``(n, d)``, class indices ``(n,)``, their number.
        sample_weight: ``(n,)``, how often each row counts, above 0; None: once.
        keys, groups: which rows are left out together, as for
            :func:`~headstart.heads.fit_ridge`.

    Raises:
        HeadError: if the input is invalid.
    """
    features = as_rows(x)
    labels = as_labels(y, len(features), n_classes)
    require_two_classes(labels)
    together = keep_together(labels, features, keys=keys)
    of = units_left_out(together.keys, groups)
    weight = as_weights(sample_weight, len(labels))
    count = np.ones(len(labels)) if weight is None else weight
    n, d = features.shape
    centre = np.zeros(d)
    for rows in blocks(n):
        centre += count[rows] @ features[rows]
    centre /= count.sum()
    sums = np.zeros((n_classes, d))
    for rows in blocks(n):
        np.add.at(sums, labels[rows], _unit(features[rows] - centre) * count[rows, None])
    present = np.bincount(labels, minlength=n_classes) > 0
    prototypes = _unit(sums)
    judges = calibration_rows(n, n_classes)
    cosine = _left_out(features, labels, centre, sums, count, of, judges)
    cosine[:, ~present] = -np.inf
    head = PrototypeHead(centre, prototypes, present)
    if np.isfinite(cosine[np.arange(len(judges)), labels[judges]]).any():
        own = None if weight is None else weight[judges]
        head = head.with_temperature(fit_temperature(cosine, labels[judges], own))
    return head


def _left_out(
    features: Features,
    labels: np.ndarray,
    centre: FloatArray,
    sums: FloatArray,
    count: FloatArray,
    units: Index,
    judges: Index,
) -> FloatArray:
    """Return the cosine of the rows ``judges`` with class means without their unit, ``(m, k)``.

    A class that is in that unit alone gets ``-inf``.
    """
    rows_of = np.bincount(labels, minlength=len(sums))
    prototypes, cosine = _unit(sums), np.empty((len(judges), len(sums)))
    for part in blocks(len(judges)):
        rows = judges[part]
        unit, truth = _unit(features[rows] - centre), labels[rows]
        cosine[part] = unit @ prototypes.T
        rest = _unit(sums[truth] - unit * count[rows, None])
        own = np.where(rows_of[truth] > 1, np.einsum("nd,nd->n", unit, rest), -np.inf)
        cosine[np.arange(part.start, part.stop), truth] = own
    place = np.full(len(labels), -1)
    place[judges] = np.arange(len(judges))
    for members in members_of_several(units):
        unit, judging = _unit(features[members] - centre), place[members] >= 0
        for label in np.unique(labels[members]):
            inside = labels[members] == label
            rest = sums[label] - count[members[inside]] @ unit[inside]
            left = rows_of[label] > inside.sum()
            nearness = unit[judging] @ _unit(rest[None])[0] if left else -np.inf
            cosine[place[members[judging]], label] = nearness
    return cosine


def _unit(x: FloatArray) -> FloatArray:
    length = np.linalg.norm(x, axis=1, keepdims=True)
    return cast(FloatArray, x / np.maximum(length, 1e-30))
