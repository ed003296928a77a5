"""A head that begins as the classifier that the network was pre-trained with.

Without a label it is that classifier; with labels it is the logistic regression whose parameters
are drawn towards it instead of towards zero (Li, Grandvalet and Davoine 2018 call that L2-SP).
Whatever the labels do not speak against stays as it was pre-trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self, cast

import numpy as np
from scipy.special import log_softmax, logsumexp, softmax

from headstart.core.division import Folds, make_folds
from headstart.core.errors import HeadError
from headstart.core.records import Score
from headstart.core.wording import count, format_percent
from headstart.evaluation.intervals import proportion_interval
from headstart.evaluation.targets import FloatArray, as_labels
from headstart.heads.base import Arrays, Head, expect_arrays
from headstart.heads.calibration import fit_temperature
from headstart.heads.contract import Trained, TrainingRows
from headstart.heads.copies import keep_together
from headstart.heads.features import Features, as_rows, blocks
from headstart.heads.prepared import Preparation, shrunk_preparation
from headstart.heads.rules import grid_of, surprise, without_folds

_BLOCK_ROWS = 4096
_MOST_WORK = 4e8  # rows x features x classes of one pass, from which one fold decides
_PASSES = 200
_SHORTEST = 1e-12  # the length that a row of zeros is divided by


@dataclass(frozen=True, eq=False)
class StartedHead(Head):
    """``share * start(x) + prepared(x) @ weight + bias``, start(x) being log-probabilities.

    Attributes:
        start_weight, start_bias: ``(d, m) float64``, ``(m,) float64``: m columns of the classifier.
        owner: ``(m,) int64``, the class that each column stands for; of several the probabilities
            are added.
        share: the inverse temperature of the classifier, fitted to the training rows.
        unit: whether the classifier reads rows divided by their length, as one made of texts does.
        weight, bias: ``(d, k) float64``, ``(k,) float64``: what training has added.
        preparation: of the rows that ``weight`` is for.
        temperature: see :class:`~headstart.heads.base.Head`.
    """

    kind: ClassVar[str] = "started"

    start_weight: FloatArray
    start_bias: FloatArray
    owner: np.ndarray
    weight: FloatArray
    bias: FloatArray
    preparation: Preparation
    share: float = 1.0
    unit: bool = False
    task: str = "classification"
    temperature: float = 1.0

    @classmethod
    def untrained(
        cls,
        weight: FloatArray,
        bias: FloatArray,
        members: Sequence[Sequence[int]],
        *,
        unit: bool = False,
    ) -> Self:
        """Return the head that is the classifier alone.

        Args:
            weight, bias: ``(d, c)``, ``(c,)``, of all its classes.
            members: by class of the head the positions of those that it stands for.
            unit: whether it reads rows divided by their length.
        """
        columns = [position for each in members for position in each]
        owner = np.repeat(np.arange(len(members)), [len(each) for each in members])
        d, k = len(weight), len(members)
        return cls(
            np.ascontiguousarray(weight[:, columns], dtype=np.float64),
            np.asarray(bias, dtype=np.float64)[columns],
            owner.astype(np.int64),
            np.zeros((d, k)),
            np.zeros(k),
            Preparation(np.zeros(d), np.ones(d)),
            unit=unit,
        )

    @property
    def n_features(self) -> int:
        """The width of the features."""
        return int(self.weight.shape[0])

    @property
    def n_classes(self) -> int:
        """The number of outputs."""
        return int(self.weight.shape[1])

    def started(self, x: Features) -> FloatArray:
        """Return the classifier's log-probabilities among these classes, ``(n, k) float64``."""
        found = np.empty((len(x), self.n_classes))
        for rows in blocks(len(x), _BLOCK_ROWS):
            given = np.asarray(x[rows], dtype=np.float64)
            if self.unit:
                given = given / np.maximum(np.linalg.norm(given, axis=1, keepdims=True), _SHORTEST)
            logits = given @ self.start_weight + self.start_bias
            for one in range(self.n_classes):
                found[rows, one] = logsumexp(logits[:, self.owner == one], axis=1)
        return cast(FloatArray, log_softmax(found, axis=1))

    def decision(self, x: Features) -> FloatArray:
        """Return the logits ``(n, k) float64``."""
        logits = self.share * self.started(x) + self.bias
        if self.weight.any():
            for rows in blocks(len(x), _BLOCK_ROWS):
                logits[rows] += self.preparation(x[rows]) @ self.weight
        return logits

    def state(self) -> tuple[Arrays, dict[str, Any]]:
        """Return the arrays, and the share of the start."""
        names = ("start_weight", "start_bias", "owner", "weight", "bias")
        arrays = {name: getattr(self, name) for name in names}
        own = {"mean": self.preparation.mean, "scale": self.preparation.scale}
        return {**arrays, **own}, {"share": self.share, **({"unit": True} if self.unit else {})}

    @classmethod
    def from_state(cls, arrays: Mapping[str, np.ndarray], options: Mapping[str, Any]) -> Self:
        """Rebuild the head; refuse wrong shapes, a class without a column, impossible scales."""
        sizes = expect_arrays(
            arrays,
            {"start_weight": ("d", "m"), "start_bias": ("m",), "owner": ("m",)}
            | {"weight": ("d", "k"), "bias": ("k",), "mean": ("d",), "scale": ("d",)},
        )
        owner = arrays["owner"].astype(np.int64)
        if set(owner.tolist()) != set(range(sizes["k"])):
            raise HeadError("every class of the head needs a column of the classifier")
        share, scale = float(options["share"]), arrays["scale"].astype(np.float64)
        if not (np.isfinite(share) and share > 0 and scale.min() > 0):
            raise HeadError("the scales of the head must be positive")
        start_weight, start_bias, weight, bias, mean = (
            arrays[name].astype(np.float64)
            for name in ("start_weight", "start_bias", "weight", "bias", "mean")
        )
        preparation = Preparation(mean, scale)
        unit = options.get("unit", False) is True
        return cls(start_weight, start_bias, owner, weight, bias, preparation, share, unit)


