"""Targets: what an item is labelled with, checked, with one clear line for each fault."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from headstart.core.errors import HeadError
from headstart.core.strata import strata_of_memberships, strata_of_values

FloatArray = NDArray[np.floating[Any]]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Targets:
    """Checked targets of n items.

    Attributes:
        values: ``(n,) int64`` class indices, or ``(n, k) float64``: soft labels, memberships or
            values.
        present: ``(k,) bool``, the outputs that occur among these items.
        strata: ``(n,) int64``, the classes that divisions into parts respect; None where there
            are none.
    """

    values: np.ndarray
    present: NDArray[np.bool_]
    strata: IntArray | None

    @property
    def labels(self) -> IntArray | None:
        """Class indices ``(n,)``; None for targets of any other kind."""
        return self.values if self.values.ndim == 1 else None

    @property
    def levels(self) -> IntArray:
        """What divisions into parts keep in proportion ``(n,)``: the classes, or in their place
        the rarest label of each item, or which tenth of the values it lies in.
        """
        if self.strata is not None:
            return self.strata
        if set(np.unique(self.values).tolist()) <= {0.0, 1.0}:
            return strata_of_memberships(self.values)
        return strata_of_values(self.values)

    @property
    def order(self) -> IntArray:
        """The rank of each target ``(n,)``, which orders copies of an item with different ones."""
        if self.values.ndim == 1:
            return self.values
        return np.asarray(np.unique(self.values, axis=0, return_inverse=True)[1].ravel())


def as_labels(y: object, n: int, n_classes: int | None = None) -> IntArray:
    """Return ``y`` as ``(n,) int64`` class indices in ``[0, n_classes)``.

    Raises:
        HeadError: if the length, the type or a value is wrong.
    """
    array = np.asarray(y)
    if array.ndim != 1 or len(array) != n:
        raise HeadError(f"expected one label per item ({n:,} items), found shape {array.shape}")
    if array.dtype.kind not in "iub" and not (
        array.dtype.kind == "f" and np.isfinite(array).all() and (array == np.round(array)).all()
    ):
        raise HeadError(
            f"expected integer class indices, found labels of type {array.dtype}",
            hint="number the classes from 0",
        )
    labels = array.astype(np.int64)
    if len(labels) and labels.min() < 0:
        raise HeadError(f"expected class indices from 0, found {labels.min()}")
    if n_classes is not None and len(labels) and labels.max() >= n_classes:
        raise HeadError(f"expected class indices below {n_classes}, found {labels.max()}")
    return labels


def as_soft_targets(y: object, n: int, n_classes: int) -> FloatArray:
    """Return ``y`` as ``(n, n_classes) float64`` probabilities whose rows sum to 1.

    Raises:
        HeadError: if the shape is wrong, a value is negative, or a row does not sum to 1.
    """
    targets = _as_targets(y, n, n_classes, "soft labels")
    if targets.min() < 0 or not np.allclose(targets.sum(axis=1), 1.0, atol=1e-4):
        raise HeadError("expected soft labels that are not negative and sum to 1 in every row")
    return cast(FloatArray, targets / targets.sum(axis=1, keepdims=True))


def as_multi_hot(y: object, n: int, n_classes: int | None = None) -> FloatArray:
    """Return ``y`` as ``(n, n_classes) float64`` memberships in ``[0, 1]``, one column a label.

    Raises:
        HeadError: if the shape is wrong or a value lies outside ``[0, 1]``.
    """
    targets = _as_targets(y, n, n_classes, "multi-label targets")
    if targets.min() < 0 or targets.max() > 1:
        raise HeadError("expected multi-label targets between 0 and 1")
    return targets


def as_regression_targets(y: object, n: int) -> FloatArray:
    """Return ``y`` as finite ``(n, t) float64``; one-dimensional targets get ``t = 1``."""
    array = np.asarray(y)
    return _as_targets(array[:, None] if array.ndim == 1 else array, n, None, "targets")


def _as_targets(y: object, n: int, width: int | None, name: str) -> FloatArray:
    array = np.asarray(y)
    if array.dtype.kind not in "fiub":
        raise HeadError(f"expected numeric {name}, found {array.dtype}")
    if array.ndim != 2 or len(array) != n or (width is not None and array.shape[1] != width):
        wanted = f"({n}, {width if width is not None else 'columns'})"
        raise HeadError(f"expected {name} of shape {wanted}, found {array.shape}")
    targets = array.astype(np.float64)
    if not np.isfinite(targets).all():
        raise HeadError(f"expected finite {name}, found NaN or infinity")
    return targets


def require_two_classes(labels: IntArray) -> IntArray:
    """Return the sorted classes that occur in ``labels``.

    Raises:
        HeadError: if fewer than two do.
    """
    present = np.unique(labels)
    if len(present) < 2:
        raise HeadError(
            f"expected at least two classes in the training rows, found {len(present)}"
            + (f" (every label is {present[0]})" if len(present) else ""),
            hint="a classifier needs items of two classes or more",
        )
    return present


def as_weights(sample_weight: object, n: int) -> FloatArray | None:
    """Return weights of items ``(n,) float64``; None where none are given, and all weigh 1.

    Raises:
        HeadError: they are not n finite numbers above 0.
    """
    if sample_weight is None:
        return None
    weights = np.asarray(sample_weight)
    if weights.dtype.kind not in "fiub" or weights.shape != (n,):
        raise HeadError(f"expected one weight for each of {n:,} rows, found {weights.shape}")
    weights = weights.astype(np.float64)
    if not (np.isfinite(weights).all() and weights.min(initial=1.0) > 0):
        raise HeadError(
            f"expected finite weights above 0, found {weights.min():g} to {weights.max():g}",
            hint="remove rows without weight",
        )
    return cast(FloatArray, weights)


def label_weights(
    class_weight: str | np.ndarray | None,
    memberships: FloatArray,
    sample_weight: FloatArray | None = None,
) -> FloatArray | None:
    """Return what the absence and the presence of each label weigh, ``(2, k) float64``, or None.

    ``"balanced"`` weighs both by ``n / (2 * their count)``, as scikit-learn's
    ``OneVsRestClassifier(LogisticRegression(class_weight="balanced"))`` does, so that the weights
    of a label sum to n. A label that all items have, or none, weighs 1.

    Args:
        class_weight: ``"balanced"`` or None; weights of classes have no meaning here.
        memberships: ``(n, k)`` in [0, 1].
        sample_weight: ``(n,)``, how often each item counts; None: once.

    Raises:
        HeadError: any other value.
    """
    if class_weight is None:
        return None
    if not isinstance(class_weight, str) or class_weight != "balanced":
        raise HeadError(
            "class_weight needs class indices, one per item; these targets are of several labels",
            hint="class_weight='balanced' weighs presence and absence of each label alike",
        )
    counts = np.ones(len(memberships)) if sample_weight is None else sample_weight
    present = counts @ memberships
    both = np.stack([counts.sum() - present, present])
    one_sided = (both <= 0).any(axis=0)
    with np.errstate(divide="ignore"):
        weights = counts.sum() / (2.0 * both)
    return cast(FloatArray, np.where(one_sided, 1.0, weights))


def class_weight_vector(
    class_weight: str | np.ndarray | None,
    labels: IntArray | None,
    n_classes: int,
    sample_weight: FloatArray | None = None,
) -> FloatArray | None:
    """Return one weight per item ``(n,) float64``, or None when all weigh the same.

    ``"balanced"`` weighs a class by ``n / (classes present * its count)``, as scikit-learn does.

    Args:
        class_weight: ``"balanced"``, one weight per class, or None.
        labels: class indices ``(n,)``; None for targets of another kind, which have no class.
        n_classes: the number of classes.
        sample_weight: ``(n,)``, how often each item counts; the result is multiplied by it.

    Raises:
        HeadError: if the weights are invalid, or there are weights and no class indices.
    """
    if class_weight is None:
        return sample_weight
    if labels is None:
        raise HeadError(
            "class_weight needs class indices, one per item; these targets are soft, of several"
            " labels, or values",
            hint="omit class_weight, or give class indices",
        )
    if isinstance(class_weight, str):
        if class_weight != "balanced":
            raise HeadError(f"expected class_weight 'balanced' or an array, found {class_weight!r}")
        counts = np.bincount(labels, sample_weight, minlength=n_classes)
        share = np.where(counts > 0, counts, 1.0)
        per_class = counts.sum() / (np.count_nonzero(counts) * share)
    else:
        per_class = np.asarray(class_weight, dtype=np.float64)
        if per_class.shape != (n_classes,) or not np.isfinite(per_class).all():
            raise HeadError(f"expected {n_classes} finite class weights, found {per_class.shape}")
        if per_class.min() < 0:
            raise HeadError("expected class weights that are not negative")
    weights = per_class[labels]
    return cast(FloatArray, weights if sample_weight is None else weights * sample_weight)
