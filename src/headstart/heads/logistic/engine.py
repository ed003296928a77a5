"""Drives L-BFGS for several groups of heads, all fed by the same passes over the features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from headstart.evaluation.targets import FloatArray
from headstart.heads.logistic.curvature import (
    Curvature,
    GramBasis,
    class_curvature,
    gather,
    gram_basis,
)
from headstart.heads.logistic.lbfgs import Lbfgs
from headstart.heads.logistic.objective import Group, Link, evaluate, held_out_sums
from headstart.heads.logistic.rows import Precision, Rows

# The class curvature is measured again once the heads have taken shape, on so many rows.
_REFRESH_PASSES = (4, 12)
_REFRESH_ROWS = 2048
# With so many rows per feature, all folds have nearly the same Gram matrix: one basis serves all.
_SHARED_BASIS_RATIO = 8
_SMALLEST_STEP = 1e-6
# A head whose gradient has not shrunk by a tenth in so many passes has met its rounding.
_PATIENCE: dict[Precision, int] = {"float64": 200, "float32": 60, "bfloat16": 15}

Judge = Callable[[int, list[Tensor]], np.ndarray]
"""From the pass and the parameters of every group to the heads ``(groups, c) bool`` to give up."""


@dataclass
class Solved:
    """Where the heads of each group ended.

    Attributes:
        theta: ``(d + 1, k, c)`` a group.
        gradient: ``(c,)`` a group, the largest absolute component.
        passes: ``(c,)`` a group, evaluations spent.
        dropped: ``(c,) bool`` a group, heads given up by the judge.
    """

    theta: list[Tensor]
    gradient: list[Tensor]
    passes: list[np.ndarray]
    dropped: list[np.ndarray]


class _Patience:
    """Counts, for each head, the passes since its gradient last shrank by a tenth."""

    def __init__(self, limit: int, penalties: Sequence[Tensor]) -> None:
        self.limit = limit
        self.best = [torch.full_like(one, torch.inf, dtype=torch.float64) for one in penalties]
        self.stale = [torch.zeros_like(one, dtype=torch.int64) for one in penalties]

    def still_shrinking(self, group: int, index: Tensor, largest: Tensor) -> Tensor:
        best, stale = self.best[group], self.stale[group]
        shrank = largest.double() < 0.9 * best[index]
        best[index] = torch.where(shrank, largest.double(), best[index])
        stale[index] = torch.where(shrank, 0, stale[index] + 1)
        return stale[index] < self.limit


@dataclass(frozen=True)
class Engine:
    """Rows and groups ready to be solved.

    Attributes:
        rows, groups, link, precision: as for :func:`~.objective.evaluate`.
        bounds: the blocks to read.
        bases: one Gram basis a group.
        columns: ``k``, the outputs of each head.
    """

    rows: Rows
    groups: Sequence[Group]
    bounds: list[tuple[int, int]]
    bases: Sequence[GramBasis]
    columns: int
    link: Link
    precision: Precision

    @property
    def dtype(self) -> torch.dtype:
        """The type of the parameters."""
        return torch.float64 if self.precision == "float64" else torch.float32

    def solve(
        self,
        penalties: Sequence[Tensor],
        starts: Sequence[Tensor],
        *,
        tolerance: float,
        max_passes: int,
        judge: Judge | None = None,
        finished: Callable[[int], None] | None = None,
    ) -> Solved:
        """Minimise from ``starts`` until each head's largest gradient component is small.

        Args:
            penalties: lambda of each head, ``(c,)`` a group.
            starts: ``(d + 1, k, c)`` a group.
            tolerance: for the largest absolute gradient component.
            max_passes: a head that is not there by then, or whose gradient has stopped shrinking
                before, is left where it is.
            judge: may give up heads.
            finished: called with the number of heads that have just left.
        """
        penalties = [penalty.to(self.rows.device) for penalty in penalties]
        starts = [start.to(self.rows.device) for start in starts]
        states = [
            Lbfgs(penalty.to(self.dtype), start.to(self.dtype), _LOSS_SLACK[self.precision])
            for penalty, start in zip(penalties, starts, strict=True)
        ]
        curvatures = self._curvatures(penalties, starts)
        patience = _Patience(_PATIENCE[self.precision], penalties)
        solved = Solved(
            [start.to(self.dtype).clone() for start in starts],
            [torch.full_like(penalty, torch.inf, dtype=torch.float32) for penalty in penalties],
            [np.zeros(len(penalty), dtype=np.int64) for penalty in penalties],
            [np.zeros(len(penalty), dtype=bool) for penalty in penalties],
        )
        if judge is not None:
            judge(0, solved.theta)
        for count in range(1, max_passes + 1):
            found = evaluate(
                self.rows,
                self.groups,
                [state.trial() for state in states],
                self.bounds,
                link=self.link,
                precision=self.precision,
            )
            for state, evaluated, curvature in zip(states, found, curvatures, strict=True):
                if len(state):
                    state.update(evaluated, curvature)
            self._record(states, solved, tolerance, patience, finished)
            if judge is not None and any(len(state) for state in states):
                self._drop(states, solved, judge(count, solved.theta), finished)
            if not any(len(state) for state in states):
                break
            if count in _REFRESH_PASSES:
                curvatures = self._curvatures(penalties, solved.theta)
        return solved

    def held_out(self, thetas: Sequence[Tensor]) -> tuple[np.ndarray, np.ndarray]:
        """Return accuracy and mean loss on the held-out rows, each ``(groups, c) float64``."""
        found = held_out_sums(
            self.rows,
            self.groups,
            thetas,
            self.bounds,
            link=self.link,
            precision=self.precision,
        )
        counts = [float(group.judging.sum()) for group in self.groups]
        accuracy = [(one[0] / n).cpu().numpy() for one, n in zip(found, counts, strict=True)]
        loss = [(one[1] / n).cpu().numpy() for one, n in zip(found, counts, strict=True)]
        return np.stack(accuracy), np.stack(loss)

    def _record(
        self,
        states: list[Lbfgs],
        solved: Solved,
        tolerance: float,
        patience: _Patience,
        finished: Callable[[int], None] | None,
    ) -> None:
        for g, state in enumerate(states):
            if not len(state):
                continue
            index = state.index
            largest = state.largest_gradient()
            solved.theta[g][:, :, index] = state.theta
            solved.gradient[g][index] = largest.float()
            solved.passes[g][index.cpu().numpy()] += 1
            going = (largest > tolerance) & (state.step > _SMALLEST_STEP)
            going &= patience.still_shrinking(g, index, largest)
            if finished is not None:
                finished(int((~going).sum()))
            if not going.all():
                state.keep(torch.nonzero(going)[:, 0])

    def _drop(
        self,
        states: list[Lbfgs],
        solved: Solved,
        given_up: np.ndarray,
        finished: Callable[[int], None] | None,
    ) -> None:
        if not given_up.any():
            return
        for g, state in enumerate(states):
            solved.dropped[g] |= given_up[g]
            stays = ~torch.from_numpy(given_up[g]).to(state.index.device)[state.index]
            if finished is not None:
                finished(int((~stays).sum()))
            if len(state):
                state.keep(torch.nonzero(stays)[:, 0])

    def _curvatures(self, penalties: Sequence[Tensor], at: Sequence[Tensor]) -> list[Curvature]:
        return [
            Curvature(basis, *self._class_curvature(group, theta), penalty)
            for group, basis, theta, penalty in zip(
                self.groups, self.bases, at, penalties, strict=True
            )
        ]

    def _class_curvature(self, group: Group, theta: Tensor) -> tuple[Tensor | None, Tensor]:
        members = np.flatnonzero(group.weight)
        members = members[:: -(-len(members) // _REFRESH_ROWS)]
        z = gather(self.rows, group, members).to(theta.dtype)
        logits = (z @ theta[:-1].flatten(1)).view(len(z), *theta.shape[1:]) + theta[-1]
        if self.link == "sigmoid":
            targets = self.rows.targets
            labels = None if targets is None else self.rows.label_weights(targets[members])
            return class_curvature(logits.sigmoid(), "sigmoid", labels)
        if group.absent.any():
            logits[:, torch.from_numpy(group.absent).to(logits.device)] = -1e30
        return class_curvature(torch.softmax(logits, dim=1), "softmax")


_LOSS_SLACK = {"float64": 1e-14, "float32": 1e-5, "bfloat16": 1e-3}


def gram_bases(
    rows: Rows, groups: Sequence[Group], bounds: list[tuple[int, int]], scale: FloatArray
) -> list[GramBasis]:
    """Return one basis per group, shared between all where their rows hardly differ.

    Args:
        rows, groups, bounds: as for the :class:`Engine`; the groups have one standardisation.
        scale: ``(d,)``, about that of the groups, on top of that of the rows.
    """
    if len(groups) > 1 and rows.n >= _SHARED_BASIS_RATIO * rows.width:
        weight = np.sum([group.weight for group in groups], axis=0)
        nothing = np.zeros(len(weight), dtype=bool)
        everything = Group(weight, nothing, np.zeros_like(scale), scale, groups[0].absent)
        return [gram_basis(rows, everything, bounds)] * len(groups)
    return [gram_basis(rows, group, bounds) for group in groups]
