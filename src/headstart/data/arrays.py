"""Arrays and tensors of images, and scikit-learn's digits."""

from __future__ import annotations

import dataclasses
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.core.errors import DataError
from headstart.core.wording import quoted
from headstart.data.content import Content, UndecodableError
from headstart.data.decoding import to_rgb
from headstart.data.items import SampleItems
from headstart.data.labels import class_names
from headstart.data.source import WHOLE, Part, Request, Source, split_keys, unlabelled

_NPZ_KINDS = {"x": "x", "images": "x", "image": "x", "y": "y", "labels": "y", "label": "y"}
Converter = Callable[[NDArray[Any]], NDArray[np.uint8]]


def read_pair(pair: Any, name: str, labels_required: bool = True) -> tuple[Part, list[str]]:
    """Read ``(x, y)``, or ``x`` alone where labels are not required.

    Args:
        pair: x ``(n, h, w)``, ``(n, h, w, c)`` or ``(n, c, h, w)`` with c = 1, 3 or 4, of type
            uint8, bool, uint16 or a float; y ``(n,)``, ``(n, 1)`` or one-hot ``(n, k)``.
        name: what to call it.
        labels_required: whether x alone is an error.

    Raises:
        DataError: shapes, types or values that are not images or classes.
    """
    if not (isinstance(pair, tuple | list) and len(pair) == 2):
        if labels_required or isinstance(pair, tuple | list):
            raise DataError(
                f"{name}: expected a pair (x, y) of images and labels, found {type(pair).__name__}",
                hint="give (x, y), or {'train': (x, y), 'test': (x, y)}",
            )
        pair = (pair, None)
    x, y = as_array(pair[0]), None if pair[1] is None else as_array(pair[1])
    items, notes = image_items(x, name)
    where = f"the labels of {name}"
    if y is None:
        return unlabelled(items, where), notes
    if len(y) != len(x):
        raise DataError(f"{name} has {len(x):,} images but {len(y):,} labels")
    return Part(items, tuple(class_names(_flat_labels(y, where, notes), where)), where), notes


def is_arrays(source: Any) -> bool:
    """Return whether this is arrays, tensors, nested lists, or a mapping to such."""
    return isinstance(source, Mapping | tuple | list | np.ndarray) or hasattr(source, "detach")


def read_arrays(source: Any, request: Request) -> Source:
    """Read ``(x, y)`` or a mapping from split names to such pairs.

    Raises:
        DataError: as for :func:`read_pair`, or a mapping without known split names.
    """
    if not isinstance(source, Mapping):
        part, notes = read_pair(source, "the arrays", request.labels_required)
        return Source("arrays", {WHOLE: part}, notes=tuple(notes))
    chosen = split_keys(source, request, "expected {'train': (x, y), 'test': (x, y)}")
    parts: dict[str, Part] = {}
    all_notes: list[str] = []
    for key, role in chosen.items():
        parts[role], notes = read_pair(source[key], key, request.labels_required)
        all_notes += notes
    return Source("arrays", parts, notes=tuple(all_notes))


def read_npz(path: Path, request: Request) -> Source:
    """Read a numpy archive with ``x``, ``y`` or ``x_train``, ``y_train``, ``x_test``, ``y_test``.

    ``images`` and ``labels`` may be the names of x and y, before or after the split's name, as in
    Keras' ``mnist.npz`` and in MedMNIST.

    Raises:
        DataError: not an archive of plain arrays, or arrays under other names.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            contents = {key: archive[key] for key in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"'{path}' cannot be read as a numpy archive of plain arrays: {error}",
            hint="save it with numpy.savez(path, x_train=..., y_train=...); objects are refused",
        ) from error
    pairs: dict[str, dict[str, Any]] = {}
    for key, value in contents.items():
        words = key.casefold().split("_")
        kinds = [_NPZ_KINDS[word] for word in words if word in _NPZ_KINDS]
        rest = "_".join(word for word in words if word not in _NPZ_KINDS)
        if len(kinds) == 1:
            pairs.setdefault(rest or WHOLE, {})[kinds[0]] = value
    whole = {key: (p["x"], p.get("y")) for key, p in pairs.items() if "x" in p}
    if not whole or (request.labels_required and any(y is None for _, y in whole.values())):
        raise DataError(
            f"'{path}' holds the arrays {quoted(list(contents), 5)}, expected x and y, or x_train,"
            " y_train, x_test and y_test",
            hint="save it with such names",
        )
    source = whole[WHOLE] if set(whole) == {WHOLE} else whole
    found = read_arrays(source, request)
    return dataclasses.replace(found, name=path.stem)


def read_digits() -> Source:
    """Return scikit-learn's 1,797 handwritten digits as 8×8 images, bright ink on black.

    Values 0..16 become ``round(value / 16 * 255)``, in three equal channels.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    samples = np.rint(digits.images / 16.0 * 255.0).astype(np.uint8)
    items, _ = image_items(samples, "digits")
    names = tuple(str(label) for label in digits.target.tolist())
    return Source("digits", {WHOLE: Part(items, names, "digits")})


def image_items(x: NDArray[Any], name: str) -> tuple[SampleItems, list[str]]:
    """Return the items of an array of images, and notes about how its values were taken.

    Raises:
        DataError: not an array of images.
    """
    if len(x.shape) == 0 or len(x) == 0:
        raise DataError(f"{name} holds no images", hint="expected an array (n, h, w, 3)")
    layout = _layout(x.shape[1:], name)
    levels, notes = _levels(x, name)
    return SampleItems(x, lambda sample: layout(levels(sample)), name), notes


