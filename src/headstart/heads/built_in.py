"""The built-in heads: how each is trained from :class:`TrainingRows`, and their entries.

The numerical code lies in the modules that the functions import when they are called.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from headstart.core.records import Curve
from headstart.heads.contract import HeadKind, SweepRequest, Trained, TrainingRows, Trial
from headstart.heads.options import (
    AutoOptions,
    LDAOptions,
    LinearOptions,
    MLPOptions,
    NeighboursOptions,
    RidgeOptions,
    TabICLOptions,
)

if TYPE_CHECKING:
    import numpy as np

    from headstart.heads.merges import Reduction


def _fit_auto(rows: TrainingRows, options: AutoOptions) -> Trained:
    from headstart.heads.chooser import choose_head

    return choose_head(rows, options)


def _fit_linear(rows: TrainingRows, options: LinearOptions) -> Trained:
    from headstart.heads.logistic import fit_logistic
    from headstart.heads.penalty import choose_linear

    common: dict[str, Any] = {
        "class_weight": options.class_weight,
        "standardise": options.standardise,
        "device": options.device,
        "sample_weight": rows.weights,
    }
    if options.tolerance is not None:
        common["tolerance"] = options.tolerance
    if options.C != "auto":
        head, convergence = fit_logistic(
            rows.x,
            rows.y,
            rows.n_classes,
            C=float(options.C),
            task=rows.task,
            **common,
        )
        return Trained(head, convergence=convergence)
    return choose_linear(
        rows.x,
        rows.y,
        rows.n_classes,
        seed=rows.seed,
        folds=options.folds,
        grid=options.grid,
        rule=options.rule,
        keys=rows.keys,
        groups=rows.groups,
        task=rows.task,
        names=rows.names,
        reporter=rows.reporter,
        **common,
    )


def _solve_linear(
    rows: TrainingRows, request: SweepRequest
) -> tuple[Sequence[Trial], Sequence[Curve]]:
    from headstart.heads.penalty import sweep_linear

    return sweep_linear(rows, request)


def _fit_ridge(rows: TrainingRows, options: RidgeOptions) -> Trained:
    from headstart.heads.ridge import RIDGE_GRID, fit_ridge, ridge_curve

    given = options.alpha != "auto"
    grid = RIDGE_GRID if options.alphas is None else options.alphas
    path = fit_ridge(
        rows.x,
        rows.y,
        rows.n_classes,
        alphas=(cast(float, options.alpha),) if given else grid,
        task=rows.task,
        standardise=options.standardise,
        class_weight=cast("str | np.ndarray | None", options.class_weight),
        sample_weight=rows.weights,
        keys=rows.keys,
        groups=rows.groups,
    )
    held_out = None
    if rows.task == "multi-label" and path.left_out is not None:
        from scipy.special import expit

        held_out = expit(path.left_out / path.head.temperature)
    if given:
        return Trained(path.head, held_out_probabilities=held_out)
    chosen = {"alpha": path.alphas[path.chosen]}
    curves = (ridge_curve(path.alphas, path.error, path.chosen),)
    return Trained(path.head, chosen, curves, path.notes, held_out_probabilities=held_out)


def _fit_lda(rows: TrainingRows, options: LDAOptions) -> Trained:
    from headstart.heads.lda import fit_lda

    given = None if options.shrinkage == "auto" else float(options.shrinkage)
    head, used = fit_lda(
        rows.x,
        rows.y,
        rows.n_classes,
        shrinkage=given,
        standardise=options.standardise,
        sample_weight=rows.weights,
    )
    return Trained(head, {"shrinkage": used})


def _fit_neighbours(rows: TrainingRows, options: NeighboursOptions) -> Trained:
    from headstart.heads.neighbours import fit_neighbours

    settings = dataclasses.asdict(options)
    return Trained(
        fit_neighbours(rows.x, rows.y, rows.n_classes, sample_weight=rows.weights, **settings)
    )


def _try_neighbours(n: int) -> list[Mapping[str, Any]]:
    return [{"k": k} for k in (1, 5, 20) if k <= n // 2]


def _fit_prototype(rows: TrainingRows, options: object) -> Trained:  # noqa: ARG001
    from headstart.heads.neighbours import fit_prototype

    return Trained(
        fit_prototype(
            rows.x,
            rows.y,
            rows.n_classes,
            sample_weight=rows.weights,
            keys=rows.keys,
            groups=rows.groups,
        )
    )


def _fit_mlp(rows: TrainingRows, options: MLPOptions) -> Trained:
    from headstart.heads.mlp import fit_mlp

    return fit_mlp(
        rows.x,
        rows.y,
        rows.n_classes,
        task=rows.task,
        validation_rows=rows.validation,
        sample_weight=rows.weights,
        keys=rows.keys,
        groups=rows.groups,
        seed=rows.seed,
        reporter=rows.reporter,
        **{f.name: getattr(options, f.name) for f in dataclasses.fields(options)},
    )


def _reduce_linear(rows: TrainingRows, options: LinearOptions, reduction: Reduction) -> Trained:
    from headstart.heads.reduced import reduce_linear

    return reduce_linear(rows, options, reduction)


def _reduce_ridge(rows: TrainingRows, options: RidgeOptions, reduction: Reduction) -> Trained:
    from headstart.heads.reduced import reduce_ridge

    return reduce_ridge(rows, options, reduction)


def _reduce_lda(rows: TrainingRows, options: LDAOptions, reduction: Reduction) -> Trained:
    from headstart.heads.reduced import reduce_lda

    return reduce_lda(rows, options, reduction)


def _fit_tabicl(rows: TrainingRows, options: TabICLOptions) -> Trained:
    from headstart.heads.tabicl import fit_tabicl

    return fit_tabicl(rows, options)


BUILT_IN = (
    HeadKind(
        name="auto",
        weighted=True,
        weighs_labels=True,
        summary="the one of linear, ridge, lda and prototype that wins inside the training split",
        tasks=("classification", "multi-label", "regression"),
        options=AutoOptions,
        fit=_fit_auto,
        coarse={"folds": 3, "coarse": True},
        swept=False,  # a sweep compares the others itself
    ),
    HeadKind(
        name="linear",
        weighted=True,
        weighs_labels=True,
        automatic=True,
        few={"rule": "prior"},
        aliases=("logistic",),
        summary="logistic regression, its penalty chosen by cross-validation",
        tasks=("classification", "multi-label"),
        options=LinearOptions,
        fit=_fit_linear,
        reduce=_reduce_linear,
        solve=_solve_linear,
        linear=True,
        choosing={"C": ("grid", "folds", "rule")},
        # One value a decade: accuracy is flat around the best C.
        coarse={
            "folds": 3,
            "grid": (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0),
            "tolerance": 1e-4,
        },
    ),
    HeadKind(
        name="ridge",
        weighted=True,
        automatic=True,
        summary="ridge regression on ±1 targets, its penalty chosen by leave-one-out",
        tasks=("classification", "multi-label", "regression"),
        options=RidgeOptions,
        fit=_fit_ridge,
        reduce=_reduce_ridge,
        linear=True,
        choosing={"alpha": ("alphas",)},
    ),
    HeadKind(
        name="lda",
        weighted=True,
        automatic=True,
        summary="linear discriminant analysis with a shrunk covariance",
        options=LDAOptions,
        fit=_fit_lda,
        reduce=_reduce_lda,
        linear=True,
    ),
    HeadKind(
        name="knn",
        weighted=True,
        aliases=("neighbours",),
        summary="the vote of the nearest training rows",
        options=NeighboursOptions,
        fit=_fit_neighbours,
        candidates=_try_neighbours,
    ),
    HeadKind(
        name="prototype",
        weighted=True,
        automatic=True,
        summary="the nearest class mean by cosine",
        fit=_fit_prototype,
    ),
    HeadKind(
        name="mlp",
        weighted=True,
        weighs_labels=True,
        summary="a perceptron with dropout, stopped early on held-out rows",
        tasks=("classification", "multi-label", "regression"),
        options=MLPOptions,
        fit=_fit_mlp,
        swept=False,  # it takes longer than all the others together
        calibrated=False,
        stops_early=True,
    ),
    HeadKind(
        name="tabicl",
        summary="TabICL, a pre-trained network that reads the training rows (extra 'tabicl')",
        tasks=("classification", "regression"),
        options=TabICLOptions,
        fit=_fit_tabicl,
        swept=False,  # it is slow, and its weights are to be downloaded
    ),
)
"""All of them, in the order in which they are listed and tried."""
