"""Logistic regression of very many classes: C is chosen on some of them.

All folds of all values of C, with ten thousand classes, would take days. What C is best depends on
the features and on the items of a class, hardly on how many classes there are besides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from headstart.core.division import ranks
from headstart.heads.contract import Trained, TrainingRows
from headstart.heads.features import as_rows
from headstart.heads.logistic import fit_logistic

MANY_CLASSES = 1000
MOST_PRODUCTS = 5_000_000_000
_SEARCH_PRODUCTS = 500_000_000
_FALLBACK_C = 1.0


def search_takes_too_long(shape: tuple[int, int], n_classes: int) -> bool:
    """Return whether solving every C in every fold for all classes would take hours.

    Args:
        shape: of the training features.
        n_classes: the number of classes.
    """
    return n_classes > MANY_CLASSES and shape[0] * shape[1] * n_classes > MOST_PRODUCTS


def choose_on_some_classes(
    rows: TrainingRows, choose: Callable[..., Trained], search: Mapping[str, Any]
) -> tuple[float, Trained | None, tuple[str, ...]]:
    """Choose C, and the temperature there, on the items of some classes.

    Args:
        rows: training rows.
        choose: :func:`~headstart.heads.choose_linear`.
        search: further arguments of it.

    Returns:
        C; what was trained on some classes, None where too few have two items; and what was
        decided.
    """
    labels, n_classes = np.asarray(rows.y), rows.n_classes
    counts = np.bincount(labels, minlength=n_classes)
    several = np.flatnonzero(counts > 1)
    width, each = as_rows(rows.x).shape[1], len(labels) / max(1, int((counts > 0).sum()))
    most = int(np.clip(np.sqrt(_SEARCH_PRODUCTS / (width * each)), 100, MANY_CLASSES))
    drawn = np.argsort(ranks(several.tolist(), rows.seed), kind="stable")[:most]
    some = np.sort(several[drawn])
    if len(some) < 2:
        note = "without cross-validation, because no two classes have two items"
        return _FALLBACK_C, None, (f"C = {_FALLBACK_C:g} {note}",)
    number = np.full(n_classes, -1)
    number[some] = np.arange(len(some))
    members = np.flatnonzero(number[labels] >= 0)
    weight, part = search.get("class_weight"), rows.take(members)
    trained = choose(
        part.x,
        number[labels[members]],
        len(some),
        seed=rows.seed,
        keys=part.keys,
        groups=part.groups,
        sample_weight=part.weights,
        reporter=rows.reporter,
        **{**search, "class_weight": weight[some] if isinstance(weight, np.ndarray) else weight},
    )
    c = float(trained.chosen["C"])
    note = (
        f"C = {c:g} was chosen on the {len(members):,} items of {len(some):,} classes drawn at"
        f" random, since choosing among all {n_classes:,} would take hours; the head is trained"
        " on all of them"
    )
    name = f"{trained.curves[0].name}, {len(some):,} of {n_classes:,} classes"
    named = replace(trained, curves=(replace(trained.curves[0], name=name),))
    return c, named, (*trained.notes, note)


def fit_many_classes(
    rows: TrainingRows,
    notes: Sequence[str],
    choose: Callable[..., Trained],
    search: Mapping[str, Any],
    refit: Mapping[str, Any],
) -> Trained:
    """Choose C and temperature on some classes, and fit the head of all once.

    Args:
        rows: distinct training rows.
        notes: what has been decided so far.
        choose: :func:`~headstart.heads.choose_linear`.
        search, refit: further arguments of it, and of ``fit_logistic``.
    """
    c, chosen, found = choose_on_some_classes(rows, choose, search)
    head, convergence = fit_logistic(
        rows.x, rows.y, rows.n_classes, C=c, sample_weight=rows.weights, **refit
    )
    if chosen is None:
        return Trained(head, {"C": c}, notes=(*notes, *found), convergence=convergence,
                       details={"folds": 0})  # fmt: skip
    return Trained(
        head=head.with_temperature(chosen.head.temperature),
        chosen={"C": c},
        curves=chosen.curves,
        notes=(*notes, *found),
        convergence=convergence,
        details=chosen.details,
    )


__all__ = [
    "MANY_CLASSES",
    "MOST_PRODUCTS",
    "choose_on_some_classes",
    "fit_many_classes",
    "search_takes_too_long",
]