def sample(x: Any) -> NDArray[np.uint8]:
    """Turn one image array or tensor into samples ``(h, w, 3) uint8``.

    A float must lie in [0, 1], as torchvision's ``ToTensor`` yields it: one image alone cannot
    say whether its floats were meant to reach 255.

    Raises:
        DataError: not an image.
    """
    array = as_array(x)
    if array.dtype.kind == "f" and array.size and not _within(array, 0.0, 1.0):
        raise DataError(
            f"floats from {array.min():g} to {array.max():g}, expected 0 to 1",
            hint="drop the normalisation from its transform: the backbone brings its own",
        )
    levels, _ = _levels(array, "the image")
    return _layout(array.shape, "the image")(levels(array))


ENCODED = (bytes, bytearray, memoryview, Image.Image)
"""Types of a single image in memory, beside arrays."""


def image_content(
    value: Any, levels: Callable[[NDArray[Any]], NDArray[Any]] = lambda array: array
) -> Content:
    """Return the content of one image that a user holds in memory.

    Args:
        value: the bytes of an image file, a PIL image, or an array or tensor; see :func:`sample`.
        levels: applied to an array first.

    Raises:
        UndecodableError: it is no image.
    """
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, Image.Image):
        return np.asarray(to_rgb(value))
    try:
        return sample(levels(as_array(value)))
    except DataError as error:
        raise UndecodableError(str(error)) from error


def as_array(x: Any) -> NDArray[Any]:
    """Return a numpy array of an array, a tensor on any device, or nested lists."""
    if hasattr(x, "detach"):
        x = x.detach().cpu()
    try:
        array = np.asarray(x)
    except ValueError:  # ragged nested lists
        array = np.array([[]], object)
    if array.dtype == object and not _are_labels(array):
        raise DataError(
            "the images or labels differ in shape or type among themselves",
            hint="give arrays of one shape; images of several sizes fit into a folder or a table",
        )
    return array


def _are_labels(array: NDArray[Any]) -> bool:
    """Return whether an array of objects is what pandas makes of a column of text."""
    return array.ndim == 1 and all(
        value is None or isinstance(value, str | bytes | int | float) for value in array
    )


def _layout(shape: tuple[int, ...], name: str) -> Converter:
    """Return the function from one image's levels to ``(h, w, 3)``."""
    if len(shape) == 2:
        return lambda v: np.repeat(v[:, :, None], 3, axis=2)
    if len(shape) == 3 and shape[2] in (1, 3, 4):
        return _to_three
    if len(shape) == 3 and shape[0] in (1, 3, 4):
        return lambda v: _to_three(np.moveaxis(v, 0, 2))
    raise DataError(
        f"{name}: items of shape {shape} are not images",
        hint="expected (h, w), (h, w, c) or (c, h, w) with 1, 3 or 4 channels",
    )


def _to_three(levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if levels.shape[2] == 1:
        return np.repeat(levels, 3, axis=2)
    if levels.shape[2] == 4:
        alpha = levels[:, :, 3:].astype(np.uint16)
        blend = levels[:, :, :3] * alpha + 255 * (255 - alpha)
        return ((blend + 127) // 255).astype(np.uint8)
    return np.ascontiguousarray(levels)


def _levels(x: NDArray[Any], name: str) -> tuple[Converter, list[str]]:
    """Return the function from raw values to 0..255, decided by type and range of the whole."""
    if x.dtype == np.uint8:
        return lambda v: v, []
    if x.dtype == bool:
        return lambda v: v.astype(np.uint8) * np.uint8(255), []
    if x.dtype == np.uint16:
        return lambda v: (v >> 8).astype(np.uint8), [
            f"The 16-bit values of {name} were taken by their high byte."
        ]
    if x.dtype.kind in "iu" and _within(x, 0, 255):
        return lambda v: v.astype(np.uint8), []
    if x.dtype.kind == "f" and _within(x, 0.0, 1.0):
        return lambda v: np.rint(v * 255.0).astype(np.uint8), [
            f"The values of {name} lie in [0, 1] and were taken as 8-bit levels divided by 255."
        ]
    if x.dtype.kind == "f" and _within(x, 0.0, 255.0) and bool((x == np.rint(x)).all()):
        return lambda v: v.astype(np.uint8), [
            f"The floats of {name} are whole numbers up to 255 and were taken as 8-bit levels."
        ]
    low, high = x.min(), x.max()
    raise DataError(
        f"{name}: values of type {x.dtype} from {low:g} to {high:g} are not image samples",
        hint="expected uint8, uint16, bool, or floats in [0, 1]; undo any normalisation first",
    )


def _within(x: NDArray[Any], low: float, high: float) -> bool:
    return bool(x.min() >= low and x.max() <= high)  # False for NaN


def _flat_labels(y: NDArray[Any], where: str, notes: list[str]) -> NDArray[Any]:
    if y.ndim == 2 and y.shape[1] == 1:
        return y[:, 0]
    if y.ndim == 2 and y.dtype.kind in "iufb" and bool((np.sort(y, 1)[:, -1] == 1).all()):
        one_hot = ((y == 0) | (y == 1)).all() and (y.sum(1) == 1).all()
        if one_hot:
            notes.append(f"{where[0].upper()}{where[1:]} are one-hot; the class is its position.")
            return np.asarray(y.argmax(1))
    if y.ndim != 1:
        raise DataError(
            f"{where} have the shape {y.shape}, expected one class per image: (n,)",
            hint="headstart takes one class per image, not several",
        )
    return y
