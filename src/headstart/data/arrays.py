"""Arrays and tensors of images, and scikit-learn's digits."""

from __future__ import annotations

import dataclasses
import zipfile
import zlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.core.errors import DataError
from headstart.core.wording import quoted
from headstart.data.content import Content, UndecodableError
from headstart.data.decoding import ranged, to_rgb
from headstart.data.items import Items, SampleItems, TextItems
from headstart.data.levels import Converter, ValueRange, is_unit, layout_of, levels_of
from headstart.data.samples import native_content, native_converter
from headstart.data.sound_arrays import SoundArrayItems, are_sound_arrays
from headstart.data.source import WHOLE, Part, Request, Source, split_keys, unlabelled
from headstart.data.targets import Labels, read_labels, read_matrix

_NPZ_KINDS = {"x": "x", "images": "x", "image": "x", "y": "y", "labels": "y", "label": "y"}


def read_pair(pair: Any, name: str, request: Request) -> tuple[Part, list[str]]:
    """Read ``(x, y)``, or ``x`` alone where labels are not required.

    Args:
        pair: x ``(n, h, w)``, ``(n, h, w, c)`` or ``(n, c, h, w)`` with c = 1 or 3; its values
            mean what :mod:`headstart.data.levels` says; or texts ``(n,)``; or n sounds as
            :mod:`headstart.data.sound_arrays` has them; y ``(n,)``, ``(n, 1)``
            or one-hot ``(n, k)``.
        name: what to call it.
        request: whether x alone is an error; the values of black and white.

    Raises:
        DataError: shapes, types or values that are not images or classes.
    """
    if not (isinstance(pair, tuple | list) and len(pair) == 2):
        if request.labels_required or isinstance(pair, tuple | list):
            raise DataError(
                f"{name}: expected a pair (x, y) of images and labels, found {type(pair).__name__}",
                hint="give (x, y), or {'train': (x, y), 'test': (x, y)}",
            )
        pair = (pair, None)
    y = None if pair[1] is None else _label_array(pair[1])
    items, notes = _items(pair[0], name, request)
    where = f"the labels of {name}"
    if y is None:
        return unlabelled(items, where), notes
    if len(y) != len(items):
        unit = {"text": "texts", "audio": "sounds"}.get(items.kind, "images")
        raise DataError(f"{name} has {len(items):,} {unit} but {len(y):,} labels")
    said = _labels(y, where, request, notes)
    return Part(items, said.names, where, None, None, said.targets, said.doubt), notes


def _items(given: Any, name: str, request: Request) -> tuple[Items, list[str]]:
    """Return texts for an array of strings, sounds where they come with a rate, else images."""
    if are_sound_arrays(given):
        return SoundArrayItems(given, name), []
    x = as_array(given)
    if x.ndim == 1 and len(x) and all(v is None or isinstance(v, str) for v in x.tolist()):
        return TextItems(x.tolist(), f"{name} item"), []
    return image_items(x, name, request.value_range, native=request.native)


def is_arrays(source: Any) -> bool:
    """Return whether this is arrays, tensors, nested lists, or a mapping to such."""
    return isinstance(source, Mapping | tuple | list | np.ndarray) or hasattr(source, "detach")


def read_arrays(source: Any, request: Request) -> Source:
    """Read ``(x, y)`` or a mapping from split names to such pairs.

    Raises:
        DataError: as for :func:`read_pair`, or a mapping without known split names.
    """
    if not isinstance(source, Mapping):
        part, notes = read_pair(source, "the arrays", request)
        return Source("arrays", {WHOLE: part}, notes=tuple(notes))
    chosen = split_keys(source, request, "expected {'train': (x, y), 'test': (x, y)}")
    parts: dict[str, Part] = {}
    all_notes: list[str] = []
    for key, role in chosen.items():
        parts[role], notes = read_pair(source[key], key, request)
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
            hint="save it with one of these sets of names",
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


TILE = 106
"""Pixels a side of a piece of a sample photograph."""


