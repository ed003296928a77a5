"""One multinomial logistic regression, in double precision, to a certified gradient."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from headstart.core.errors import HeadError
from headstart.heads.linear import LinearHead
from headstart.heads.logistic.curvature import gram_basis
from headstart.heads.logistic.device import choose_device
from headstart.heads.logistic.engine import Engine
from headstart.heads.logistic.newton import is_small, solve_newton
from headstart.heads.logistic.objective import Group, block_rows
from headstart.heads.logistic.problem import CPU, Problem, make_problem
from headstart.heads.logistic.rows import Precision, Rows, block_bounds

_SINGLE_FLOOR = 2e-6


@dataclass(frozen=True)
class Convergence:
    """How far a solver came.

    Attributes:
        gradient: the largest absolute component of the gradient of the objective (mean loss plus
            penalty) with respect to the weights of standardised features.
        tolerance: what it had to fall below.
        passes: how many times the features were read.
    """

    gradient: float
    tolerance: float
    passes: int

    @property
    def reached(self) -> bool:
        """Whether the tolerance was met."""
        return self.gradient <= self.tolerance


def fit_logistic(
    x: object,
    y: object,
    n_classes: int,
    *,
    C: float = 1.0,
    standardise: bool = True,
    class_weight: str | np.ndarray | None = None,
    task: str = "classification",
    sample_weight: object = None,
    tolerance: float = 1e-6,
    max_passes: int = 1000,
    start: Tensor | None = None,
    order: np.ndarray | None = None,
    device: str = "cpu",
) -> tuple[LinearHead, Convergence]:
    """Fit logistic regression: scikit-learn's objective ``C sum_i w_i loss_i + |W|^2 / 2``.

    Two classes are solved as one sigmoid column, as scikit-learn does; more by softmax. A
    small head is found by Newton's method, a large one by L-BFGS; the certificate is computed in
    double precision.

    Args:
        x: features ``(n, d)``. What lies on disk and exceeds 0.4 of the free memory (a mapped
            array, rows of a feature store, :class:`~headstart.heads.StreamedFeatures`) is read in
            blocks.
        y: ``(n,)`` class indices in ``[0, n_classes)``; or ``(n, n_classes)`` soft labels whose
            rows sum to 1, or for several labels an item memberships in [0, 1].
        n_classes: the number of classes, whether or not all occur.
        C: inverse strength of the penalty.
        standardise: scale each feature to unit deviation first; the penalty acts on the scaled
            weights. (Features are always centred, which changes only the intercept.)
        class_weight: ``"balanced"``, one weight per class, or None; for class indices. For several
            labels ``"balanced"`` weighs the presence and the absence of each label alike.
        task: ``classification`` or ``multi-label``.
        sample_weight: ``(n,)``, how often each row counts, above 0; None: once. A weight of 2 is
            the row twice.
        tolerance: for the largest absolute component of the gradient. scikit-learn's default is
            1e-4; 1e-6 costs a few more passes and makes the head reproducible.
        max_passes: give up after so many evaluations; the certificate says how far it came.
        start: parameters ``(d + 1, k)`` to begin from, as :class:`LogisticPath` gives them.
        order: ``(n,) int64``, in which rows are summed up; None: as they lie.
        device: where the products are made: ``cpu`` (the default: everybody has one), ``cuda``,
            or ``auto``, which takes CUDA for five million numbers or more. Small heads stay on
            the processor.

    Returns:
        The head, and the certificate of its convergence.

    Raises:
        HeadError: if the input is invalid, or fewer than two classes occur.
    """
    if not (np.isfinite(C) and C > 0):
        raise HeadError(f"expected C above 0, found {C}")
    problem = make_problem(
        x,
        y,
        n_classes,
        standardise=standardise,
        class_weight=class_weight,
        task=task,
        sample_weight=sample_weight,
    )
    place = choose_device(device, problem.x.shape)
    n, shape = len(problem.x), (problem.x.shape[1] + 1, problem.columns)
    small = is_small(n, *shape)
    rows = problem.rows(np.arange(n) if order is None else order, CPU if small else place)
    group = problem.everything(rows)
    bounds = block_bounds(np.array([0, n]), block_rows(problem.columns, rows.device))
    penalty = 1.0 / (C * group.total)
    if start is None:
        start = torch.zeros(shape, device=rows.device)
    theta = start.reshape(shape).to(rows.device)
    if small:
        theta, gradient, passes = solve_newton(
            rows,
            group,
            bounds,
            problem.link,
            penalty,
            theta,
            tolerance=tolerance,
            max_passes=max_passes,
        )
    else:
        theta, gradient, passes = _solve_large(
            rows, group, bounds, problem, penalty, theta, tolerance, max_passes
        )
    head = problem.head(rows, group, theta)
    return head, Convergence(gradient, tolerance, passes)


def _solve_large(
    rows: Rows,
    group: Group,
    bounds: list[tuple[int, int]],
    problem: Problem,
    penalty: float,
    theta: Tensor,
    tolerance: float,
    max_passes: int,
) -> tuple[Tensor, float, int]:
    """Return parameters, largest gradient component and passes of L-BFGS.

    Single precision brings the head to where its own rounding begins to show, at half the cost
    of a pass; double precision does what the tolerance asks beyond that, and always certifies.
    """
    basis = gram_basis(rows, group, bounds)
    penalties = [torch.tensor([penalty], dtype=torch.float64, device=rows.device)]
    spent, gradient = 0, float("inf")
    phases: list[tuple[Precision, float]] = [
        ("float32", max(0.8 * tolerance, _SINGLE_FLOOR)),
        ("float64", tolerance),
    ]
    for precision, goal in phases:
        engine = Engine(rows, [group], bounds, [basis], problem.columns, problem.link, precision)
        solved = engine.solve(
            penalties,
            [theta[:, :, None]],
            tolerance=goal,
            max_passes=max(1, max_passes - spent),
        )
        theta = solved.theta[0][:, :, 0].double()
        gradient = float(solved.gradient[0][0])
        spent += int(solved.passes[0][0])
    return theta, gradient, spent
