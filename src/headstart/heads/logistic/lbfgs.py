"""Preconditioned L-BFGS for many heads at once (Nocedal and Wright 2006, Algorithm 7.5).

Every head has its own step, its own line search and its own end; all heads of a group share the
evaluations, one pass over the features for each trial step. The initial inverse Hessian is a
preconditioner (see :mod:`~headstart.heads.logistic.curvature`), so that a step of 1 is nearly
always right and a pass is nearly always an iteration.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from headstart.heads.logistic.objective import Evaluated

Apply = Callable[[Tensor, Tensor], Tensor]
"""From ``(d + 1, k, c)`` and the heads ``(c,)`` to the preconditioned ``(d + 1, k, c)``."""

_MEMORY = 6
_OVERSHOOT = 0.5
# The state whose last axis runs over the heads.
_PER_HEAD = ("index", "penalty", "theta", "loss", "gradient", "direction", "slope", "step")


def head_dot(a: Tensor, b: Tensor) -> Tensor:
    """Return the inner product of each head, ``(d + 1, k, c) -> (c,)``."""
    return (a * b).sum(dim=(0, 1))


class Lbfgs:
    """The heads of one group that are still being solved.

    Alternate: evaluate at ``trial()``, then ``update``.

    Args:
        penalty: ``(c,)``, lambda.
        theta: ``(d + 1, k, c)``, where to start.
        loss_slack: the relative rise of the loss that is put down to rounding.

    Attributes:
        index: ``(c,) int64``, which head of the group each column is.
        theta: ``(d + 1, k, c)``, the best point so far.
        gradient: of the penalised objective at ``theta``.
        step: ``(c,)``, the step to be tried next; a tiny one means that rounding rules.
    """

    def __init__(self, penalty: Tensor, theta: Tensor, loss_slack: float) -> None:
        self.index = torch.arange(len(penalty), device=penalty.device)
        self.penalty = penalty
        self.theta = theta
        self.loss_slack = loss_slack
        self.loss = torch.full_like(penalty, torch.inf, dtype=torch.float64)
        self.gradient = torch.zeros_like(theta)
        self.direction = torch.zeros_like(theta)
        self.slope = torch.zeros_like(penalty)
        self.step = torch.zeros_like(penalty)
        self.pairs: list[tuple[Tensor, Tensor, Tensor]] = []

    def __len__(self) -> int:
        return len(self.index)

    def trial(self) -> Tensor:
        """Return the parameters to evaluate next; at first the start itself."""
        return torch.addcmul(self.theta, self.direction, self.step)

    def largest_gradient(self) -> Tensor:
        """Return the largest absolute gradient component of each head, ``(c,)``."""
        return self.gradient.abs().amax(dim=(0, 1))

    def update(self, evaluated: Evaluated, precondition: Apply) -> None:
        """Take in the evaluation of ``trial()``: accept or shorten each step, set the next."""
        trial = self.trial()
        gradient = evaluated.gradient
        gradient[:-1] += self.penalty * trial[:-1]
        squares = (trial[:-1] * trial[:-1]).sum(dim=(0, 1)).double()
        loss = evaluated.loss + 0.5 * self.penalty.double() * squares
        slope = head_dot(gradient, self.direction)
        # Along the line f is convex: the slope alone tells how far past the minimum a step went.
        # The loss is compared with slack for rounding, which near the end exceeds the decrease.
        accepted = (slope <= -_OVERSHOOT * self.slope) & (
            loss <= self.loss + self.loss_slack * self.loss.abs()
        )
        secant = self.slope / (self.slope - slope)  # where the slope vanishes if it is linear
        shorter = torch.where(slope > 0, secant, 0.5).clamp(0.05, 0.7) * self.step
        self._remember(gradient, accepted)
        self.theta = torch.where(accepted, trial, self.theta)
        self.gradient = torch.where(accepted, gradient, self.gradient)
        self.loss = torch.where(accepted, loss, self.loss)
        direction = -self._two_loop(precondition)
        self.direction = torch.where(accepted, direction, self.direction)
        self.slope = torch.where(accepted, head_dot(self.gradient, self.direction), self.slope)
        self.step = torch.where(accepted, torch.ones_like(shorter), shorter)

    def keep(self, which: Tensor) -> None:
        """Drop all heads but those at the positions ``which: (m,) int64``."""
        for name in _PER_HEAD:
            setattr(self, name, getattr(self, name)[..., which].contiguous())
        self.pairs = [(s[..., which], y[..., which], rho[which]) for s, y, rho in self.pairs]

    def _remember(self, gradient: Tensor, accepted: Tensor) -> None:
        if not self.step.any():
            return  # the first evaluation has no step behind it
        s = self.step * self.direction
        y = gradient - self.gradient
        curvature = head_dot(s, y)
        noise = torch.finfo(y.dtype).eps * (head_dot(s, s) * head_dot(y, y)).sqrt()
        # A pair of weight 0 is passed over by the two loops.
        useful = accepted & (curvature > noise)
        rho = torch.where(useful, 1.0 / curvature, 0.0)
        self.pairs.append((s, y, rho))
        del self.pairs[:-_MEMORY]

    def _two_loop(self, precondition: Apply) -> Tensor:
        q = self.gradient.clone()
        alphas = []
        for s, y, rho in reversed(self.pairs):
            alpha = rho * head_dot(s, q)
            q.addcmul_(y, alpha, value=-1)
            alphas.append(alpha)
        r = precondition(q, self.index)
        for (s, y, rho), alpha in zip(self.pairs, reversed(alphas), strict=True):
            r.addcmul_(s, alpha - rho * head_dot(y, r))
        return r
