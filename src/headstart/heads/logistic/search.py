"""The search along the grid: levels from coarse to fine, and which penalties are given up.

All heads share each pass over the features; finished heads leave the batch. A new penalty starts
from the parameters of its solved neighbours *in the same fold*, interpolated in log C, so that
nothing about the held-out rows reaches a head that they judge. A penalty that the held-out rows
rule out early is dropped in all folds at once, and reported.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np
import torch
from torch import Tensor

from headstart.evaluation.targets import FloatArray
from headstart.heads.linear import LinearHead
from headstart.heads.logistic.engine import Engine, Solved
from headstart.heads.logistic.objective import Group
from headstart.heads.logistic.problem import Problem
from headstart.heads.logistic.rows import Precision, Rows

_COARSEST = 8  # at least this many penalties are solved from scratch
_NEIGHBOURS = 4  # a cubic through the four nearest solved penalties
# The passes after which held-out rows are looked at; from the first, penalties between two that
# were given up may go as well, from the second any.
_JUDGE_AT = (3, 6, 9, 12, 18, 27, 40, 60, 90, 135, 200)
_JUDGE_ALL_FROM = 6
_STANDARD_ERRORS = 3.0
_DECISION_ROWS = 1024


@dataclass(frozen=True)
class LogisticPath:
    """Every penalty of a grid in every fold.

    Attributes:
        grid: the values of C, ascending.
        accuracy: ``(folds, c)``, the fraction of held-out rows that are right.
        log_loss: ``(folds, c)``, their mean loss in nats.
        held_out: ``(folds,)``, the number of held-out rows, as often as they count.
        gradient: ``(folds, c)``, the largest gradient component at the end.
        passes: ``(folds, c)``, evaluations spent on each head.
        dropped: ``(c,) bool``, penalties given up because the held-out rows ruled them out; their
            scores are those at that moment.
        tolerance: what ``gradient`` had to fall below.
        precision: of the matrix products.
        device: where they were made.
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
    device: str
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
            rows = order[group.held_out & missing[order]]
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


