"""Features as every solver takes them: checked, with one clear line for each fault, and read in
blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NoReturn, TypeAlias, cast

import numpy as np

from headstart.core.errors import HeadError
from headstart.core.wording import format_bytes
from headstart.evaluation.targets import FloatArray, IntArray
from headstart.heads.source import StreamedFeatures, lies_on_disk, memory_share

Features: TypeAlias = FloatArray | StreamedFeatures
"""Checked features ``(n, d)``: an array, or rows on disk that are indexed like one."""

_MOMENT_ROWS = 1024
_ROUNDED = 16.0
"""By so many units in the last place a sum of a network differs from batch to batch."""


def rows_to_predict(x: object, n_features: int) -> Features:
    """Return ``x`` as :func:`as_rows` does, or ``(0, d)`` where it is empty: ``[]``, no rows.

    Raises:
        HeadError: as :func:`as_features`.
    """
    shape = np.shape(x) if isinstance(x, list | tuple) else getattr(x, "shape", None)
    if shape is not None and len(shape) > 0 and shape[0] == 0 and shape[1:] in ((), (n_features,)):
        return np.empty((0, n_features), dtype=np.float32)
    return as_rows(x, n_features=n_features)


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


def blocks(n: int, size: int = 4096) -> Iterator[slice]:
    """Yield the slices of n rows, ``size`` at a time."""
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))


def standardised(rows: FloatArray, mean: FloatArray, scale: FloatArray) -> FloatArray:
    """Return ``(rows - mean) / scale`` as a new float64 array."""
    z = rows.astype(np.float64)
    z -= mean
    z /= scale
    return z


def moments(
    x: Features, rows: np.ndarray, weight: FloatArray | None = None
) -> tuple[FloatArray, FloatArray]:
    """Return mean and standard deviation ``(d,) float64`` of ``x[rows]``, in two exact passes.

    Args:
        x: features ``(n, d)``.
        rows: indices ``(m,)``.
        weight: ``(n,)``, how often each row of x counts; None: once.

    Rows on disk are visited in the order of the disk.

    The deviation of a column that is constant up to rounding is given as 1, as scikit-learn's
    ``StandardScaler`` does, so that it is centred and left alone. Features in single precision were
    rounded by a network: a column that varies by less than that, of its own mean or of the largest
    column, is dead, and dividing by its deviation would turn rounding into a feature.
    """
    if isinstance(x, StreamedFeatures):
        rows = np.sort(rows)
    parts = [rows[start : start + _MOMENT_ROWS] for start in range(0, len(rows), _MOMENT_ROWS)]
    total = float(len(rows)) if weight is None else float(weight[rows].sum())
    mean = np.zeros(x.shape[1])
    for part in parts:
        block = x[part]
        mean += block.sum(axis=0, dtype=np.float64) if weight is None else weight[part] @ block
    mean /= total
    variance = np.zeros(x.shape[1])
    for part in parts:
        block = x[part].astype(np.float64)
        block -= mean
        if weight is None:
            variance += np.einsum("nd,nd->d", block, block)
        else:
            variance += np.einsum("n,nd,nd->d", weight[part], block, block)
    variance /= total
    return mean, deviations(mean, variance, len(rows), x.dtype)


def deviations(
    mean: FloatArray, variance: FloatArray, count: int, dtype: np.dtype[Any]
) -> FloatArray:
    """Return the standard deviation ``(d,)`` of columns, 1 for those that are constant or dead.

    Args:
        mean, variance: ``(d,)``.
        count: rows.
        dtype: of the features.
    """
    eps = np.finfo(np.float64).eps
    # The bound that scikit-learn uses: what rounding alone leaves of a constant column.
    constant = variance <= count * eps * variance + (count * mean * eps) ** 2
    constant |= _dead(mean, np.sqrt(variance), dtype)
    return np.where(constant, 1.0, np.sqrt(np.where(constant, 1.0, variance)))


def _dead(mean: FloatArray, deviation: FloatArray, dtype: np.dtype[Any]) -> np.ndarray:
    """Return which columns ``(d,) bool`` vary by no more than a network's rounding."""
    if dtype == np.float64:
        return np.zeros(len(mean), bool)
    eps = float(np.finfo(np.float32).eps)
    largest = float((np.abs(mean) + deviation).max(initial=0.0))
    return np.asarray((deviation <= _ROUNDED * eps * np.abs(mean)) | (deviation <= eps * largest))


def subset(x: Features, rows: IntArray) -> Features:
    """Return the rows at ascending indices ``(m,)``; of streamed features without reading them."""
    return x.take(rows) if isinstance(x, StreamedFeatures) else x[rows]


def streaming_note(x: Features) -> tuple[str, ...]:
    """Return the note that features are read from disk; nothing for an array."""
    if not isinstance(x, StreamedFeatures):
        return ()
    return (
        f"the features ({format_bytes(x.nbytes)}) are read from disk in blocks, in every pass,"
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
            hint="give one row per item; pool or flatten the other axes first",
        )
    if 0 in shape:
        raise HeadError(f"expected at least one item and one feature, found shape {shape}")
    if n_features is not None and shape[1] != n_features:
        raise HeadError(
            f"expected {n_features:,} features per item, found {shape[1]:,} in the {name}",
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
