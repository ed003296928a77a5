"""What the values of numeric images mean: one rule for arrays, tensors, tables and estimators.

A value means what its type says, never what the other values of a batch suggest, so an image has
the same features alone, in a training fold and in a test fold:

- ``uint8``, and other integers from 0 to 255, are levels; 0 is black and 255 white;
- truth values are black and white;
- floats lie in [0, 1], as torchvision's ``ToTensor`` gives them.

Everything else is refused until ``value_range=(black, white)`` says what the values mean: 10, 12,
14 or 16 bits, floats to 255, −1 to 1, normalised inputs. Nothing is converted by a guess. Three
channels are red, green and blue, and one is grey. A fourth is not taken for alpha: it may be near
infrared, depth or a mask.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from headstart.core.errors import DataError

BANDS_HINT = (
    "choose three of them with bands=(3, 2, 1), counted from 1, or use a network with that many"
    " channels, such as backbone='timm/NAME' with model_args={'in_chans': 4}, for which timm sums"
    " and repeats the first filters"
)
"""What to do about images of other bands than a network takes."""

ValueRange: TypeAlias = tuple[float, float]
"""The values of black and of white."""

Converter: TypeAlias = Callable[[NDArray[Any]], NDArray[Any]]

DARK = 32
"""Levels that reach no further are hardly visible on a scale to 255."""

_WHITES = (1, 16, 255, 1023, 4095, 16383, 65535)
"""Values that are usually white: 4, 8, 10, 12, 14 and 16 bits (the digits reach 16)."""


@dataclass(frozen=True)
class Levels:
    """How values become 8-bit levels.

    Attributes:
        convert: any array of the same kind → levels ``uint8``, each value on its own.
        notes: what looks odd, one sentence each.
    """

    convert: Converter
    notes: tuple[str, ...] = ()


def levels_of(x: NDArray[Any], value_range: ValueRange | None, name: str) -> Levels:
    """Decide what the values of an array mean.

    Args:
        x: any shape, not empty.
        value_range: the values of black and of white; what lies outside becomes black or white,
            and a note says so. None: by type, as this module says.
        name: what to call the array.

    Raises:
        DataError: the type does not say what the values mean.
    """
    if x.dtype.kind not in "biuf":
        raise DataError(
            f"{name}: expected numbers, found values of type {x.dtype}",
            hint="give arrays of integers, floats or truth values",
        )
    if value_range is not None:
        low, high = checked_range(value_range)
        return Levels(partial(scaled, low=low, high=high), _outside(x, low, high, name))
    if x.dtype == bool:
        return Levels(_of_truth)
    top = float(x.max())
    if x.dtype.kind == "f":
        if not is_unit(x):
            raise _unknown(x, name, "floats from 0 to 1")
        return Levels(_of_unit, _dark(top * 255, top, name))
    if not _within(x, 0, 255):
        raise _unknown(x, name, "integers from 0 to 255")
    notes = _dark(top, top, name)
    return Levels(_of_bytes, notes)


def _of_truth(values: NDArray[Any]) -> NDArray[np.uint8]:
    return values.astype(np.uint8) * np.uint8(255)


def _of_unit(values: NDArray[Any]) -> NDArray[np.uint8]:
    return np.rint(values * 255.0).astype(np.uint8)


def _of_bytes(values: NDArray[Any]) -> NDArray[np.uint8]:
    return values if values.dtype == np.uint8 else values.astype(np.uint8)


def checked_range(limits: Any) -> ValueRange:
    """Return a range as two floats.

    Raises:
        DataError: it is not one.
    """
    fault = range_fault(limits)
    if fault is not None:
        raise DataError(f"value_range {fault}", hint="such as value_range=(0, 4095)")
    return float(limits[0]), float(limits[1])


def range_fault(limits: Any) -> str | None:
    """Return what is wrong with a range, as the end of a sentence, or None."""
    try:
        low, high = (float(v) for v in limits)
    except (TypeError, ValueError):
        return f"must be (black, white) or None, not {limits!r}"
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        return f"must be two numbers, the smaller first, not {limits!r}"
    return None


def scaled(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """Return levels of values from ``low`` (black) to ``high`` (white), clipped and rounded."""
    share = (np.clip(values, low, high).astype(np.float64) - low) / (high - low)
    return np.asarray(np.rint(share * 255.0), dtype=np.uint8)


def is_unit(x: NDArray[Any]) -> bool:
    """Return whether all values lie in [0, 1]."""
    return _within(x, 0.0, 1.0)


def likely_white(top: float) -> float:
    """Return the usual value of white that is nearest above a largest value."""
    return next((white for white in _WHITES if top <= white), top)


def _outside(x: NDArray[Any], low: float, high: float, name: str) -> tuple[str, ...]:
    if x.dtype.kind == "f" and bool(np.isnan(x).any()):
        raise DataError(f"{name}: some values are NaN", hint="replace them first")
    count = int(((x < low) | (x > high)).sum())
    if not count:
        return ()
    return (
        f"{count:,} of {x.size:,} values of {name} are outside value_range=({low:g}, {high:g})"
        " and were clipped to black or white.",
    )


def _dark(level: float, top: float, name: str) -> tuple[str, ...]:
    if not 0 < level < DARK:
        return ()
    white = "255" if top == level else "1"
    return (
        f"The values of {name} reach {top:g}, and white is {white}: nearly black images; if"
        f" {top:g} is meant as white, give value_range=(0, {top:g}).",
    )


def _unknown(x: NDArray[Any], name: str, expected: str) -> DataError:
    low, high = float(x.min()), float(x.max())
    if math.isnan(low) or math.isnan(high):
        return DataError(f"{name}: some values are NaN", hint="replace them first")
    example = "(black, white)"
    if low >= 0:
        example = f"(0, {likely_white(high):g})"
    elif low >= -1 and high <= 1:
        example = "(-1, 1)"
    return DataError(
        f"{name}: values of type {x.dtype} from {low:g} to {high:g} are not image samples",
        hint=f"expected {expected}; say which values are black and white, such as"
        f" value_range={example}, or undo any normalisation first",
    )


def _within(x: NDArray[Any], low: float, high: float) -> bool:
    return bool(x.min() >= low and x.max() <= high)  # False for NaN


# -- channels --------------------------------------------------------------------------------------


def _grey(samples: NDArray[Any]) -> NDArray[Any]:
    return np.repeat(samples[:, :, None], 3, axis=2)


def _channels_first(samples: NDArray[Any]) -> NDArray[Any]:
    return _to_three(np.moveaxis(samples, 0, 2))


def layout_of(shape: tuple[int, ...], name: str) -> Converter:
    """Return the function from one image's levels to ``(h, w, 3)``.

    Raises:
        DataError: the shape is not that of a grey or a colour image.
    """
    if len(shape) == 2 and all(shape):
        return _grey
    if len(shape) == 3 and all(shape):
        if shape[2] in (1, 3):
            return _to_three
        if shape[0] in (1, 3):
            return _channels_first
        channels = min(shape[0], shape[2])
        if channels in (2, 4):
            what = "alpha" if channels == 2 else "alpha, near infrared or a mask"
            raise DataError(
                f"{name}: items of shape {shape} have {channels} channels, and nothing says whether"
                f" the last one is {what}",
                hint=f"choose 1 or 3 of them, such as x[..., :3], or {BANDS_HINT}; PIL images and"
                " image files say themselves that they have alpha",
            )
        if 3 < channels < min(sorted(shape)[1:]):
            raise DataError(
                f"{name}: items of shape {shape} are images of {channels} bands",
                hint=BANDS_HINT,
            )
    raise DataError(
        f"{name}: items of shape {shape} are not images",
        hint="expected (h, w), (h, w, c) or (c, h, w) with 1 or 3 channels",
    )


def _to_three(levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if levels.shape[2] == 1:
        return np.repeat(levels, 3, axis=2)
    return np.ascontiguousarray(levels)


__all__ = [
    "DARK",
    "Converter",
    "Levels",
    "ValueRange",
    "checked_range",
    "is_unit",
    "layout_of",
    "levels_of",
    "likely_white",
    "range_fault",
    "scaled",
]
