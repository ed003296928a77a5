"""Batches as Keras users have them: a ``keras.utils.PyDataset``, or a ``tf.data.Dataset``.

Both yield ``(x, y)`` by the batch. They are read once, into arrays: the items are then known by
their content, and every rule for arrays holds for them (what values mean is asked, never guessed).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from headstart.core.errors import DataError
from headstart.data.arrays import read_arrays
from headstart.data.source import Request, Source

_INFINITE = -1
"""``tf.data.INFINITE_CARDINALITY``."""


def are_batches(source: Any, _request: Request) -> bool:
    """Return whether this yields batches in Keras's or TensorFlow's way, or a mapping to such."""
    if isinstance(source, Mapping):
        return bool(source) and all(_is_one(value) for value in source.values())
    return _is_one(source)


def read_batches(source: Any, request: Request) -> Source:
    """Read all batches into arrays.

    Raises:
        DataError: a batch is not ``(x, y)``, or what :func:`read_arrays` raises.
    """
    if isinstance(source, Mapping):
        return read_arrays({name: _arrays(value, name) for name, value in source.items()}, request)
    return read_arrays(_arrays(source, type(source).__name__), request)


def _is_one(source: Any) -> bool:
    keras = sys.modules.get("keras")
    if keras is not None and isinstance(source, keras.utils.PyDataset):
        return True
    # What tf.data's sets are read by; TensorFlow itself is not asked for.
    return callable(getattr(source, "as_numpy_iterator", None))


def _arrays(source: Any, name: str) -> tuple[np.ndarray, np.ndarray]:
    xs, ys = [], []
    for number, batch in enumerate(_batches(source, name)):
        if not isinstance(batch, tuple | list) or len(batch) not in (2, 3):
            raise DataError(
                f"batch {number} of {name} is a {type(batch).__name__}, expected (x, y)",
                hint="let it yield images and labels",
            )
        xs.append(np.asarray(batch[0]))
        ys.append(np.asarray(batch[1]))
        if ys[-1].ndim == 0:
            raise DataError(
                f"{name} yields single items, expected batches (x, y)", hint="use its .batch(32)"
            )
    if not xs:
        raise DataError(f"{name} has no batches")
    shapes = {found.shape[1:] for found in xs}
    if len(shapes) > 1 or len({found.shape[1:] for found in ys}) > 1:
        listed = ", ".join(str(shape) for shape in sorted(shapes))
        raise DataError(
            f"items of {name} differ in shape among the batches: {listed}",
            hint="let it resize the images to one size, or pass the folder or table of the files",
        )
    x, y = np.concatenate(xs), np.concatenate(ys)
    # One column per class is how Keras writes categories; one column alone, how it writes two.
    if y.ndim == 2 and y.shape[1] > 1 and np.isin(y, (0, 1)).all() and (y.sum(axis=1) == 1).all():
        return x, y.argmax(axis=1)
    y = y.reshape(len(y), -1)[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    whole = np.issubdtype(y.dtype, np.floating) and np.array_equal(y, np.round(y))
    return x, y.astype(np.int64) if whole else y


def _batches(source: Any, name: str) -> Iterator[Any]:
    if hasattr(source, "as_numpy_iterator"):
        cardinality = getattr(source, "cardinality", None)
        if cardinality is not None and int(cardinality()) == _INFINITE:
            raise DataError(f"{name} never ends", hint="remove its .repeat(), or use .take(n)")
        yield from source.as_numpy_iterator()
        return
    if source.num_batches is None:
        raise DataError(f"{name} never ends", hint="give it a __len__: the number of batches")
    for number in range(source.num_batches):
        yield source[number]


__all__ = ["are_batches", "read_batches"]
