"""A whole grid of penalties in every fold, solved together.

Here the rows, the folds and the standardisations become groups of heads; ``search`` solves them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from headstart.core.errors import HeadError
from headstart.core.progress import Reporter, SilentReporter
from headstart.heads.logistic.device import choose_device, memory_limit
from headstart.heads.logistic.engine import Engine, gram_bases
from headstart.heads.logistic.objective import block_rows
from headstart.heads.logistic.problem import make_problem
from headstart.heads.logistic.rows import Precision, Rows, fastest_precision, plan_reading
from headstart.heads.logistic.search import LogisticPath, Search, levels
from headstart.heads.source import StreamedFeatures

DINO_GRID: tuple[float, ...] = tuple(float(c) for c in 10.0 ** np.linspace(-6, 5, 45))
"""The 45 values of C of DINOv2's linear evaluation, 1e-6 to 1e5."""

# The solver keeps about this many vectors of the parameters' size for each head.
_VECTORS = 24
_MEMORY_SHARE, _LEAST_MEMORY = 0.3, 64e6


def fit_logistic_path(
    x: object,
    y: object,
    n_classes: int,
    folds: np.ndarray,
    *,
    grid: Sequence[float] | np.ndarray = DINO_GRID,
    standardise: bool = True,
    class_weight: str | np.ndarray | None = None,
    task: str = "classification",
    sample_weight: object = None,
    tolerance: float = 1e-4,
    max_passes: int = 300,
    drop_hopeless: bool = True,
    order: np.ndarray | None = None,
    precision: Precision | Literal["auto"] = "auto",
    device: str = "cpu",
    reporter: Reporter | None = None,
) -> LogisticPath:
    """Solve every C of ``grid`` with every fold held out in turn.

    Each fold is standardised by its own training rows.

    Args:
        x, y, n_classes, standardise, class_weight, task, sample_weight, device: as for
            ``fit_logistic``.
        folds: ``(n,) int``, the fold that holds each row out, ``0 .. f - 1``; or ``(r, n)``,
            several divisions, whose folds are all solved together.
        grid: the values of C, in any order.
        tolerance: for the largest gradient component of each problem; 1e-4 is scikit-learn's
            own default.
        max_passes: a limit for each level of refinement.
        drop_hopeless: give up penalties that are clearly beaten and not catching up.
        order: ``(n,) int64``, in which rows of a fold are summed up; None: as they lie. In the
            order of their content, rounding does not depend on how they were ordered.
        precision: of the matrix products; sums are kept in float32 or better. ``auto`` takes
            bfloat16 for 10,000 rows or more on a processor that multiplies it natively (several
            times faster; with so many rows its rounding averages out), float32 otherwise.
        reporter: receives the number of heads that are done.

    Raises:
        HeadError: if the input is invalid.
    """
    return fit_logistic_paths(
        x,
        y,
        n_classes,
        folds,
        grid=grid,
        standardise=(standardise,),
        class_weight=class_weight,
        task=task,
        sample_weight=sample_weight,
        tolerance=tolerance,
        max_passes=max_passes,
        drop_hopeless=drop_hopeless,
        order=order,
        precision=precision,
        device=device,
        reporter=reporter,
    )[0]


