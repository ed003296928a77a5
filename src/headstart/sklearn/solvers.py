"""From an estimator's parameters to the solver that they name. Pure functions of arrays."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.core.records import Curve
from headstart.core.wording import did_you_mean
from headstart.heads import (
    Head,
    MLPHead,
    NeighboursHead,
    choose_linear,
    fit_lda,
    fit_logistic,
    fit_mlp,
    fit_neighbours,
    fit_prototype,
    fit_ridge,
)

_MLP = ("hidden", "dropout", "lr", "epochs")

CLASSIFIERS: dict[str, tuple[str, ...]] = {
    "logistic": ("C", "folds", "standardise"),
    "ridge": ("alpha", "standardise"),
    "lda": ("shrinkage", "standardise"),
    "knn": ("n_neighbors",),
    "prototype": (),
    "mlp": _MLP,
}
"""The heads of a classifier, and which parameters each of them takes."""

REGRESSORS: dict[str, tuple[str, ...]] = {"ridge": ("alpha", "standardise"), "mlp": _MLP}
"""The heads of a regressor, likewise."""

OPTIONS: dict[str, tuple[str, ...]] = {
    "logistic": ("grid", "rule", "tolerance"),
    "ridge": ("alphas",),
    "knn": ("metric", "weights", "softness"),
    "mlp": (
        "batch_size", "weight_decay", "momentum", "optimizer", "schedule", "patience", "validation",
    ),
}  # fmt: skip
"""What ``options`` may name beside the parameters: arguments of the head's own function."""

_BLOCK_ROWS = 64

_FOR_CHOICE = {"logistic": ("C", {"grid", "rule"}), "ridge": ("alpha", {"alphas"})}
"""Options that only serve to choose a parameter, and which."""


@dataclass(frozen=True)
class Settings:
    """The parameters of an estimator, where the head it names takes them."""

    head: str
    seed: int
    values: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, given: Mapping[str, Any], seed: int) -> Settings:
        """Take over parameters that :func:`head_faults` has found to be sound."""
        names = CLASSIFIERS[given["head"]]
        values = {name: given[name] for name in names if name in given}
        return cls(given["head"], seed, values, given["options"] or {})


@dataclass(frozen=True, eq=False)
class Solved:
    """A trained head and how it came about.

    Attributes:
        head: the head.
        chosen: hyper-parameters that were chosen.
        curves: what they were chosen from, or how training went.
        notes: what was decided on the user's behalf.
        shift: ``(k,)`` or 0, added to the log-probabilities: class weights of heads that have
            no other place for them.
        unconverged: why the solver stopped early, if it did.
    """

    head: Head
    chosen: Mapping[str, float] = field(default_factory=dict)
    curves: tuple[Curve, ...] = ()
    notes: tuple[str, ...] = ()
    shift: NDArray[np.float64] | float = 0.0
    unconverged: str | None = None


def head_faults(given: Mapping[str, Any], heads: Mapping[str, Iterable[str]]) -> list[str]:
    """Return what is wrong with the parameters of a head, one sentence each.

    Args:
        given: all parameters by name.
        heads: the heads there are, and the parameters each takes.
    """
    head, faults = given["head"], []
    for name, (holds, wanted) in _RULES.items():
        if name in given and not _holds(holds, given[name]):
            faults.append(f"{name} must be {wanted}, not {given[name]!r}")
    if isinstance(head, str) and head in heads:
        return faults + _option_faults(head, given)
    near = did_you_mean(str(head), list(heads))
    known = f"head must be one of {', '.join(heads)}, not {head!r}"
    return [f"{known} ({near})" if near else known, *faults]


def without_effect(
    given: Mapping[str, Any], defaults: Mapping[str, Any], heads: Mapping[str, Iterable[str]]
) -> list[str]:
    """Return the parameters that were set, but belong to another head.

    Args:
        given: all parameters by name, sound by :func:`head_faults`.
        defaults: their defaults.
        heads: the heads there are, and the parameters each takes.
    """
    others = {name for takes in heads.values() for name in takes} - set(heads[given["head"]])
    return sorted(name for name in others if not _same(given[name], defaults[name]))


