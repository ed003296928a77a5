"""What scikit-learn users hold as X → a :class:`~headstart.data.Split` of images or texts.

What a value means follows from its type alone, never from the other values in the batch: an
item has the same features alone, in a training fold and in a test fold.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.core.errors import DataError
from headstart.data import DigestMemo, Items, Split
from headstart.data.arrays import ENCODED, image_content, image_items
from headstart.data.content import Content, UndecodableError
from headstart.data.decoding import ranged
from headstart.data.item_files import read_file
from headstart.data.items import ObjectItems, RangedItems, TextItems
from headstart.data.levels import levels_of
from headstart.data.lists import file_items
from headstart.data.samples import shares
from headstart.sklearn.faults import InputError

SMALLEST_SIDE = 8
"""Flat rows are taken as square images by default from 8×8 on (scikit-learn's digits)."""

_ENCODED = (str, os.PathLike, Mapping, *ENCODED)


def is_column(x: Any) -> bool:
    """Return whether ``x`` is a column of encoded images: paths, bytes, PIL images, or arrays of
    several sizes; and not an array or table of numbers.
    """
    values = column_values(x)
    if values is None:
        return False
    first = next((value for value in values if not _is_missing(value)), None)
    if isinstance(first, _ENCODED):
        return True
    if not _is_image_array(first):
        return False
    shapes = {np.shape(value) for value in values}
    return len(shapes) > 1 or not isinstance(x, list | tuple)  # else they stack


def column_values(x: Any) -> Sequence[Any] | None:
    """Return the entries of a list, series, one-dimensional array or table of one column.

    None for anything that has more axes or columns, or is no sequence at all.
    """
    columns = getattr(x, "columns", None)
    if columns is not None:
        if len(columns) != 1:
            return None
        return _to_list(_column(x, column_names_of(x)[0]))
    shape = getattr(x, "shape", None)
    if shape is not None and not hasattr(x, "detach"):
        if len(shape) == 2 and shape[1] == 1 and isinstance(x, np.ndarray):
            return _to_list(x[:, 0])
        return _to_list(x) if len(shape) == 1 else None
    return x if isinstance(x, list | tuple) else None


def named_column(x: Any, name: str, option: str = "image_column") -> Sequence[Any]:
    """Return the entries of one column of a table.

    Raises:
        InputError: ``x`` is no table, or has no such column.
    """
    names = column_names_of(x)
    if name not in names:
        raise InputError(
            f"expected a table with the column '{name}' ({option}), found "
            + (f"the columns {', '.join(map(repr, names))}" if names else type(x).__name__),
            hint=f"omit {option} for anything but a table",
        )
    return _to_list(_column(x, name))


def column_items(
    values: Sequence[Any],
    value_range: tuple[float, float] | None,
    memo: DigestMemo | None,
    *,
    native: bool = False,
) -> Items:
    """Return the items of a column of encoded images or sounds.

    Args:
        values: paths (from the working directory), bytes of image or sound files, ``{"bytes",
            "path"}`` as the hub writes them, PIL images, or arrays ``(h, w)``, ``(h, w, c)``,
            ``(c, h, w)``.
        value_range: the values of black and white, in arrays and in files.
        memo: remembers digests of files.
        native: whether samples stay as they are, of any number of bands.

    Raises:
        InputError: entries are missing or of another type; the first are named.
    """
    bad = [i for i, v in enumerate(values) if not (isinstance(v, _ENCODED) or _is_image_array(v))]
    if bad:
        shown = ", ".join(f"row {i} ({_shown(values[i])})" for i in bad[:5])
        raise InputError(
            f"expected a path, image bytes, a PIL image or an array in every row, found {shown}"
            + (f" and {len(bad) - 5} more" if len(bad) > 5 else "")
        )
    if all(isinstance(value, str | os.PathLike) for value in values):
        paths = [Path(os.fspath(value)).expanduser() for value in values]
        files = file_items(paths, None, memo)
        convert = shares if native else ranged
        return files if value_range is None else RangedItems(files, value_range, convert)
    return ObjectItems(len(values), lambda i: _content(values[i], value_range, native), "X")


def text_items(values: Sequence[Any]) -> Items:
    """Return the items of a column of texts.

    Raises:
        InputError: entries are missing or of another type; the first are named.
    """
    bad = [i for i, value in enumerate(values) if not isinstance(value, str)]
    if bad:
        shown = ", ".join(f"row {i} ({_shown(values[i])})" for i in bad[:5])
        raise InputError(
            f"expected a text in every row, found {shown}"
            + (f" and {len(bad) - 5} more" if len(bad) > 5 else ""),
            hint="remove these rows, or fill them",
        )
    return TextItems(values, "X row")


def array_items(
    array: NDArray[Any],
    image_shape: str | tuple[int, ...] | None,
    value_range: tuple[float, float] | None,
    *,
    advise: bool,
    native: bool = False,
) -> Items:
    """Return the items of a numeric array, one image per row.

    Args:
        array: ``(n, h, w)``, ``(n, h, w, c)``, ``(n, c, h, w)``, or flat rows ``(n, d)``.
        image_shape: see :func:`unflatten`; for flat rows.
        value_range: see :func:`to_levels`.
        advise: whether to warn of integers that look like another scale.
        native: whether samples stay as they are, of any number of bands.

    Raises:
        InputError: the shape or the values are not those of images.
    """
    if native:
        return _native_items(array, image_shape, value_range, advise=advise)
    if array.ndim == 2:
        array = unflatten(to_levels(array, value_range, advise=advise), image_shape)
    elif array.ndim in (3, 4):
        array = to_levels(array, value_range, advise=advise)
    else:
        raise InputError(
            f"expected images (n, h, w), (n, h, w, c), (n, c, h, w) or flat rows (n, d), found an"
            f" array of shape {array.shape}",
            hint="Reshape your data: one row per image",
        )
    try:
        items, _ = image_items(array, "X")
    except DataError as error:
        raise InputError(error.message, hint=error.hint) from error
    return items


def _native_items(
    array: NDArray[Any],
    image_shape: str | tuple[int, ...] | None,
    value_range: tuple[float, float] | None,
    *,
    advise: bool,
) -> Items:
    if array.ndim == 2:
        array = unflatten(array, image_shape)
    try:
        items, notes = image_items(array, "X", value_range, native=True)
    except DataError as error:
        raise InputError(error.message, hint=error.hint) from error
    for note in notes if advise else ():
        warnings.warn(note, UserWarning, stacklevel=4)
    return items


def split_of(items: Items) -> Split:
    """Return all items, in order, without labels."""
    n = len(items)
    return Split(items, np.arange(n, dtype=np.int64), np.full(n, -1, np.int64))


def to_levels(
    array: NDArray[Any], value_range: tuple[float, float] | None, *, advise: bool = False
) -> NDArray[np.uint8]:
    """Turn values into 8-bit levels, each on its own, by the rule of :mod:`headstart.data.levels`.

    Args:
        array: any shape.
        value_range: the values of black and of white. What lies outside becomes black or white,
            with a warning.
        advise: whether to warn of values that only use the darkest levels.

    Raises:
        InputError: values that no 8-bit image could have.
    """
    try:
        levels = levels_of(array, value_range, "X")
    except DataError as error:
        raise InputError(error.message, hint=error.hint) from error
    if advise or value_range is not None:
        for note in levels.notes:
            warnings.warn(note, UserWarning, stacklevel=4)
    return levels.convert(array)


def unflatten(rows: NDArray[Any], image_shape: str | tuple[int, ...] | None) -> NDArray[Any]:
    """Turn flat rows into images.

    Args:
        rows: ``(n, d)``, pixels in C order (line by line), as ``reshape(len(x), -1)`` makes them.
        image_shape: ``(h, w)``, ``(h, w, c)`` or ``(c, h, w)``; ``"square"``: the smallest square
            that holds the row, filled up with black; None: as square grey images of 8×8 or more,
            and nothing else. Colour is never guessed: rows may hold it pixel by pixel or plane
            by plane.

    Raises:
        InputError: the width does not fit.
    """
    n, width = rows.shape
    if image_shape == "square":
        side = math.isqrt(width - 1) + 1
        padded = np.zeros((n, side * side), rows.dtype)
        padded[:, :width] = rows
        return padded.reshape(n, side, side)
    if isinstance(image_shape, tuple | list):
        if math.prod(image_shape) != width:
            raise InputError(
                f"expected rows of {math.prod(image_shape):,} values"
                f" (image_shape={tuple(image_shape)}), found {width:,}"
            )
        return rows.reshape(n, *image_shape)
    side = math.isqrt(width)
    if side * side == width and side >= SMALLEST_SIDE:
        return rows.reshape(n, side, side)
    raise InputError(
        f"expected images, found flat rows of {width:,} values, which are not square grey images"
        f" of {SMALLEST_SIDE}×{SMALLEST_SIDE} or more",
        hint="give the layout of a row with image_shape=(h, w), (h, w, c) or (c, h, w), or take"
        ' any row as a square with image_shape="square"',
    )


def _content(value: Any, value_range: tuple[float, float] | None, native: bool) -> Content:
    if isinstance(value, Mapping):
        value = value.get("bytes") if value.get("bytes") is not None else value.get("path")
        if value is None:
            raise UndecodableError("neither bytes nor a path")
    if isinstance(value, str | os.PathLike):
        value = read_file(Path(os.fspath(value)).expanduser())
    return image_content(value, value_range, native=native)


def _is_image_array(value: Any) -> bool:
    return np.ndim(value) >= 2 if hasattr(value, "shape") else False


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def column_names_of(x: Any) -> list[Any]:
    """Return the names of the columns of a table; none of anything else."""
    names = getattr(x, "column_names", None)  # pyarrow; its "columns" are the arrays
    return list(x.columns if names is None else names) if hasattr(x, "columns") else []


def _column(x: Any, name: Any) -> Any:
    return x.column(name) if hasattr(x, "column_names") else x[name]


def _to_list(column: Any) -> list[Any]:
    for method in ("to_pylist", "to_list", "tolist"):
        if hasattr(column, method):
            return list(getattr(column, method)())
    return list(column)


def _shown(value: Any) -> str:
    return "missing" if _is_missing(value) else type(value).__name__