def fit_logistic_paths(
    x: object,
    y: object,
    n_classes: int,
    folds: np.ndarray,
    *,
    grid: Sequence[float] | np.ndarray = DINO_GRID,
    standardise: Sequence[bool] = (True, False),
    class_weight: str | np.ndarray | None = None,
    task: str = "classification",
    sample_weight: object = None,
    tolerance: float = 1e-4,
    max_passes: int = 300,
    drop_hopeless: bool = True,
    order: np.ndarray | None = None,
    precision: Precision | Literal["auto"] = "auto",
    device: str = "cpu",
    reporter: Reporter | None = None,
) -> tuple[LogisticPath, ...]:
    """Solve a path for each standardisation, all of them by the same passes over the features.

    Args:
        standardise: whether features are scaled to unit deviation, for each path.
        x, y, n_classes, folds, grid, class_weight, task, sample_weight, tolerance, max_passes,
            drop_hopeless, order, precision, device, reporter: as for :func:`fit_logistic_path`.

    Raises:
        HeadError: if the input is invalid.
    """
    problem = make_problem(
        x,
        y,
        n_classes,
        standardise=any(standardise),
        class_weight=class_weight,
        task=task,
        sample_weight=sample_weight,
    )
    place = choose_device(device, problem.x.shape)
    values = np.unique(np.asarray(grid, dtype=np.float64))
    if not (len(values) and np.isfinite(values).all() and values.min() > 0):
        raise HeadError("expected a grid of finite values of C above 0")
    repeated = _check_folds(folds, len(problem.x))
    if problem.labels is not None:
        _refuse_one_class(problem.labels, repeated)
    size = block_rows(problem.columns * len(values), place)
    reading = plan_reading(problem.x, repeated[0], size, order)
    bounds = reading.bounds
    rows = problem.rows(reading.order, place, reading.chunk)
    by_fold = [
        problem.all_but_in_each(rows, division[rows.order] == fold, standardise)
        for division in repeated
        for fold in range(int(division.max()) + 1)
    ]
    # The folds of one standardisation are adjacent.
    kinds = [list(groups) for groups in zip(*by_fold, strict=True)]
    groups = [group for kind in kinds for group in kind]
    counts = np.concatenate([np.bincount(division, problem.counts) for division in repeated])
    # Of features that are left unscaled, the scale undoes that of the rows.
    scales = [np.ones_like(rows.scale) if scaled else 1.0 / rows.scale for scaled in standardise]
    bases = [
        basis
        for kind, scale in zip(kinds, scales, strict=True)
        for basis in gram_bases(rows, kind, bounds, scale)
    ]
    if precision == "auto":
        precision = fastest_precision(rows.n, place)
    rows = _with_copy(rows, precision)
    engine = Engine(rows, groups, bounds, bases, problem.columns, problem.link, precision)
    at_once = _columns_at_once(rows, len(groups) * problem.columns)
    search = Search(
        problem, engine, values, counts, len(kinds), tolerance, max_passes, drop_hopeless
    )
    with (reporter or SilentReporter()).task(
        "linear heads", len(values) * len(groups), "heads"
    ) as progress:
        for level in levels(len(values)):
            for part in np.array_split(level, -(-len(level) // at_once)):
                search.solve_level(part, progress.advance)
    return search.results()


def _with_copy(rows: Rows, precision: Precision) -> Rows:
    """Return the rows with a copy for the products, where that helps and fits."""
    on_disk, on_device = isinstance(rows.x, StreamedFeatures), rows.device.type != "cpu"
    if precision == "float64" or (precision == "float32" and not on_device):
        return rows
    nbytes = rows.n * rows.width * (2 if precision == "bfloat16" else 4)
    if (on_disk or on_device) and nbytes > memory_limit(rows.device):
        return rows
    return rows.pack(precision)


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


def _refuse_one_class(labels: np.ndarray, folds: np.ndarray) -> None:
    for division in folds:
        for fold in range(int(division.max()) + 1):
            present = np.unique(labels[division != fold])
            if len(present) < 2:
                raise HeadError(
                    "expected two classes or more to train on outside every fold, found only"
                    f" class {present[0]} when fold {fold} is held out",
                    hint="if groups are held out together, every class needs two groups or more",
                )


def _columns_at_once(rows: Rows, outputs: int) -> int:
    """Return how many penalties may be solved together, so that memory stays below twice x."""
    size = rows.x.nbytes
    if isinstance(rows.x, StreamedFeatures) or rows.device.type != "cpu":
        size = min(size, memory_limit(rows.device))
    budget = max(_LEAST_MEMORY, _MEMORY_SHARE * size)
    return max(1, int(budget // (_VECTORS * 4 * rows.width * outputs)))