def logits(head: Head, x: NDArray[Any]) -> NDArray[np.float64]:
    """Return ``head.decision(x)``, each row as if it stood alone.

    Neighbours and perceptrons multiply in single precision, where the number of rows decides how
    a product is summed. In blocks of one size a row gets the same result in any company.

    Args:
        head: any head.
        x: checked features ``(n, d)``.
    """
    if not isinstance(head, MLPHead | NeighboursHead):
        return np.asarray(head.decision(x))
    out = np.empty((len(x), head.n_classes))
    for start in range(0, len(x), _BLOCK_ROWS):
        block = x[start : start + _BLOCK_ROWS]
        filled = np.concatenate([block, np.repeat(block[:1], _BLOCK_ROWS - len(block), axis=0)])
        out[start : start + len(block)] = head.decision(filled)[: len(block)]
    return out


def solve_classification(
    x: NDArray[Any],
    codes: NDArray[np.int64],
    classes: NDArray[Any],
    weights: NDArray[np.float64] | None,
    settings: Settings,
) -> Solved:
    """Train the head that the settings name.

    Args:
        x: features ``(n, d)``, finite.
        codes: ``(n,)`` indices into ``classes``, every class occurring.
        classes: ``(k,)``.
        weights: ``(k,)``, or None.
        settings: what the user asked for.

    Raises:
        HeadError: the data is unfit.
    """
    k, values, more = len(classes), settings.values, settings.options
    if settings.head == "logistic":
        return _logistic(x, codes, classes, weights, settings)
    if settings.head == "ridge":
        return _ridge(x, codes, k, settings, class_weight=weights)
    if settings.head == "mlp":
        made = fit_mlp(x, codes, k, class_weight=weights, seed=settings.seed, **values, **more)
        return Solved(made.head, {"best_epoch": made.best_epoch}, made.curves, made.notes)
    shift: NDArray[np.float64] | float = 0.0 if weights is None else np.log(weights)
    if settings.head == "lda":
        shrinkage = None if values["shrinkage"] == "auto" else float(values["shrinkage"])
        head, used = fit_lda(
            x, codes, k, shrinkage=shrinkage, standardise=values["standardise"], **more
        )
        return Solved(head, {"shrinkage": used}, shift=shift)
    if settings.head == "knn":
        return Solved(fit_neighbours(x, codes, k, k=values["n_neighbors"], **more), shift=shift)
    return Solved(fit_prototype(x, codes, k, **more), shift=shift)


def solve_regression(x: NDArray[Any], y: NDArray[Any], settings: Settings) -> Solved:
    """Train the regression that the settings name.

    Args:
        x: features ``(n, d)``, finite.
        y: ``(n,)`` or ``(n, t)``, finite.
        settings: what the user asked for.

    Raises:
        HeadError: the data is unfit.
    """
    targets = 1 if y.ndim == 1 else y.shape[1]
    values, more = settings.values, settings.options
    if settings.head == "mlp":
        made = fit_mlp(x, y, targets, task="regression", seed=settings.seed, **values, **more)
        return Solved(made.head, {"best_epoch": made.best_epoch}, made.curves, made.notes)
    return _ridge(x, y, targets, settings, task="regression")


def _ridge(
    x: NDArray[Any], y: NDArray[Any], outputs: int, settings: Settings, **more: Any
) -> Solved:
    alpha, given = settings.values["alpha"], dict(settings.options)
    if alpha != "auto":
        given["alphas"] = (float(alpha),)
    standardise = settings.values["standardise"]
    path = fit_ridge(x, y, outputs, standardise=standardise, **given, **more)
    if alpha != "auto":
        return Solved(path.head)
    curve = Curve(
        name="leave-one-out",
        x=path.alphas,
        y=tuple(float(v) for v in path.error),
        x_label="alpha (penalty)",
        y_label="left-out mean squared error",
        log_x=True,
        chosen=path.alphas[path.chosen],
    )
    return Solved(path.head, {"alpha": path.alphas[path.chosen]}, (curve,))