def fit_started(
    rows: TrainingRows,
    start: StartedHead,
    *,
    folds: int = 5,
    called: str = "the network's own classifier",
) -> Trained:
    """Train a head that begins as a classifier.

    Minimises ``sum_i loss_i + |weight|^2 / (2 C) + bias^2 / 2``. The scale of the classifier is
    fitted first; C is chosen by the log loss of held-out rows and a prior, as for few labels
    (:mod:`headstart.heads.rules`), and by the prior alone where nothing can be held out.

    Args:
        rows: training rows; of no rows the classifier is returned as it is.
        start: the classifier, from :meth:`StartedHead.untrained`.
        folds: that are held out in turn.
        called: what to call the classifier in notes.

    Returns:
        The head, its penalty as ``chosen["C"]``, and a note on what labels have added.

    Raises:
        HeadError: the features do not fit the classifier.
    """
    if not len(np.asarray(rows.y)):
        return Trained(start, {"C": 0.0}, notes=(f"head: {called}, no label",))
    x = np.asarray(as_rows(rows.x, n_features=start.n_features)[:])
    labels = as_labels(rows.y, len(x), rows.n_classes)
    together = keep_together(labels, x, keys=rows.keys, names=rows.names)
    before = start.started(x)
    share = 1 / fit_temperature(before, labels, few=True)
    preparation = shrunk_preparation(x)
    problem = _Problem(preparation(x), labels, share * before)
    divided = make_folds(labels, folds, seed=rows.seed, keys=together.keys, groups=rows.groups)
    tried = None if divided is None else _held_out(problem, divided)
    C = _penalty(x.shape[1]) if tried is None else tried.chosen
    weight, bias = problem.solve(np.arange(len(x)), C)
    head = replace(start, share=share, preparation=preparation, weight=weight, bias=bias)
    own = before.argmax(axis=1) == labels
    said = (
        f"head: begins as {called}, right without a label on"
        f" {format_percent(float(own.mean()))} of {count(len(labels), 'training item')}"
    )
    if tried is None:
        return Trained(head, {"C": C}, notes=(*together.notes, said))
    right = tried.outputs.argmax(axis=1) == labels[tried.rows]
    head = head.with_temperature(fit_temperature(tried.outputs, labels[tried.rows], few=True))
    said += (
        f"; labels take it from {format_percent(float(own[tried.rows].mean()))} to"
        f" {format_percent(float(right.mean()))} on items held out of the training split"
    )
    score = Score(float(right.mean()), proportion_interval(float(right.sum()), len(right)))
    held_out = None
    if len(tried.rows) == len(labels):  # every fold was held out
        held_out = np.empty_like(before)
        held_out[tried.rows] = softmax(tried.outputs / head.temperature, axis=1)
    return Trained(
        head,
        {"C": C},
        notes=(*together.notes, said),
        held_out=score,
        held_out_probabilities=held_out,
    )


