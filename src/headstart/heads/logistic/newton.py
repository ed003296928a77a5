"""Newton's method for one small head, whose whole Hessian fits in memory.

Where the classes are separable and the penalty weak, the objective is so flat that first-order
methods need hundreds of passes; Newton's method needs ten or twenty.

With fewer rows than features the data bend the objective in the span of the rows alone; across it
only the penalty does, the same in every direction. The step is then solved for in coordinates of
that span, which costs ``n^3`` instead of ``d^3`` and gives the same step.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from headstart.heads.logistic.curvature import gather
from headstart.heads.logistic.objective import Group, Link, evaluate
from headstart.heads.logistic.rows import Rows

_ARMIJO = 1e-4
_HALVINGS = 40
_MOST_PARAMETERS = 1500
_MOST_WORK = 4e10  # multiplications for one Hessian: about a second
_FEW_ROWS = 0.5  # with so many rows a feature, or fewer, the span of the rows is worth its making


def is_small(n: int, width: int, columns: int) -> bool:
    """Return whether Newton's method is the faster one for ``n`` rows of ``width`` numbers."""
    pairs = columns * (columns + 1) // 2
    return width * columns <= _MOST_PARAMETERS and n * width**2 * pairs <= _MOST_WORK


def solve_newton(
    rows: Rows,
    group: Group,
    bounds: list[tuple[int, int]],
    link: Link,
    penalty: float,
    start: Tensor,
    *,
    tolerance: float,
    max_passes: int,
) -> tuple[Tensor, float, int]:
    """Minimise the objective of one head in double precision.

    Args:
        rows, group, bounds, link: as for :func:`~.objective.evaluate`.
        penalty: lambda.
        start: ``(d + 1, k)``.
        tolerance: for the largest absolute component of the gradient.
        max_passes: at most so many evaluations.

    Returns:
        ``(d + 1, k)``, the largest gradient component there, and the passes spent.
    """

    def objective(theta: Tensor) -> tuple[float, Tensor]:
        found = evaluate(
            rows, [group], [theta[:, :, None]], bounds, link=link, precision="float64"
        )[0]
        gradient = found.gradient[:, :, 0]
        gradient[:-1] += penalty * theta[:-1]
        return float(found.loss) + 0.5 * penalty * float((theta[:-1] ** 2).sum()), gradient

    span = _row_span(rows, group)

    def step(theta: Tensor, gradient: Tensor) -> Tensor:
        hessian = _hessian(rows, group, bounds, link, penalty, theta, span)
        if span is None:
            return newton_step(hessian, gradient)
        weights, intercept = gradient[:-1], gradient[-1:]
        inside = span.T @ weights
        found = newton_step(hessian, torch.cat([inside, intercept]))
        across = (weights - span @ inside) / penalty
        return torch.cat([span @ found[:-1] - across, found[-1:]])

    return minimise(objective, step, start, tolerance=tolerance, max_passes=max_passes)


def _row_span(rows: Rows, group: Group) -> Tensor | None:
    """Return an orthonormal basis ``(d, n)`` of standardised rows; None where they are many."""
    if rows.n > _FEW_ROWS * rows.width:
        return None
    basis: Tensor = torch.linalg.qr(gather(rows, group, np.arange(rows.n)).T).Q
    return basis


def minimise(
    objective: Callable[[Tensor], tuple[float, Tensor]],
    step: Callable[[Tensor, Tensor], Tensor],
    start: Tensor,
    *,
    tolerance: float,
    max_passes: int,
) -> tuple[Tensor, float, int]:
    """Minimise a convex function of ``(d + 1, k)`` parameters.

    Args:
        objective: its value and gradient, one pass over the rows.
        step: from parameters and gradient to Newton's step, as :func:`newton_step` solves for it.
        start, tolerance, max_passes: as for :func:`solve_newton`.

    Returns:
        As :func:`solve_newton`.
    """
    theta = start.double().clone()
    loss, gradient = objective(theta)
    passes = 1
    while float(gradient.abs().max()) > tolerance and passes < max_passes:
        direction = step(theta, gradient)
        slope, size = float((gradient * direction).sum()), 1.0
        for _ in range(_HALVINGS):
            trial = theta + size * direction
            new_loss, new_gradient = objective(trial)
            passes += 1
            if new_loss <= loss + _ARMIJO * size * slope + 1e-15 * abs(loss):
                break
            size *= 0.5
        else:
            break  # rounding rules: no decrease can be seen
        smaller = float(new_gradient.abs().max()) < 0.5 * float(gradient.abs().max())
        if new_loss >= loss and not smaller:
            break
        theta, loss, gradient = trial, new_loss, new_gradient
    return theta, float(gradient.abs().max()), passes


