"""Heads of the registry on rows in parts, which need not be in one place.

They are those of :mod:`headstart.heads.partitioned` and its sibling, with the choices that heads
make beside: the penalty, and the temperature of the probabilities. Near copies are not looked for:
that compares rows of all parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from headstart.core.division import Folds, make_folds
from headstart.evaluation.targets import FloatArray, IntArray
from headstart.heads.calibration import calibration_rows, fit_temperature
from headstart.heads.contract import Trained, TrainingRows
from headstart.heads.linear import LinearHead
from headstart.heads.logistic import Convergence
from headstart.heads.logistic.search import levels
from headstart.heads.merges import LeftOut, Logits, Reduction, RowPart, merged
from headstart.heads.partitioned import lda_over, ridge_over
from headstart.heads.partitioned_logistic import logistic_over
from headstart.heads.ridge import RIDGE_GRID, ridge_curve
from headstart.heads.rules import choose_penalty, curve_of, grid_of, held_out_of, without_folds

if TYPE_CHECKING:
    from headstart.heads.options import LDAOptions, LinearOptions, RidgeOptions

_STANDARD_ERRORS = 3.0
_PATH_TOLERANCE, _CHOSEN_TOLERANCE, _GIVEN_TOLERANCE = 1e-4, 1e-5, 1e-6
_ABSENT = -1e30
NO_COPIES = (
    "near copies among the rows are not searched for, because the rows are in separate parts"
)


def reduce_lda(rows: TrainingRows, options: LDAOptions, reduction: Reduction) -> Trained:
    """Train ``lda`` on rows in parts.

    Raises:
        HeadError: the rows are invalid.
    """
    given = None if options.shrinkage == "auto" else float(options.shrinkage)
    head, used = lda_over(
        _all(rows, reduction),
        rows.n_classes,
        shrinkage=given,
        standardise=options.standardise,
        over=reduction.over,
    )
    return Trained(head, {"shrinkage": used})


def reduce_ridge(rows: TrainingRows, options: RidgeOptions, reduction: Reduction) -> Trained:
    """Train ``ridge`` on rows in parts; each row is left out alone.

    Raises:
        HeadError: the rows are invalid.
    """
    given = options.alpha != "auto"
    grid = RIDGE_GRID if options.alphas is None else options.alphas
    path = ridge_over(
        _all(rows, reduction),
        rows.n_classes,
        alphas=(cast(float, options.alpha),) if given else grid,
        standardise=options.standardise,
        over=reduction.over,
    )
    if given:
        return Trained(path.head)
    curve = ridge_curve(path.alphas, path.error, path.chosen)
    return Trained(path.head, {"alpha": path.alphas[path.chosen]}, (curve,), (NO_COPIES,))


def reduce_linear(rows: TrainingRows, options: LinearOptions, reduction: Reduction) -> Trained:
    """Train ``linear`` on rows in parts; its penalty is chosen in folds of the same parts.

    Raises:
        HeadError: the rows are invalid.
    """
    chosen: _Choice | None = None
    if options.C == "auto":
        chosen = _Choice.of(rows, options, reduction)
    value = float(chosen.value if chosen is not None else options.C)
    default = _GIVEN_TOLERANCE if chosen is None else _CHOSEN_TOLERANCE
    tolerance = default if options.tolerance is None else options.tolerance
    found = logistic_over(
        _all(rows, reduction),
        rows.n_classes,
        grid=(value,),
        standardise=options.standardise,
        tolerance=tolerance,
        over=reduction.over,
    )
    (head,) = found.heads
    convergence = Convergence(found.gradients[0], tolerance, found.passes[0])
    if chosen is None:
        return Trained(head, convergence=convergence)
    return chosen.trained(head, convergence, options)


def _all(rows: TrainingRows, reduction: Reduction) -> Sequence[RowPart]:
    return reduction.divide(np.arange(len(rows.y)))  # type: ignore[arg-type]


# -- the penalty of logistic regression ------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Tried:
    """What held-out rows say of each value of C; see :class:`~headstart.heads.rules.Tried`."""

    grid: tuple[float, ...]
    accuracy: FloatArray
    log_loss: FloatArray
    held_out: FloatArray
    dropped: NDArray[np.bool_]

    @property
    def mean_accuracy(self) -> FloatArray:
        """``(c,)``."""
        return np.asarray(self.held_out @ self.accuracy / self.held_out.sum())

    @property
    def mean_log_loss(self) -> FloatArray:
        """``(c,)``."""
        return np.asarray(self.held_out @ self.log_loss / self.held_out.sum())


@dataclass(frozen=True, eq=False)
class _Choice:
    """The value of C that was chosen, and what goes with it.

    Attributes:
        value: of C.
        at: its position.
        tried: all of them; None: nothing could be held out.
        temperature: of the probabilities.
        probabilities: ``(n, k)``, of held-out rows; None: too many to keep.
        notes: what was decided.
    """

    value: float
    at: int
    tried: _Tried | None
    temperature: float = 1.0
    probabilities: FloatArray | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, rows: TrainingRows, options: LinearOptions, reduction: Reduction) -> _Choice:
        """Choose by held-out rows, as :func:`~headstart.heads.choose_linear` does."""
        labels = np.asarray(rows.y, dtype=np.int64)
        d = int(rows.x.shape[1])  # type: ignore[attr-defined]
        values = grid_of(options.grid, options.rule, d)
        divided = make_folds(
            labels,
            options.folds,
            seed=rows.seed,
            keys=rows.keys,
            groups=rows.groups,
            names=rows.names,
        )
        if divided is None:
            at = without_folds(values, options.rule, d)
            said = f"C = {values[at]:g} without cross-validation: nothing can be held out"
            return cls(float(values[at]), at, None, notes=(said,))
        folds = _Folds(rows, options, reduction, divided)
        tried = folds.tried(values)
        at = choose_penalty(tried, options.rule, d)
        temperature, probabilities = folds.calibrated(float(values[at]), labels)
        notes = (*divided.notes, NO_COPIES)
        return cls(float(values[at]), at, tried, temperature, probabilities, notes)

    def trained(
        self, head: LinearHead, convergence: Convergence, options: LinearOptions
    ) -> Trained:
        """Return the head of this value with what is known of it."""
        notes = self.notes
        if not convergence.reached:
            notes = (
                *notes,
                f"the refit stopped at a gradient of {convergence.gradient:.1e}, above the"
                f" tolerance of {convergence.tolerance:g}",
            )
        return Trained(
            head.with_temperature(self.temperature),
            {"C": self.value},
            (curve_of(self.tried, self.at),),
            notes,
            convergence,
            None if self.tried is None else held_out_of(self.tried, self.at, "classification"),
            self.probabilities,
            {"folds": 0 if self.tried is None else options.folds, "reduced": True},
        )


class _Folds:
    """The parts of each fold, and the heads that did not see them."""

    def __init__(
        self, rows: TrainingRows, options: LinearOptions, reduction: Reduction, divided: Folds
    ) -> None:
        self._k, self._options, self._reduction = rows.n_classes, options, reduction
        self._of = divided.of
        self._parts = [
            list(reduction.divide(np.flatnonzero(divided.of == fold)))
            for fold in range(divided.count)
        ]

    def _heads(self, fold: int, grid: Sequence[float]) -> tuple[LinearHead, ...]:
        """Return the heads that hold a fold out, one for each value."""
        others = [part for at, parts in enumerate(self._parts) if at != fold for part in parts]
        return logistic_over(
            others,
            self._k,
            grid=grid,
            standardise=self._options.standardise,
            tolerance=_PATH_TOLERANCE,
            over=self._reduction.over,
        ).heads

    def tried(self, values: FloatArray) -> _Tried:
        """Score the values from coarse to fine; none is tried between two that are hopeless."""
        folds, c = len(self._parts), len(values)
        accuracy, loss = np.zeros((folds, c)), np.full((folds, c), np.inf)
        held_out = np.bincount(self._of, minlength=folds).astype(np.float64)
        known = np.zeros(c, dtype=bool)
        for level in levels(c):
            right, n = held_out @ accuracy, float(held_out.sum())
            mine = [int(i) for i in level if not _hopeless(int(i), known, right, n)]
            if not mine:
                continue
            for fold, parts in enumerate(self._parts):
                score = partial(_scores, heads=self._heads(fold, values[mine].tolist()))
                found = merged(self._reduction.over(score, parts))
                accuracy[fold, mine] = found.right / held_out[fold]
                loss[fold, mine] = found.error / held_out[fold]
            known[mine] = True
        return _Tried(tuple(values.tolist()), accuracy, loss, held_out, ~known)

    def calibrated(self, value: float, labels: IntArray) -> tuple[float, FloatArray | None]:
        """Return the temperature of held-out rows, and their probabilities where they are all."""
        some = calibration_rows(len(labels), self._k)
        logits = np.empty((len(some), self._k))
        for fold in range(len(self._parts)):
            (head,) = self._heads(fold, (value,))
            mine = np.flatnonzero(self._of[some] == fold)
            if len(mine):
                parts = self._reduction.divide(some[mine])
                found = merged(self._reduction.over(partial(_logits, head=head), parts))
                logits[mine] = np.concatenate(found.logits)
        own = logits[np.arange(len(some)), labels[some]]
        few = self._options.rule == "prior"
        usable = bool(np.isfinite(own).any())
        temperature = fit_temperature(logits, labels[some], few=few) if usable else 1.0
        if len(some) < len(labels):
            return temperature, None
        z = logits / temperature
        p = np.exp(z - z.max(axis=1, keepdims=True))
        return temperature, p / p.sum(axis=1, keepdims=True)


def _hopeless(at: int, known: np.ndarray, right: FloatArray, n: float) -> bool:
    """Whether a value lies between two that are far below the best of those that are known.

    Args:
        at: the position of the value.
        known: ``(c,) bool``, values that were tried.
        right: ``(c,)``, how many held-out rows they get right.
        n: held-out rows.
    """
    left, beyond = np.flatnonzero(known[:at]), np.flatnonzero(known[at + 1 :]) + at + 1
    if not len(left) or not len(beyond):
        return False
    best = float(right[known].max()) / n
    least = n * (best - _STANDARD_ERRORS * np.sqrt(2 * best * (1 - best) / n))
    return bool(right[left[-1]] < least and right[beyond[0]] < least)


def _scores(part: RowPart, heads: Sequence[LinearHead]) -> LeftOut:
    """Return how many rows of a part each head gets right, and the sum of their log losses."""
    total = LeftOut(np.zeros(len(heads)), np.zeros(len(heads)))
    for x, y in part.blocks():
        for at, head in enumerate(heads):
            z = np.maximum(head.decision(x), _ABSENT)
            top = z.max(axis=1)
            loss = np.log(np.exp(z - top[:, None]).sum(axis=1)) + top - z[np.arange(len(y)), y]
            total.add(at, float(loss.sum()), float((z.argmax(axis=1) == y).sum()))
    return total


def _logits(part: RowPart, head: LinearHead) -> Logits:
    found = [(head.decision(x), y) for x, y in part.blocks()]
    return Logits([one for one, _ in found], [y for _, y in found])


__all__ = ["NO_COPIES", "reduce_lda", "reduce_linear", "reduce_ridge"]
