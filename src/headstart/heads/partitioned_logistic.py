"""Logistic regression on rows in parts, for several penalties together.

A small head is found by Newton's method, whose Hessian is a merge like the gradient; large ones by
L-BFGS, one pass over the parts for a step of all penalties.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headstart.core.errors import HeadError
from headstart.evaluation.targets import FloatArray
from headstart.heads.linear import LinearHead
from headstart.heads.logistic.curvature import Curvature, GramBasis, class_curvature
from headstart.heads.logistic.lbfgs import Lbfgs
from headstart.heads.logistic.newton import (
    add_curvature,
    is_small,
    minimise,
    newton_step,
    settled,
)
from headstart.heads.logistic.objective import Evaluated, Link
from headstart.heads.merges import HERE, Curvatures, LossSums, Over, Probabilities, RowPart, merged
from headstart.heads.partitioned import Scaled, gram_of, scaled_over

_REFRESH_PASSES = (4, 12, 40)
_REFRESH_ROWS = 2048
_SLACK = 1e-13


@dataclass(frozen=True, eq=False)
class PartitionedLogistic:
    """Logistic regression at several values of C.

    Attributes:
        values: of C, ascending.
        heads: one each.
        gradients: the largest absolute component of the gradient of each.
        passes: how many times the rows were read for each.
    """

    values: tuple[float, ...]
    heads: tuple[LinearHead, ...]
    gradients: tuple[float, ...]
    passes: tuple[int, ...]


@dataclass(frozen=True)
class _Work:
    """What all passes share.

    Attributes:
        parts, over: the rows, and who reads them.
        scaled: their standardisation.
        penalty: ``(c,)``, lambda of each head.
    """

    parts: Sequence[RowPart]
    over: Over
    scaled: Scaled
    penalty: Tensor

    @property
    def columns(self) -> int:
        """Outputs of a head: one for two classes."""
        k = len(self.scaled.counts)
        return 1 if k == 2 else k

    @property
    def link(self) -> Link:
        """``sigmoid`` for two classes."""
        return "sigmoid" if self.columns == 1 else "softmax"

    def losses(self, theta: Tensor) -> Evaluated:
        """Return mean loss and gradient of heads ``(d + 1, k, c)``, without the penalty."""
        found = merged(self.over(partial(_losses, scaled=self.scaled, theta=theta), self.parts))
        return Evaluated(found.loss / self.scaled.total, found.gradient / self.scaled.total)


def logistic_over(
    parts: Sequence[RowPart],
    n_classes: int,
    *,
    grid: Sequence[float] = (1.0,),
    standardise: bool = True,
    tolerance: float = 1e-6,
    max_passes: int = 300,
    over: Over = HERE,
) -> PartitionedLogistic:
    """Fit :func:`~headstart.heads.fit_logistic` at every C of a grid.

    Args:
        parts: of the rows.
        n_classes: the number of classes.
        grid: values of C.
        standardise: scale each feature to unit deviation first.
        tolerance: for the largest absolute component of each gradient.
        max_passes: a head that is not there by then is left where it is; ``gradients`` say it.
        over: applies a function to every part.

    Raises:
        HeadError: the input is invalid.
    """
    values = np.unique(np.asarray(grid, dtype=np.float64))
    if not (len(values) and np.isfinite(values).all() and values.min() > 0):
        raise HeadError("expected a grid of finite values of C above 0")
    scaled = scaled_over(parts, n_classes, over, standardise)
    work = _Work(parts, over, scaled, torch.from_numpy(1.0 / (values * scaled.total)))
    small = is_small(int(scaled.total), len(scaled.mean) + 1, work.columns)
    solve = _by_newton if small else _together
    theta, gradients, passes = solve(work, tolerance, max_passes)
    heads = tuple(_head(theta[..., i].numpy(), scaled) for i in range(len(values)))
    return PartitionedLogistic(tuple(values.tolist()), heads, tuple(gradients), tuple(passes))


def _by_newton(
    work: _Work, tolerance: float, max_passes: int
) -> tuple[Tensor, list[float], list[int]]:
    """Solve one head after the other, each from where the one before it ended."""
    width = len(work.scaled.mean) + 1
    theta = torch.zeros((width, work.columns), dtype=torch.float64)
    absent = torch.from_numpy(~work.scaled.present)[: work.columns]
    found, gradients, passes = [], [], []
    for penalty in work.penalty.tolist():

        def objective(at: Tensor, penalty: float = penalty) -> tuple[float, Tensor]:
            one = work.losses(at[:, :, None])
            gradient = one.gradient[:, :, 0]
            gradient[:-1] += penalty * at[:-1]
            return float(one.loss) + 0.5 * penalty * float((at[:-1] ** 2).sum()), gradient

        def step(at: Tensor, gradient: Tensor, penalty: float = penalty) -> Tensor:
            add = partial(_curvatures, scaled=work.scaled, theta=at, link=work.link)
            total = merged(work.over(add, work.parts)).hessian / work.scaled.total
            return newton_step(settled(total, penalty, work.link, absent), gradient)

        theta, gradient, spent = minimise(
            objective, step, theta, tolerance=tolerance, max_passes=max_passes
        )
        found.append(theta)
        gradients.append(gradient)
        passes.append(spent)
    return torch.stack(found, dim=-1), gradients, passes


def _together(
    work: _Work, tolerance: float, max_passes: int
) -> tuple[Tensor, list[float], list[int]]:
    """Solve all heads by the same passes."""
    gram = merged(work.over(partial(gram_of, scaled=work.scaled), work.parts)).gram
    values, vectors = np.linalg.eigh(gram / work.scaled.total)
    basis = GramBasis(torch.from_numpy(vectors), torch.from_numpy(np.maximum(values, 0.0)), 0.0)
    width, c = len(work.scaled.mean) + 1, len(work.penalty)
    theta = torch.zeros((width, work.columns, c), dtype=torch.float64)
    state, curvature = Lbfgs(work.penalty, theta.clone(), _SLACK), _model(work, basis, theta)
    gradients, passes = np.full(c, np.inf), np.zeros(c, np.int64)
    for count in range(1, max_passes + 1):
        state.update(work.losses(state.trial()), curvature)
        largest, index = state.largest_gradient(), state.index.numpy()
        theta[..., state.index], gradients[index], passes[index] = state.theta, largest, count
        state.keep(torch.nonzero(largest > tolerance).flatten())
        if not len(state):
            break
        if count in _REFRESH_PASSES:
            curvature = _model(work, basis, theta)
    return theta, gradients.tolist(), passes.tolist()


def _model(work: _Work, basis: GramBasis, theta: Tensor) -> Curvature:
    """Return the model of the Hessian at some parameters, from a few rows of every part."""
    step = max(1, int(work.scaled.total) // _REFRESH_ROWS)
    ask = partial(_probabilities, scaled=work.scaled, theta=theta, step=step)
    rows = torch.cat(merged(work.over(ask, work.parts)).rows)
    return Curvature(basis, *class_curvature(rows, work.link), work.penalty)


def _logits(
    part: RowPart, scaled: Scaled, theta: Tensor, step: int = 1
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield standardised rows ``(m, d)``, labels ``(m,)`` and logits ``(m, k, c)`` of a part."""
    k, c = theta.shape[1], theta.shape[2]
    absent = torch.from_numpy(~scaled.present)
    flat = theta.reshape(len(theta), k * c)
    for x, y in part.blocks():
        z, labels = torch.from_numpy(scaled(x[::step])), torch.from_numpy(y[::step])
        logits = torch.addmm(flat[-1], z, flat[:-1]).view(len(labels), k, c)
        if k > 1:
            logits = logits.masked_fill(absent[:, None], -1e30)
        yield z, labels, logits