def read_photographs() -> Source:
    """Return pieces of scikit-learn's two sample photographs, 106×106 pixels, 24 of each.

    The classes are the photographs: ``flower`` and ``temple``. Pieces do not overlap; those of the
    left half train and those of the right half are tested, so that neighbours stay on one side.
    """
    from sklearn.datasets import load_sample_image

    pieces: dict[str, list[NDArray[np.uint8]]] = {"train": [], "test": []}
    names: dict[str, list[str | None]] = {"train": [], "test": []}
    for name, file in (("flower", "flower.jpg"), ("temple", "china.jpg")):
        image = np.asarray(load_sample_image(file))
        height, width = (size // TILE for size in image.shape[:2])
        for row, column in np.ndindex(height, width):
            role = "train" if column < width // 2 else "test"
            top, left = row * TILE, column * TILE
            pieces[role].append(image[top : top + TILE, left : left + TILE])
            names[role].append(name)
    parts = {
        role: Part(image_items(np.stack(some), f"photographs, {role}")[0], tuple(names[role]), role)
        for role, some in pieces.items()
    }
    return Source("photographs", parts)


def image_items(
    x: NDArray[Any], name: str, value_range: ValueRange | None = None, *, native: bool = False
) -> tuple[SampleItems, list[str]]:
    """Return the items of an array of images, and notes about how its values were taken.

    Args:
        x: ``(n, h, w)``, ``(n, h, w, c)`` or ``(n, c, h, w)``.
        name: what to call it.
        value_range: the values of black and white.
        native: whether samples stay as they are, of any number of bands; with a range they become
            floats from 0 to 1.

    Raises:
        DataError: not an array of images.
    """
    if len(x.shape) == 0 or len(x) == 0:
        raise DataError(f"{name} holds no images", hint="expected an array (n, h, w, 3)")
    if native:
        convert, notes = native_converter(x, name, value_range)
        return SampleItems(x, convert, name), notes
    layout = layout_of(x.shape[1:], name)
    levels = levels_of(x, value_range, name)
    return SampleItems(x, partial(_samples, layout, levels.convert), name), list(levels.notes)


def _samples(layout: Converter, convert: Converter, values: NDArray[Any]) -> NDArray[np.uint8]:
    return layout(convert(values))


def sample(x: Any, value_range: ValueRange | None = None) -> NDArray[np.uint8]:
    """Turn one image array or tensor into samples ``(h, w, 3) uint8``.

    Raises:
        DataError: not an image, or values that do not say what they mean.
    """
    array = as_array(x)
    if array.size == 0:
        raise DataError("the image has no pixels", hint="expected (h, w), (h, w, c) or (c, h, w)")
    if value_range is None and array.dtype.kind == "f" and not is_unit(array):
        raise DataError(
            f"floats from {array.min():g} to {array.max():g}, expected 0 to 1",
            hint="drop the normalisation from its transform, because the backbone has its own;"
            " or say which values are black and white with value_range=(black, white)",
        )
    layout = layout_of(array.shape, "the image")
    return layout(levels_of(array, value_range, "the image").convert(array))


ENCODED = (bytes, bytearray, memoryview, Image.Image)
"""Types of a single image in memory, beside arrays."""


def image_content(
    value: Any, value_range: ValueRange | None = None, *, native: bool = False
) -> Content:
    """Return the content of one image that a user holds in memory.

    Args:
        value: the bytes of an image file, a PIL image, or an array or tensor; see :func:`sample`.
        value_range: the values of black and white.
        native: whether samples stay as they are, of any number of bands.

    Raises:
        UndecodableError: it is no image.
    """
    if native:
        plain = value if isinstance(value, ENCODED) else as_array(value)
        return native_content(plain, value_range)
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value) if value_range is None else ranged(bytes(value), value_range)
    if isinstance(value, Image.Image):
        if value_range is None:
            return np.asarray(to_rgb(value))
        return ranged(value, value_range)
    try:
        return sample(value, value_range)
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
            "the images or labels differ in shape or type",
            hint="give arrays of one shape; images of several sizes fit into a folder or a table",
        )
    return array


def _are_labels(array: NDArray[Any]) -> bool:
    """Return whether an array of objects is what pandas makes of a column of text."""
    return array.ndim == 1 and all(
        value is None or isinstance(value, str | bytes | int | float) for value in array
    )


def _label_array(y: Any) -> NDArray[Any]:
    """Return labels as an array; lists of names, one an item, stay lists."""
    if isinstance(y, list | tuple) and any(isinstance(one, list | tuple | set) for one in y):
        named = any(
            isinstance(one, set) or any(isinstance(name, str) for name in one)
            for one in y
            if isinstance(one, list | tuple | set)
        )
        if named or len({len(one) for one in y if hasattr(one, "__len__")}) > 1:
            array = np.empty(len(y), object)
            array[:] = y
            return array
    if isinstance(y, np.ndarray) and y.ndim == 1 and y.dtype == object:
        return y
    return as_array(y)


def _labels(y: NDArray[Any], where: str, request: Request, notes: list[str]) -> Labels:
    if y.ndim != 2 or y.shape[1] < 2 or y.dtype.kind not in "iufb":
        return read_labels(_flat_labels(y, where, notes), where, request.task)
    classes = request.task == "classification" or (request.task == "auto" and _one_hot(y))
    if not classes:
        return read_matrix(y, where, request.task)
    return read_labels(_flat_labels(y, where, notes), where, request.task)


def _one_hot(y: NDArray[Any]) -> bool:
    return bool(((y == 0) | (y == 1)).all() and (y.sum(1) == 1).all())


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
            hint="for several labels per image give 0 and 1 in columns (n, k), task='multi-label'",
        )
    return y
