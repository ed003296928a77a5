"""Rows as estimators train on them: in the order of their content, each once, with its weight.

A row that occurs twice and a row of weight 2 are one thing then, a row of weight 0 is none, and the
order in which rows were given decides nothing.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.core.row_keys import Keys, content_order
from headstart.heads import TrainingRows, keep_together
from headstart.heads.copies import distinct_rows, linked_groups
from headstart.sklearn.faults import InputError

Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Given:
    """What ``fit`` was given beside X and y, for the rows that have a weight.

    Attributes:
        rows: ``(m,)``, their indices, ascending.
        weights: ``(m,)``, or None where every row counts once.
        groups: m of them, or None.
    """

    rows: Indices
    weights: NDArray[np.float64] | None
    groups: Keys | None


def given_rows(X: NDArray[Any], sample_weight: Any, groups: Any) -> Given:
    """Check weights and groups against X; rows of weight 0 are left out.

    Raises:
        InputError, ValueError: a length or a value is wrong, or all weights are 0.
    """
    n = len(X)
    every, weights = np.arange(n), None
    if sample_weight is not None:
        weights = _checked(sample_weight, n)
        every = np.flatnonzero(weights > 0)
        if not len(every):
            raise InputError("every sample_weight is zero, so nothing is left to fit")
        weights = None if (weights[every] == 1).all() else weights[every]
    if groups is not None:
        values = groups.tolist() if hasattr(groups, "tolist") else list(groups)
        if len(values) != n:
            raise InputError(f"expected one group per row ({n:,}), found {len(values):,}")
        groups = [values[row] for row in every.tolist()]
    return Given(every, weights, groups)


def _checked(sample_weight: Any, n: int) -> NDArray[np.float64]:
    weights = np.asarray(sample_weight)
    if weights.ndim == 0:
        weights = np.repeat(weights, n)
    if weights.dtype.kind == "O":
        weights = weights.astype(np.float64)
    if weights.dtype.kind not in "fiub" or weights.shape != (n,):
        raise InputError(
            f"expected one number per row ({n:,}) as sample_weight, found an array of shape"
            f" {weights.shape} and type {weights.dtype}"
        )
    weights = weights.astype(np.float64)
    if not (np.isfinite(weights).all() and weights.min() >= 0):
        raise InputError(
            "expected every sample_weight to be a finite number of 0 or more, found"
            f" {weights.min():g} to {weights.max():g}"
        )
    return weights


def distinct(rows: TrainingRows, *, merge: bool) -> tuple[TrainingRows, tuple[str, ...]]:
    """Return the different rows in the order of their content, and what was found among them.

    Args:
        rows: with weights or without.
        merge: whether equal rows with equal targets become one of their summed weight.
    """
    labels = np.asarray(rows.y) if rows.task == "classification" else None
    together = keep_together(labels, rows.x, names=rows.names)
    weights = None if rows.weights is None else np.asarray(rows.weights)
    found = distinct_rows(rows.x, together.keys, np.asarray(rows.y), weights)
    groups = linked_groups(together.keys, rows.groups)
    whole = dataclasses.replace(rows, keys=together.keys, groups=groups)
    if not merge:
        return whole.take(content_order(together.keys, found.inverse)), together.notes
    return dataclasses.replace(whole.take(found.rows), weights=found.counts), together.notes