def _logistic(
    x: NDArray[Any],
    codes: NDArray[np.int64],
    classes: NDArray[Any],
    weights: NDArray[np.float64] | None,
    settings: Settings,
) -> Solved:
    k, values, more = len(classes), settings.values, dict(settings.options)
    chosen: Mapping[str, float] = {}
    curves: tuple[Curve, ...] = ()
    notes: tuple[str, ...] = ()
    if values["C"] == "auto":
        choice = choose_linear(
            x,
            codes,
            k,
            seed=settings.seed,
            folds=values["folds"],
            class_weight=weights,
            standardise=values["standardise"],
            names=[str(name) for name in classes],
            **more,
        )
        reached = choice.convergence
        head, chosen, curves, notes = choice.head, choice.chosen, (choice.curve,), choice.notes
    else:
        # Grid and rule belong to the choice of C; here only the tolerance is left.
        exact = {"tolerance": more["tolerance"]} if "tolerance" in more else {}
        head, reached = fit_logistic(
            x,
            codes,
            k,
            C=float(values["C"]),
            class_weight=weights,
            standardise=values["standardise"],
            **exact,
        )
    unconverged = None
    if not reached.reached:
        unconverged = (
            f"logistic regression stopped at a gradient of {reached.gradient:.1e} after"
            f" {reached.passes} passes, above the tolerance of {reached.tolerance:g}"
        )
    return Solved(head, chosen, curves, notes, unconverged=unconverged)


def _option_faults(head: str, given: Mapping[str, Any]) -> list[str]:
    options = given["options"]
    if options is None:
        return []
    if not isinstance(options, Mapping):
        return [f"options must be a mapping or None, not {type(options).__name__}"]
    known, faults = OPTIONS.get(head, ()), []
    for name in options:
        if name not in known:
            listed = f"it takes {', '.join(known)}" if known else "it takes none"
            near = did_you_mean(str(name), known) or listed
            faults.append(f"head={head!r} takes no option {name!r} ({near})")
    parameter, serving = _FOR_CHOICE.get(head, ("", set()))
    if parameter and given[parameter] != "auto":
        faults += [
            f"the option {name!r} chooses {parameter}, which is given as {given[parameter]!r}"
            for name in options
            if name in serving
        ]
    return faults


def _whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _number(value: Any) -> bool:
    real = isinstance(value, int | float | np.integer | np.floating)
    return real and not isinstance(value, bool) and math.isfinite(value)


def _auto_or_positive(value: Any) -> bool:
    return value == "auto" if isinstance(value, str) else _number(value) and value > 0


def _widths(value: Any) -> bool:
    return isinstance(value, tuple | list) and all(_whole(v) and v > 0 for v in value)


def _holds(rule: Callable[[Any], bool], value: Any) -> bool:
    try:
        return bool(rule(value))
    except (TypeError, ValueError):
        return False


def _same(value: Any, default: Any) -> bool:
    value = tuple(value) if isinstance(value, list) else value
    return isinstance(value, int | float | str | tuple) and bool(value == default)


_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "C": (_auto_or_positive, "'auto' or a number above 0"),
    "alpha": (_auto_or_positive, "'auto' or a number above 0"),
    "shrinkage": (
        lambda v: v == "auto" if isinstance(v, str) else _number(v) and 0 <= v <= 1,
        "'auto' or a number from 0 to 1",
    ),
    "n_neighbors": (lambda v: _whole(v) and v > 0, "a whole number above 0"),
    "hidden": (_widths, "a tuple of whole numbers above 0"),
    "dropout": (lambda v: _number(v) and 0 <= v < 1, "a number from 0 to below 1"),
    "lr": (lambda v: _number(v) and v > 0, "a number above 0"),
    "epochs": (lambda v: _whole(v) and v > 0, "a whole number above 0"),
    "standardise": (lambda v: isinstance(v, bool | np.bool_), "True or False"),
    "folds": (lambda v: _whole(v) and v >= 2, "a whole number of 2 or more"),
}
"""By parameter: when a value is sound, and how to say so."""