def _losses(part: RowPart, scaled: Scaled, theta: Tensor) -> LossSums:
    """Return loss and gradient of heads ``theta: (d + 1, k, c)`` on the rows of a part."""
    k, c = theta.shape[1], theta.shape[2]
    total = LossSums(torch.zeros(c, dtype=torch.float64), torch.zeros_like(theta))
    for z, labels, logits in _logits(part, scaled, theta):
        if k == 1:
            target = labels.double()[:, None, None]
            losses = torch.nn.functional.softplus(logits) - target * logits
            residual = torch.sigmoid(logits) - target
        else:
            log_p = torch.log_softmax(logits, dim=1)
            own = labels[:, None, None].expand(-1, 1, c)
            losses = -log_p.gather(1, own)
            residual = log_p.exp()
            residual.scatter_add_(1, own, -torch.ones_like(losses))
        flat = residual.reshape(len(labels), k * c)
        total.loss += losses.sum(dim=(0, 1))
        total.gradient[:-1] += (z.T @ flat).view(-1, k, c)
        total.gradient[-1] += flat.sum(dim=0).view(k, c)
    return total


def _curvatures(part: RowPart, scaled: Scaled, theta: Tensor, link: Link) -> Curvatures:
    """Return the second derivatives of one head ``theta: (d + 1, k)`` on the rows of a part."""
    width, k = theta.shape
    total = Curvatures(torch.zeros((k, width, k, width), dtype=torch.float64))
    for z, _, logits in _logits(part, scaled, theta[:, :, None]):
        own = torch.cat([z, torch.ones((len(z), 1), dtype=torch.float64)], dim=1)
        flat = logits[:, :, 0]
        p = torch.softmax(flat, dim=1) if link == "softmax" else flat.sigmoid()
        add_curvature(total.hessian, own, p, None, link)
    return total


def _probabilities(part: RowPart, scaled: Scaled, theta: Tensor, step: int) -> Probabilities:
    found = [
        logits.sigmoid() if theta.shape[1] == 1 else torch.softmax(logits, dim=1)
        for _, _, logits in _logits(part, scaled, theta, step)
    ]
    return Probabilities(found)


def _head(theta: Any, scaled: Scaled) -> LinearHead:
    weight: FloatArray = theta[:-1]
    bias: FloatArray = theta[-1]
    if theta.shape[1] == 1:  # one sigmoid column z is a softmax over (-z / 2, z / 2)
        weight = np.concatenate([-weight / 2, weight / 2], axis=1)
        bias = np.concatenate([-bias / 2, bias / 2])
    present = scaled.present
    return LinearHead(
        np.where(present, weight, 0.0),
        np.where(present, bias, 0.0),
        scaled.mean,
        scaled.scale,
        present,
    )


__all__ = ["PartitionedLogistic", "logistic_over"]