def newton_step(hessian: Tensor, gradient: Tensor) -> Tensor:
    """Return Newton's step ``(d + 1, k)``.

    Args:
        hessian: ``(k (d + 1), k (d + 1))``, classes outermost.
        gradient: ``(d + 1, k)``.
    """
    found: Tensor = -torch.linalg.solve(hessian, gradient.T.flatten())
    return found.view(gradient.T.shape).T


def _hessian(
    rows: Rows,
    group: Group,
    bounds: list[tuple[int, int]],
    link: Link,
    penalty: float,
    theta: Tensor,
    span: Tensor | None,
) -> Tensor:
    """Return ``(k (d + 1), k (d + 1))``, classes outermost; ``d`` is the width of the span."""
    k = theta.shape[1]
    width = len(theta) if span is None else span.shape[1] + 1
    hessian = torch.zeros(k, width, k, width, dtype=torch.float64)
    inverse, shift = torch.from_numpy(1.0 / group.scale), torch.from_numpy(group.shift)
    absent = torch.from_numpy(group.absent)
    for start, stop, z in rows.standardised(bounds, torch.float64):
        z = (z - shift) * inverse
        own = torch.ones(stop - start, width, dtype=torch.float64)
        own[:, :-1] = z if span is None else z @ span
        weight = torch.from_numpy(group.weight[start:stop])
        logits = z @ theta[:-1] + theta[-1]
        if link == "softmax":
            logits[:, absent[:k]] = -1e30
            p = torch.softmax(logits, dim=1)
            labels = None
        else:
            p = logits.sigmoid()
            targets = rows.targets
            labels = None if targets is None else rows.label_weights(targets[start:stop].double())
        add_curvature(hessian, own, p, weight, link, labels)
    return settled(hessian / group.total, penalty, link, absent)


def add_curvature(
    hessian: Tensor,
    own: Tensor,
    p: Tensor,
    weight: Tensor | None,
    link: Link,
    labels: Tensor | None = None,
) -> None:
    """Add the second derivatives of the loss of some rows to ``(k, d + 1, k, d + 1)``.

    Args:
        hessian: to be added to; below its diagonal nothing is.
        own: ``(m, d + 1)``, standardised rows and a column of ones.
        p: ``(m, k)``, their probabilities.
        weight: ``(m,)``; None: 1.
        link: ``softmax`` or ``sigmoid``.
        labels: ``(m, k)``, what each label of a row weighs; None: 1.
    """
    k = p.shape[1]
    for a in range(k):
        for b in range(a, k) if link == "softmax" else (a,):
            curvature = p[:, a] * ((1.0 if a == b else 0.0) - p[:, b])
            if weight is not None:
                curvature = weight * curvature
            if labels is not None:
                curvature = labels[:, a] * curvature
            hessian[a, :, b] += own.T @ (own * curvature[:, None])


def settled(hessian: Tensor, penalty: float, link: Link, absent: Tensor) -> Tensor:
    """Return the Hessian of the penalised mean loss as a matrix ``(k (d + 1), k (d + 1))``.

    Args:
        hessian: of the mean loss, ``(k, d + 1, k, d + 1)``, its upper half.
        penalty: lambda.
        link: ``softmax`` or ``sigmoid``.
        absent: ``(k,) bool``, the classes without rows.
    """
    k, width = hessian.shape[:2]
    for a in range(k):
        for b in range(a):
            hessian[a, :, b] = hessian[b, :, a].T
    flat = hessian.reshape(k * width, k * width)
    diagonal = flat.diagonal().view(k, width)
    diagonal[:, :-1] += penalty
    intercepts = torch.arange(k) * width + width - 1
    if link == "softmax":
        # A shift common to all intercepts changes nothing, nor does that of an absent class:
        # any curvature there makes the system regular and leaves the step zero.
        flat[intercepts[:, None], intercepts] += 1.0 / k
        diagonal[absent[:k], -1] += 1.0
    return flat
