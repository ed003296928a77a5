"""What every solver asks of its arrays, in one place, with one clear line for each fault."""

from __future__ import annotations

from typing import Any, NoReturn, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from headstart.core.errors import HeadError
from headstart.heads.source import StreamedFeatures, lies_on_disk, memory_share

FloatArray = npt.NDArray[np.floating[Any]]
IntArray = npt.NDArray[np.int64]
Features: TypeAlias = FloatArray | StreamedFeatures
"""Checked features ``(n, d)``: an array, or rows on disk that are indexed like one."""


def as_features(x: object, *, n_features: int | None = None, name: str = "features") -> FloatArray:
    """Return ``x`` as a finite ``(n, d)`` float32 or float64 array that torch can look at.

    That is without a copy, unless the type or a reversed view calls for one.

    Args:
        x: an array or CPU tensor ``(n, d)``; half precision and integers become float32.
        n_features: the ``d`` that is expected, if any.
        name: what to call the array in an error.

    Raises:
        HeadError: if the array is not numeric, not two-dimensional, empty, of the wrong width,
            or holds NaN or infinity (the first bad rows are named).
    """
    if lies_on_disk(x) and not isinstance(x, np.ndarray):
        _check_form(x, n_features, name)
        x = x[0 : x.shape[0]]  # type: ignore[index, attr-defined]
    array = np.asarray(x)
    _check_form(array, n_features, name)
    if array.dtype not in (np.float32, np.float64):
        array = array.astype(np.float32)
    if any(step < 0 or step % array.itemsize for step in array.strides):
        array = np.ascontiguousarray(array)  # torch takes no reversed view, and no odd steps
    _refuse_non_finite(array, name)
    return array


def as_rows(
    x: object, *, n_features: int | None = None, name: str = "features", together: int = 1
) -> Features:
    """Return ``x`` as an array or, where it lies on disk and is large, as rows to be streamed.

    Args:
        x: what :func:`as_features` takes; a mapped array (``np.load(..., mmap_mode="r")``); rows
            of a feature store; :class:`~headstart.heads.StreamedFeatures`; or anything else with
            ``shape``, ``dtype`` and rows by slice and by ascending indices. What lies on disk and
            takes less than 0.4 of the free memory is read as an array.
        n_features, name: as for :func:`as_features`.
        together: how many features of this size are needed at the same time.

    Raises:
        HeadError: as :func:`as_features`.
    """
    if not lies_on_disk(x):
        return as_features(x, n_features=n_features, name=name)
    _check_form(x, n_features, name)
    streamed = x if isinstance(x, StreamedFeatures) else StreamedFeatures(cast(Any, x))
    if streamed is not x and streamed.nbytes * together <= memory_share():
        return as_features(x, n_features=n_features, name=name)
    if not streamed.checked:
        _refuse_non_finite_rows(streamed, name)
    return streamed


def subset(x: Features, rows: IntArray) -> Features:
    """Return the rows at ascending indices ``(m,)``; of streamed features without reading them."""
    return x.take(rows) if isinstance(x, StreamedFeatures) else x[rows]


def streaming_note(x: Features) -> tuple[str, ...]:
    """Return the note that features are read from disk; nothing for an array."""
    if not isinstance(x, StreamedFeatures):
        return ()
    return (
        f"the features ({x.nbytes / 2**30:.2f} GiB) are read from disk in blocks, in every pass,"
        " instead of into memory",
    )


def _check_form(x: Any, n_features: int | None, name: str) -> None:
    shape, kind = tuple(x.shape), x.dtype.kind
    if kind not in "fiub":
        raise HeadError(
            f"expected {name} of a numeric type, found {x.dtype}",
            hint="convert them to a float32 array of shape (items, features)",
        )
    if len(shape) != 2:
        raise HeadError(
            f"expected {name} of shape (items, features), found shape {shape}",
            hint="give one row an item; pool or flatten the other axes first",
        )
    if 0 in shape:
        raise HeadError(f"expected at least one item and one feature, found shape {shape}")
    if n_features is not None and shape[1] != n_features:
        raise HeadError(
            f"expected {n_features:,} features an item, found {shape[1]:,} in the {name}",
            hint="use features of the backbone, layer and pooling that the head was trained on",
        )


def _refuse_non_finite(array: FloatArray, name: str) -> None:
    # min and max carry NaN and infinity through without a temporary of the features' size.
    if np.isfinite(array.min()) and np.isfinite(array.max()):
        return
    _raise_non_finite(np.flatnonzero(~np.isfinite(array).all(axis=1)), len(array), name)


def _refuse_non_finite_rows(x: StreamedFeatures, name: str) -> None:
    bad = [
        start + np.flatnonzero(~np.isfinite(block).all(axis=1))
        for start, block in x.blocks()
        if not (np.isfinite(block.min()) and np.isfinite(block.max()))
    ]
    if bad:
        _raise_non_finite(np.concatenate(bad), len(x), name)
    x.checked = True


def _raise_non_finite(bad: np.ndarray, n: int, name: str) -> NoReturn:
    rows = ", ".join(str(row) for row in bad[:5]) + (", ..." if len(bad) > 5 else "")
    raise HeadError(
        f"expected finite {name}, found NaN or infinity in {len(bad):,} of {n:,} rows (row {rows})",
        hint="check the preprocessing and precision of the extraction, or drop these items",
    )


def as_labels(y: object, n: int, n_classes: int | None = None) -> IntArray:
    """Return ``y`` as ``(n,) int64`` class indices in ``[0, n_classes)``.

    Raises:
        HeadError: if the length, the type or a value is wrong.
    """
    array = np.asarray(y)
    if array.ndim != 1 or len(array) != n:
        raise HeadError(f"expected one label an item ({n:,} items), found shape {array.shape}")
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


def class_weight_vector(
    class_weight: str | np.ndarray | None, labels: IntArray | None, n_classes: int
) -> FloatArray | None:
    """Return one weight an item ``(n,) float64``, or None when all weigh the same.

    ``"balanced"`` weighs a class by ``n / (classes present * its count)``, as scikit-learn does.

    Args:
        class_weight: ``"balanced"``, one weight a class, or None.
        labels: class indices ``(n,)``; None for targets of another kind, which have no class.
        n_classes: the number of classes.

    Raises:
        HeadError: if the weights are unfit, or there are weights and no class indices.
    """
    if class_weight is None:
        return None
    if labels is None:
        raise HeadError(
            "class_weight needs class indices, one an item; these targets are soft, of several"
            " labels, or values",
            hint="leave class_weight out, or give class indices",
        )
    if isinstance(class_weight, str):
        if class_weight != "balanced":
            raise HeadError(f"expected class_weight 'balanced' or an array, found {class_weight!r}")
        counts = np.bincount(labels, minlength=n_classes)
        per_class = len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1))
    else:
        per_class = np.asarray(class_weight, dtype=np.float64)
        if per_class.shape != (n_classes,) or not np.isfinite(per_class).all():
            raise HeadError(f"expected {n_classes} finite class weights, found {per_class.shape}")
        if per_class.min() < 0:
            raise HeadError("expected class weights that are not negative")
    return cast(FloatArray, per_class[labels])
