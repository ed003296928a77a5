"""The built-in heads: their options, and how each is trained from :class:`TrainingRows`.

The numerical code lies in the modules that the functions import when they are called.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from headstart.core.errors import HeadError
from headstart.core.records import Curve
from headstart.core.settings import Fault, check, option, options_of
from headstart.heads.registry import (
    HeadKind,
    SweepRequest,
    Trained,
    TrainingRows,
    Trial,
    register_head,
)

if TYPE_CHECKING:
    import numpy as np

    from headstart.heads.ridge import RidgePath

ClassWeight = Literal["balanced"] | Sequence[float] | None


class _Options:
    """What the options of several heads share: they are checked, and some may be ``auto``."""

    def __post_init__(self) -> None:
        check(self)

    def faults(self) -> list[str]:
        """Return the texts that were given where a number or ``auto`` is expected."""
        return [
            Fault(each.name, f"must be auto or a number, not {value!r}")
            for each in options_of(type(self))
            if each.default == "auto"
            and isinstance(value := getattr(self, each.name), str)
            and value != "auto"
        ]


_STANDARDISE = "Scale each feature to unit deviation first."
_CLASS_WEIGHT = "'balanced', or one weight for each class."


@dataclass(frozen=True, eq=False)
class LinearOptions(_Options):
    """Options of ``linear``; see :func:`~headstart.heads.choose.choose_linear`."""

    C: float | Literal["auto"] = option(
        "auto", "Inverse penalty; auto: the best of the grid by cross-validation.", above=0
    )
    grid: tuple[float, ...] | None = option(
        None, "Values of C to choose from; None: the 45 of DINOv2's linear evaluation.", above=0
    )
    folds: int = option(5, "Folds of the cross-validation that chooses C.", at_least=2)
    rule: Literal["best", "one-standard-error"] = option(
        "best", "Which of the values that cannot be told apart is taken."
    )
    standardise: bool = option(True, _STANDARDISE)
    class_weight: ClassWeight = option(None, _CLASS_WEIGHT)
    tolerance: float | None = option(
        None,
        "Largest gradient at the end; None: 1e-5 where C is chosen, 1e-6 where it is given.",
        above=0,
    )
    device: str = option("cpu", "Where products are made: cpu, cuda or auto.")


@dataclass(frozen=True, eq=False)
class RidgeOptions(_Options):
    """Options of ``ridge``; see :func:`~headstart.heads.ridge.fit_ridge`."""

    alpha: float | Literal["auto"] = option(
        "auto", "Penalty; auto: the least leave-one-out error among alphas.", above=0
    )
    alphas: tuple[float, ...] | None = option(
        None, "Penalties to choose from; None: 45 from 1e-3 to 1e8.", above=0
    )
    standardise: bool = option(True, _STANDARDISE)
    class_weight: ClassWeight = option(None, _CLASS_WEIGHT)


@dataclass(frozen=True)
class LDAOptions(_Options):
    """Options of ``lda``; see :func:`~headstart.heads.lda.fit_lda`."""

    shrinkage: float | Literal["auto"] = option(
        "auto",
        "Shrinkage of the covariance, 0 to 1; auto: that of Ledoit and Wolf.",
        at_least=0,
        at_most=1,
    )
    standardise: bool = option(True, _STANDARDISE)


@dataclass(frozen=True)
class NeighboursOptions(_Options):
    """Options of ``knn``; see :class:`~headstart.heads.neighbours.NeighboursHead`."""

    k: int = option(20, "How many neighbours vote; 20 as in DINO.", at_least=1)
    metric: Literal["cosine", "euclidean"] = option("cosine", "Similarity of two rows.")
    weights: Literal["softmax", "uniform"] = option(
        "softmax", "Weigh votes by similarity, or count them."
    )
    softness: float = option(0.07, "Temperature of the softmax weights; 0.07 as in DINO.", above=0)


@dataclass(frozen=True, eq=False)
class MLPOptions(_Options):
    """Options of ``mlp``; see :func:`~headstart.heads.mlp.fit_mlp`."""

    hidden: tuple[int, ...] = option((256,), "Widths of the hidden layers.", at_least=1)
    dropout: float | Literal["auto"] = option(
        "auto",
        "On the inputs of every layer but the first; auto: 0.5, and 0 for regression, where the"
        " noise would bias the scale of the output.",
        at_least=0,
        below=1,
    )
    epochs: int = option(100, "Most passes over the training rows.", at_least=1)
    batch_size: int = option(256, "Rows in a step.", at_least=1)
    lr: float = option(1e-3, "Initial learning rate.", above=0)
    weight_decay: float = option(1e-2, "Decoupled for adamw, L2 otherwise.", at_least=0)
    momentum: float = option(0.9, "Of sgd.", at_least=0, below=1)
    optimizer: Literal["adamw", "adam", "sgd"] = option("adamw", "Optimizer.")
    schedule: Literal["cosine", "step", "constant"] = option("cosine", "Learning-rate schedule.")
    patience: int | None = option(
        10, "Stop after so many epochs without a lower validation loss; None: never.", at_least=1
    )
    validation: float = option(
        0.2, "Share of the rows held out to choose the epoch.", at_least=0, below=1
    )
    class_weight: ClassWeight = option(None, _CLASS_WEIGHT)


def _fit_linear(rows: TrainingRows, options: LinearOptions) -> Trained:
    from headstart.heads.choose import choose_linear
    from headstart.heads.logistic import fit_logistic

    common: dict[str, Any] = {
        "class_weight": options.class_weight,
        "standardise": options.standardise,
        "device": options.device,
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
    if rows.task != "classification":
        raise HeadError(
            f"C can be chosen by cross-validation for classification only, not for {rows.task}",
            hint="give C",
        )
    choice = choose_linear(
        rows.x,
        rows.y,
        rows.n_classes,
        seed=rows.seed,
        folds=options.folds,
        grid=options.grid,
        rule=options.rule,
        keys=rows.keys,
        groups=rows.groups,
        names=rows.names,
        reporter=rows.reporter,
        **common,
    )
    return Trained(choice.head, choice.chosen, (choice.curve,), choice.notes, choice.convergence)


def _solve_linear(
    rows: TrainingRows, request: SweepRequest
) -> tuple[Sequence[Trial], Sequence[Curve]]:
    from headstart.heads.choose import sweep_linear

    return sweep_linear(rows, request)


def _fit_ridge(rows: TrainingRows, options: RidgeOptions) -> Trained:
    from headstart.heads.ridge import RIDGE_GRID, fit_ridge

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
    )
    if given:
        return Trained(path.head)
    return Trained(path.head, {"alpha": path.alphas[path.chosen]}, (_ridge_curve(path),))


def _ridge_curve(path: RidgePath) -> Curve:
    return Curve(
        name="leave-one-out",
        x=path.alphas,
        y=tuple(float(v) for v in path.error),
        x_label="alpha (penalty)",
        y_label="left-out mean squared error",
        log_x=True,
        chosen=path.alphas[path.chosen],
    )


def _fit_lda(rows: TrainingRows, options: LDAOptions) -> Trained:
    from headstart.heads.lda import fit_lda

    given = None if options.shrinkage == "auto" else float(options.shrinkage)
    head, used = fit_lda(
        rows.x, rows.y, rows.n_classes, shrinkage=given, standardise=options.standardise
    )
    return Trained(head, {"shrinkage": used})


def _fit_neighbours(rows: TrainingRows, options: NeighboursOptions) -> Trained:
    from headstart.heads.neighbours import fit_neighbours

    return Trained(fit_neighbours(rows.x, rows.y, rows.n_classes, **dataclasses.asdict(options)))


def _try_neighbours(n: int) -> list[Mapping[str, Any]]:
    return [{"k": k} for k in (1, 5, 20) if k <= n // 2]


def _fit_prototype(rows: TrainingRows, options: object) -> Trained:  # noqa: ARG001
    from headstart.heads.neighbours import fit_prototype

    return Trained(fit_prototype(rows.x, rows.y, rows.n_classes))


def _fit_mlp(rows: TrainingRows, options: MLPOptions) -> Trained:
    from headstart.heads.mlp import fit_mlp

    return fit_mlp(
        rows.x,
        rows.y,
        rows.n_classes,
        task=rows.task,
        validation_rows=rows.validation,
        keys=rows.keys,
        groups=rows.groups,
        seed=rows.seed,
        reporter=rows.reporter,
        **{f.name: getattr(options, f.name) for f in dataclasses.fields(options)},
    )


register_head(
    HeadKind(
        name="linear",
        aliases=("logistic",),
        summary="logistic regression, its penalty chosen by cross-validation",
        tasks=("classification", "multi-label"),
        options=LinearOptions,
        fit=_fit_linear,
        solve=_solve_linear,
        linear=True,
        choosing={"C": ("grid", "folds", "rule")},
        # One value a decade: accuracy is flat around the best C.
        coarse={
            "folds": 3,
            "grid": (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0),
            "tolerance": 1e-4,
        },
    )
)
register_head(
    HeadKind(
        name="ridge",
        summary="ridge regression on ±1 targets, its penalty chosen by leave-one-out",
        tasks=("classification", "multi-label", "regression"),
        options=RidgeOptions,
        fit=_fit_ridge,
        linear=True,
        choosing={"alpha": ("alphas",)},
    )
)
register_head(
    HeadKind(
        name="lda",
        summary="linear discriminant analysis with a shrunk covariance",
        options=LDAOptions,
        fit=_fit_lda,
        linear=True,
    )
)
register_head(
    HeadKind(
        name="knn",
        aliases=("neighbours",),
        summary="the vote of the nearest training rows",
        options=NeighboursOptions,
        fit=_fit_neighbours,
        candidates=_try_neighbours,
    )
)
register_head(
    HeadKind(
        name="prototype",
        summary="the nearest class mean by cosine",
        fit=_fit_prototype,
    )
)
register_head(
    HeadKind(
        name="mlp",
        summary="a perceptron with dropout, stopped early on held-out rows",
        tasks=("classification", "multi-label", "regression"),
        options=MLPOptions,
        fit=_fit_mlp,
        swept=False,  # it takes longer than all the others together
        calibrated=False,
        stops_early=True,
    )
)