@dataclass(frozen=True, eq=False)
class _Tried:
    """The penalty that held-out rows chose, those rows, and its outputs for them, ``(m, k)``."""

    chosen: float
    rows: np.ndarray
    outputs: FloatArray


def _penalty(d: int) -> float:
    """Return the C that is taken where nothing can be held out."""
    grid = grid_of(None, "prior", d)
    return float(grid[without_folds(grid, "prior", d)])


def _held_out(problem: _Problem, divided: Folds) -> _Tried:
    """Choose C by held-out log loss and prior; of a large problem one fold decides."""
    n, d = problem.x.shape
    grid = grid_of(None, "prior", d)
    splits = list(divided.splits())
    if n * d * problem.before.shape[1] > _MOST_WORK:
        splits = splits[:1]
    outputs = [problem.path(train, grid, held) for train, held in splits]
    rows = np.concatenate([held for _, held in splits])
    every = np.concatenate(outputs, axis=1)
    own = log_softmax(every, axis=2)[:, np.arange(len(rows)), problem.labels[rows]]
    at = int((surprise(grid, d) - own.mean(axis=1) * n).argmin())
    return _Tried(float(grid[at]), rows, every[at])


@dataclass(frozen=True, eq=False)
class _Problem:
    """Prepared rows ``(n, d)``, labels ``(n,)`` and the logits of the start ``(n, k)``."""

    x: FloatArray
    labels: np.ndarray
    before: FloatArray

    def path(self, train: np.ndarray, values: FloatArray, test: np.ndarray) -> FloatArray:
        """Return the outputs ``(c, m, k)`` for ``test`` of the head on ``train`` at every C."""
        found, at = [], None
        for C in values:
            at = self.solve(train, float(C), at)
            found.append(self.before[test] + self.x[test] @ at[0] + at[1])
        return np.stack(found)

    def solve(
        self,
        rows: np.ndarray,
        C: float,
        start: tuple[FloatArray, FloatArray] | None = None,
    ) -> tuple[FloatArray, FloatArray]:
        """Return weight ``(d, k)`` and bias ``(k,)`` at one penalty, from those of another."""
        from scipy.optimize import minimize

        x, before = self.x[rows], self.before[rows]
        k, d = before.shape[1], x.shape[1]
        wanted = np.eye(k)[self.labels[rows]]

        def objective(values: FloatArray) -> tuple[float, FloatArray]:
            weight, bias = values[:-k].reshape(d, k), values[-k:]
            logs = log_softmax(before + x @ weight + bias, axis=1)
            penalty = (weight**2).sum() / (2 * C) + (bias**2).sum() / 2
            excess = np.exp(logs) - wanted
            slope = np.concatenate([(x.T @ excess + weight / C).ravel(), excess.sum(0) + bias])
            return float(penalty - (wanted * logs).sum()), slope

        first = (
            np.zeros((d + 1) * k) if start is None else np.concatenate([start[0].ravel(), start[1]])
        )
        found = minimize(
            objective, first, jac=True, method="L-BFGS-B", options={"maxiter": _PASSES}
        )
        return found.x[:-k].reshape(d, k), found.x[-k:]


__all__ = ["StartedHead", "fit_started"]
