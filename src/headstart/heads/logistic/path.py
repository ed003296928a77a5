"""A whole grid of penalties in every fold, solved together.

All heads share each pass over the features; finished heads leave the batch. The grid is refined
from coarse to fine: a new penalty starts from the parameters of its solved neighbours *in the same
fold*, interpolated in log C, so that nothing of the held-out rows reaches a head that they judge.
A penalty that the held-out rows rule out early is dropped in all folds at once, and said to be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, cast

import numpy as np
import torch
from torch import Tensor

from headstart.errors import HeadError
from headstart.heads.checks import FloatArray
from headstart.heads.linear import LinearHead
from headstart.heads.logistic.engine import Engine, Solved, gram_bases
from headstart.heads.logistic.objective import Group, block_rows
from headstart.heads.logistic.problem import Problem, make_problem
from headstart.heads.logistic.rows import Precision, Rows, block_bounds, fastest_precision
from headstart.progress import Reporter, SilentReporter

DINO_GRID: tuple[float, ...] = tuple(float(c) for c in 10.0 ** np.linspace(-6, 5, 45))
"""The 45 values of C of DINOv2's linear evaluation, 1e-6 to 1e5."""

_COARSEST = 8  # at least so many penalties are solved from nothing
_NEIGHBOURS = 4  # a cubic through the four nearest solved penalties
# The passes after which held-out rows are looked at; from the first, penalties between two that
# were given up may go as well, from the second any.
_JUDGE_AT = (3, 6, 9, 12, 18, 27, 40, 60, 90, 135, 200)
_JUDGE_ALL_FROM = 6
_STANDARD_ERRORS = 3.0
_DECISION_ROWS = 1024
# The solver keeps about so many vectors of the parameters' size for each head.
_VECTORS = 24
_MEMORY_SHARE, _LEAST_MEMORY = 0.3, 64e6


@dataclass(frozen=True)
class LogisticPath:
    """Every penalty of a grid in every fold.

    Attributes:
        grid: the values of C, ascending.
        accuracy: ``(folds, c)``, the fraction of held-out rows that are right.
        log_loss: ``(folds, c)``, their mean loss in nats.
        held_out: ``(folds,)``, the number of held-out rows.
        gradient: ``(folds, c)``, the largest gradient component at the end.
        passes: ``(folds, c)``, evaluations spent on each head.
        dropped: ``(c,) bool``, penalties given up because the held-out rows ruled them out; their
            scores are those at that moment.
        tolerance: what ``gradient`` had to fall below.
        precision: of the matrix products.
        thetas: ``(d + 1, k, c)`` a fold, the parameters in the fold's own standardisation.
    """

    grid: tuple[float, ...]
    accuracy: FloatArray
    log_loss: FloatArray
    held_out: np.ndarray
    gradient: FloatArray
    passes: np.ndarray
    dropped: np.ndarray
    tolerance: float
    precision: Precision
    thetas: tuple[Tensor, ...]
    _problem: Problem
    _rows: Rows
    _groups: tuple[Group, ...]

    def start(self, at: int) -> Tensor:
        """Return the mean over folds of the parameters of ``grid[at]``: a start for a refit."""
        return torch.stack([theta[:, :, at].double() for theta in self.thetas]).mean(0)

    def head(self, fold: int, at: int) -> LinearHead:
        """Return the head that held ``fold`` out, at ``grid[at]``."""
        return self._problem.head(
            self._rows, self._groups[fold], self.thetas[fold][:, :, at].double()
        )

    def held_out_decision(self, at: int) -> FloatArray:
        """Return the logits of each row by the head that held it out, ``(n, k) float64``.

        Where folds were repeated, the first repetition answers.
        """
        order = self._rows.order
        logits = np.empty((len(order), self._problem.n_classes))
        missing = np.ones(len(order), dtype=bool)
        for fold, group in enumerate(self._groups):
            rows = order[(group.weight == 0) & missing[order]]
            head = self.head(fold, at)
            for start in range(0, len(rows), _DECISION_ROWS):
                block = rows[start : start + _DECISION_ROWS]
                logits[block] = head.decision(self._problem.x[block])
            missing[rows] = False
        return logits

    @property
    def mean_accuracy(self) -> FloatArray:
        """``(c,)``: over all held-out rows of all folds."""
        return np.asarray(self.held_out @ self.accuracy / self.held_out.sum())

    @property
    def mean_log_loss(self) -> FloatArray:
        """``(c,)``: over all held-out rows of all folds."""
        return np.asarray(self.held_out @ self.log_loss / self.held_out.sum())