def levels(count: int) -> list[np.ndarray]:
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
class Search:
    """The paths being solved; the engine's groups are the folds of each standardisation in turn."""

    problem: Problem
    engine: Engine
    values: FloatArray
    counts: np.ndarray
    kinds: int
    tolerance: float
    max_passes: int
    drop_hopeless: bool
    known: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        groups, c = len(self.engine.groups), len(self.values)
        shape, device = (self.engine.rows.width, self.engine.columns, c), self.engine.rows.device
        self.theta = [
            torch.zeros(shape, dtype=self.engine.dtype, device=device) for _ in range(groups)
        ]
        self.accuracy, self.log_loss = np.zeros((groups, c)), np.zeros((groups, c))
        self.gradient = np.full((groups, c), np.inf)
        self.passes = np.zeros((groups, c), dtype=np.int64)
        self.dropped = np.zeros((self.kinds, c), dtype=bool)

    def solve_level(self, level: np.ndarray, finished: Callable[[int], None]) -> None:
        """Solve the penalties at the positions ``level`` of the grid, in every group."""
        penalties = [
            torch.from_numpy(1.0 / (self.values[level] * group.total))
            for group in self.engine.groups
        ]
        self.last_seen: np.ndarray | None = None
        self.between_dropped = np.stack([self._between_dropped(k, level) for k in self._kinds()])
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
        """Bring the heads that bfloat16 left above the tolerance below it in float32."""
        late = np.stack([g.cpu().numpy() > self.tolerance for g in solved.gradient])
        short = np.asarray(self._by_kind(late & ~np.stack(solved.dropped)).any(axis=1))
        if not short.any():
            return
        # All folds of a standardisation, so that they end alike.
        columns = [torch.from_numpy(np.flatnonzero(short[kind])) for kind in self._kind_of_groups()]
        finer = replace(self.engine, precision="float32").solve(
            [penalty[chosen] for penalty, chosen in zip(penalties, columns, strict=True)],
            [theta[:, :, chosen] for theta, chosen in zip(solved.theta, columns, strict=True)],
            tolerance=self.tolerance,
            max_passes=self.max_passes,
        )
        for group, chosen in enumerate(columns):
            solved.theta[group][:, :, chosen] = finer.theta[group]
            solved.gradient[group][chosen] = finer.gradient[group]
            solved.passes[group][chosen.numpy()] += finer.passes[group]

    def results(self) -> tuple[LogisticPath, ...]:
        """Return the path of each standardisation."""
        # Device memory is released; predictions are made on the processor.
        rows = replace(self.engine.rows, packed=None)
        return tuple(
            LogisticPath(
                tuple(float(value) for value in self.values),
                self._by_kind(self.accuracy)[kind],
                self._by_kind(self.log_loss)[kind],
                self.counts,
                self._by_kind(self.gradient)[kind],
                self._by_kind(self.passes)[kind],
                self.dropped[kind],
                self.tolerance,
                self.engine.precision,
                str(rows.device),
                tuple(theta.cpu() for theta in self.theta[self._folds_of(kind)]),
                self.problem,
                rows,
                tuple(self.engine.groups[self._folds_of(kind)]),
            )
            for kind in self._kinds()
        )

    def _kinds(self) -> range:
        return range(self.kinds)

    def _folds_of(self, kind: int) -> slice:
        folds = len(self.counts)
        return slice(kind * folds, (kind + 1) * folds)

    def _kind_of_groups(self) -> np.ndarray:
        return np.repeat(np.arange(self.kinds), len(self.counts))

    def _by_kind(self, of_groups: np.ndarray) -> np.ndarray:
        """Divide ``(groups, c)`` into ``(kinds, folds, c)``."""
        return of_groups.reshape(self.kinds, len(self.counts), -1)

    def _start(self, fold: int, level: np.ndarray) -> Tensor:
        if not self.known:
            return self.theta[fold][:, :, torch.from_numpy(level)]
        position = np.log(self.values)
        matrix = np.zeros((len(self.known), len(level)))
        for column, at in enumerate(level):
            nearest = np.argsort(np.abs(position[self.known] - position[at]), kind="stable")
            nodes = nearest[:_NEIGHBOURS]
            matrix[nodes, column] = _lagrange(position[self.known][nodes], position[at])
        known = self.theta[fold][:, :, self.known]
        return known @ torch.from_numpy(matrix).to(known)

    def _store(self, level: np.ndarray, solved: Solved) -> None:
        accuracy, log_loss = self.engine.held_out(solved.theta)
        for fold, theta in enumerate(solved.theta):
            self.theta[fold][:, :, torch.from_numpy(level)] = theta
            self.gradient[fold, level] = solved.gradient[fold].cpu().numpy()
            self.passes[fold, level] = solved.passes[fold]
        self.accuracy[:, level], self.log_loss[:, level] = accuracy, log_loss
        # The judge gives up a penalty in all folds of a standardisation.
        self.dropped[:, level] = np.stack(solved.dropped)[:: len(self.counts)]
        self.known = sorted([*self.known, *level.tolist()])

    def _judge(self, count: int, thetas: list[Tensor]) -> np.ndarray:
        """Give up what is far below the best and has stopped catching up."""
        c = thetas[0].shape[2]
        if count and count not in _JUDGE_AT:
            return np.zeros((len(thetas), c), dtype=bool)
        n = self.counts.sum()
        seen = self.counts @ self._by_kind(self.engine.held_out(thetas)[0]) / n  # (kinds, c)
        before, self.last_seen = self.last_seen, seen
        solved = self.counts @ self._by_kind(self.accuracy[:, self.known]) / n
        best = np.concatenate([seen, solved], axis=1).max(axis=1, keepdims=True)
        # Of the difference of two proportions of n items, as if they were independent; on the
        # same items it is smaller.
        error = np.sqrt(2 * best * (1 - best) / n)
        gap = best - seen
        gain = np.zeros_like(seen) if before is None else seen - before
        hopeless = (gap > _STANDARD_ERRORS * error) & (gap > 4 * gain)
        may_go = self.between_dropped if count < _JUDGE_ALL_FROM else True
        given_up = hopeless & may_go & (count > 0)
        return np.repeat(given_up, len(self.counts), axis=0)

    def _between_dropped(self, kind: int, level: np.ndarray) -> np.ndarray:
        """Return which of ``level`` lie between two penalties that were given up."""
        known = np.array(self.known, dtype=np.int64)
        if not len(known):
            return np.zeros(len(level), dtype=bool)
        right = np.clip(np.searchsorted(known, level), 0, len(known) - 1)
        left = np.clip(right - 1, 0, len(known) - 1)
        dropped = self.dropped[kind]
        return np.asarray(dropped[known[left]] & dropped[known[right]])


def _lagrange(nodes: FloatArray, at: float) -> FloatArray:
    """Return the weights that interpolate values at ``nodes`` to ``at``."""
    weights = np.ones(len(nodes))
    for i, node in enumerate(nodes):
        others = np.delete(nodes, i)
        weights[i] = np.prod((at - others) / (node - others))
    return cast(FloatArray, weights)