def fit_logistic_path(
    x: object,
    y: object,
    n_classes: int,
    folds: np.ndarray,
    *,
    grid: Sequence[float] | np.ndarray = DINO_GRID,
    standardise: bool = True,
    class_weight: str | np.ndarray | None = None,
    multi_label: bool = False,
    tolerance: float = 1e-4,
    max_passes: int = 300,
    drop_hopeless: bool = True,
    precision: Precision | Literal["auto"] = "auto",
    reporter: Reporter | None = None,
) -> LogisticPath:
    """Solve every C of ``grid`` with every fold held out in turn.

    Each fold is standardised by its own training rows.

    Args:
        x, y, n_classes, standardise, class_weight, multi_label: as for ``fit_logistic``.
        folds: ``(n,) int``, the fold that holds each row out, ``0 .. f - 1``; or ``(r, n)``,
            several divisions, whose folds are all solved together.
        grid: the values of C, in any order.
        tolerance: for the largest gradient component of each problem; 1e-4 is scikit-learn's
            own default.
        max_passes: a limit for each level of refinement.
        drop_hopeless: give up penalties that are clearly beaten and not catching up.
        precision: of the matrix products; sums are kept in float32 or better. ``auto`` takes
            bfloat16 for 10,000 rows or more on a processor that multiplies it natively (several
            times faster; with so many rows its rounding averages out), float32 otherwise.
        reporter: is told how many heads are done.

    Raises:
        HeadError: if the input is unfit.
    """
    problem = make_problem(
        x,
        y,
        n_classes,
        standardise=standardise,
        class_weight=class_weight,
        multi_label=multi_label,
    )
    values = np.unique(np.asarray(grid, dtype=np.float64))
    if not (len(values) and np.isfinite(values).all() and values.min() > 0):
        raise HeadError("expected a grid of finite values of C above 0")
    repeated = _check_folds(folds, len(problem.x))
    # In this order most blocks lie wholly inside or outside a fold of the first division.
    order = np.argsort(repeated[0], kind="stable")
    rows = problem.rows(order)
    groups = [
        problem.all_but(rows, division[order] == fold)
        for division in repeated
        for fold in range(int(division.max()) + 1)
    ]
    counts = np.concatenate([np.bincount(division) for division in repeated])
    edges = np.concatenate([[0], np.cumsum(np.bincount(repeated[0]))])
    bounds = block_bounds(edges, block_rows(problem.columns * len(values)))
    bases = gram_bases(rows, groups, bounds)
    if precision == "auto":
        precision = fastest_precision(rows.n)
    if precision == "bfloat16":
        rows = rows.pack()
    engine = Engine(rows, groups, bounds, bases, problem.columns, problem.link, precision)
    at_once = _columns_at_once(rows, len(groups) * problem.columns)
    search = _Search(problem, engine, values, counts, tolerance, max_passes, drop_hopeless)
    with (reporter or SilentReporter()).task(
        "linear heads", len(values) * len(groups), "heads"
    ) as progress:
        for level in _levels(len(values)):
            for part in np.array_split(level, -(-len(level) // at_once)):
                search.solve_level(part, progress.advance)
    return search.result()


def _check_folds(folds: np.ndarray, n: int) -> np.ndarray:
    repeated = np.atleast_2d(np.asarray(folds))
    fits = repeated.ndim == 2 and repeated.shape[1] == n and repeated.dtype.kind in "iu"
    for division in repeated if fits else ():
        counts = np.bincount(division) if division.min() >= 0 else np.zeros(1)
        fits = fits and len(counts) >= 2 and counts.min() > 0
    if not fits:
        raise HeadError(
            f"expected a fold number for each of {n:,} rows, in two folds or more, none of them"
            " empty"
        )
    return repeated


def _columns_at_once(rows: Rows, outputs: int) -> int:
    """Return how many penalties may be solved together, so that memory stays below twice x."""
    budget = max(_LEAST_MEMORY, _MEMORY_SHARE * rows.x.nbytes)
    return max(1, int(budget // (_VECTORS * 4 * rows.width * outputs)))


def _levels(count: int) -> list[np.ndarray]:
    """Return the positions of the grid to solve at each level, from coarse to fine."""
    stride = 1
    while (count - 1) // (2 * stride) + 1 >= _COARSEST:
        stride *= 2
    coarse = np.arange(0, count, stride)
    if coarse[-1] != count - 1:
        coarse = np.append(coarse, count - 1)
    levels, solved = [coarse], set(coarse.tolist())
    while stride > 1:
        stride //= 2
        level = [i for i in range(0, count, stride) if i not in solved]
        levels.append(np.array(level, dtype=np.int64))
        solved.update(level)
    return [level for level in levels if len(level)]


@dataclass
class _Search:
    problem: Problem
    engine: Engine
    values: FloatArray
    counts: np.ndarray
    tolerance: float
    max_passes: int
    drop_hopeless: bool
    known: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        folds, c = len(self.engine.groups), len(self.values)
        shape = (self.engine.rows.width, self.engine.columns, c)
        self.theta = [torch.zeros(shape, dtype=self.engine.dtype) for _ in range(folds)]
        self.accuracy, self.log_loss = np.zeros((folds, c)), np.zeros((folds, c))
        self.gradient = np.full((folds, c), np.inf)
        self.passes = np.zeros((folds, c), dtype=np.int64)
        self.dropped = np.zeros(c, dtype=bool)

    def solve_level(self, level: np.ndarray, finished: Callable[[int], None]) -> None:
        penalties = [
            torch.from_numpy(1.0 / (self.values[level] * group.total))
            for group in self.engine.groups
        ]
        self.last_seen: np.ndarray | None = None
        self.between_dropped = self._between_dropped(level)
        solved = self.engine.solve(
            penalties,
            [self._start(fold, level) for fold in range(len(self.theta))],
            tolerance=self.tolerance,
            max_passes=self.max_passes,
            judge=self._judge if self.drop_hopeless else None,
            finished=finished,
        )
        if self.engine.precision == "bfloat16":
            self._finish_in_single(penalties, solved)
        self._store(level, solved)

    def _finish_in_single(self, penalties: list[Tensor], solved: Solved) -> None:
        """Take the heads that bfloat16 could not bring to the tolerance there in float32."""
        short = np.any([g.numpy() > self.tolerance for g in solved.gradient], axis=0)
        columns = torch.from_numpy(np.flatnonzero(short & ~solved.dropped))
        if not len(columns):
            return
        finer = replace(self.engine, precision="float32").solve(
            [penalty[columns] for penalty in penalties],
            [theta[:, :, columns] for theta in solved.theta],
            tolerance=self.tolerance,
            max_passes=self.max_passes,
        )
        for group, theta in enumerate(finer.theta):
            solved.theta[group][:, :, columns] = theta
            solved.gradient[group][columns] = finer.gradient[group]
            solved.passes[group][columns.numpy()] += finer.passes[group]

    def result(self) -> LogisticPath:
        return LogisticPath(
            tuple(float(value) for value in self.values),
            self.accuracy,
            self.log_loss,
            self.counts,
            self.gradient,
            self.passes,
            self.dropped,
            self.tolerance,
            self.engine.precision,
            tuple(self.theta),
            self.problem,
            replace(self.engine.rows, packed=None),
            tuple(self.engine.groups),
        )

    def _start(self, fold: int, level: np.ndarray) -> Tensor:
        if not self.known:
            return self.theta[fold][:, :, level]
        position = np.log(self.values)
        matrix = np.zeros((len(self.known), len(level)))
        for column, at in enumerate(level):
            nearest = np.argsort(np.abs(position[self.known] - position[at]), kind="stable")
            nodes = nearest[:_NEIGHBOURS]
            matrix[nodes, column] = _lagrange(position[self.known][nodes], position[at])
        known = self.theta[fold][:, :, self.known]
        return known @ torch.from_numpy(matrix).to(known.dtype)

    def _store(self, level: np.ndarray, solved: Solved) -> None:
        accuracy, log_loss = self.engine.held_out(solved.theta)
        for fold, theta in enumerate(solved.theta):
            self.theta[fold][:, :, level] = theta
            self.gradient[fold, level] = solved.gradient[fold].numpy()
            self.passes[fold, level] = solved.passes[fold]
        self.accuracy[:, level], self.log_loss[:, level] = accuracy, log_loss
        self.dropped[level] = solved.dropped
        self.known = sorted([*self.known, *level.tolist()])

    def _judge(self, count: int, thetas: list[Tensor]) -> np.ndarray:
        """Give up what is far below the best and has stopped catching up."""
        c = thetas[0].shape[2]
        if count and count not in _JUDGE_AT:
            return np.zeros(c, dtype=bool)
        n = self.counts.sum()
        seen = self.counts @ self.engine.held_out(thetas)[0] / n
        before, self.last_seen = self.last_seen, seen
        best = max([seen.max(), *(self.counts @ self.accuracy[:, self.known] / n)])
        # Of the difference of two proportions of n items, as if they were independent; on the
        # same items it is smaller.
        error = np.sqrt(2 * best * (1 - best) / n)
        gap = best - seen
        gain = np.zeros(c) if before is None else seen - before
        hopeless = (gap > _STANDARD_ERRORS * error) & (gap > 4 * gain)
        may_go = self.between_dropped if count < _JUDGE_ALL_FROM else True
        return np.asarray(hopeless & may_go & (count > 0))

    def _between_dropped(self, level: np.ndarray) -> np.ndarray:
        """Return which of ``level`` lie between two penalties that were given up."""
        known = np.array(self.known, dtype=np.int64)
        if not len(known):
            return np.zeros(len(level), dtype=bool)
        right = np.clip(np.searchsorted(known, level), 0, len(known) - 1)
        left = np.clip(right - 1, 0, len(known) - 1)
        return np.asarray(self.dropped[known[left]] & self.dropped[known[right]])


def _lagrange(nodes: FloatArray, at: float) -> FloatArray:
    """Return the weights that interpolate values at ``nodes`` to ``at``."""
    weights = np.ones(len(nodes))
    for i, node in enumerate(nodes):
        others = np.delete(nodes, i)
        weights[i] = np.prod((at - others) / (node - others))
    return cast(FloatArray, weights)
