"""Any content of an image → samples of any number of bands and any depth, unconverted.

:mod:`headstart.data.sample_files` says what is black and white in arrays, NumPy and DICOM files.
Of the others:

- files of 8 bits a sample: 0 and 255; alpha is a band like the others;
- PNG, PPM and JPEG 2000 of more bits: 0 and the largest value, as these formats define it;
- a TIFF that declares 9 to 15 bits: 0 and the largest value of these;
- a TIFF of 16 bits, of more, or of floats outside [0, 1]: nothing says it.
"""

from __future__ import annotations

import importlib.util
import io
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.core.errors import DataError
from headstart.data import decoding, depths
from headstart.data.content import Content, TooLargeError, UndecodableError
from headstart.data.formats import open_header
from headstart.data.levels import Converter, ValueRange, levels_of
from headstart.data.orientation import upright_of
from headstart.data.remarks import FRAMES, remark
from headstart.data.sample_files import (
    MOST_BYTES,
    Samples,
    is_samples_file,
    limits_of,
    of_array,
    read_samples,
    shares_of,
)

RULES = 2
"""Version of these rules; part of every cache key of bands."""

_SAMPLES = ("MINISBLACK", "MINISWHITE", "RGB", "SEPARATED")
"""Colours of a TIFF whose samples are taken as they are; the others are converted by Pillow."""
_NO_DATA = 42113
"""The tag of GDAL for the value that stands for no data."""
NO_DATA = "TIFF with no-data pixels, which are read as black"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def shares(content: Content, value_range: ValueRange | None = None) -> NDArray[np.float32]:
    """Return the samples of a file or an array from 0 (black) to 1 (white).

    Args:
        content: the bytes of a file, or an array ``(h, w)``, ``(h, w, c)`` or ``(c, h, w)``.
        value_range: see :func:`~headstart.data.sample_files.shares_of`.

    Raises:
        UndecodableError: it cannot be decoded, or nothing says what is black and white.
    """
    found = samples_of(content)
    wide = value_range is not None and (value_range[0] < 0 or value_range[1] > 255)
    if wide and isinstance(content, bytes) and found.values.dtype == np.uint8:
        raise UndecodableError(
            f"8 bits per sample, too few for value_range={value_range}; read it without"
            " value_range, or separately from the others"
        )
    return shares_of(found, value_range)


def samples_of(content: Content) -> Samples:
    """Return the samples of a file or an array as they are.

    Raises:
        UndecodableError: as for :func:`shares`.
    """
    if isinstance(content, str):
        raise UndecodableError("text, not an image")
    if not isinstance(content, bytes):
        return of_array(content)
    if is_samples_file(content):
        return read_samples(content)
    return _of_tiff(content) if content.startswith(_TIFF) else _of_picture(content)


def native_content(value: Any, value_range: ValueRange | None = None) -> Content:
    """Return the content of one image in memory, with its samples as they are.

    Args:
        value: the bytes of an image file, a PIL image, or an array.
        value_range: the values of black and white, by which samples become floats from 0 to 1.

    Raises:
        UndecodableError: it is no image.
    """
    content: Content
    if isinstance(value, bytes | bytearray | memoryview):
        content = bytes(value)
    elif isinstance(value, Image.Image):
        content = _plain(value, value)
    else:
        content = np.asarray(value)
        of_array(content)
    return content if value_range is None else shares(content, value_range)


def native_converter(
    x: NDArray[Any], name: str, value_range: ValueRange | None
) -> tuple[Converter, list[str]]:
    """Return what takes one image of an array, and notes about its values.

    Args:
        x: ``(n, h, w)``, ``(n, h, w, c)`` or ``(n, c, h, w)``, not empty.
        name: what to call it.
        value_range: the values of black and white.

    Raises:
        DataError: it holds no images, or nothing says what its values mean.
    """
    if x.ndim not in (3, 4):
        raise DataError(
            f"{name}: items of shape {x.shape[1:]} are not images",
            hint="expected (h, w), (h, w, bands) or (bands, h, w)",
        )
    levels = levels_of(x, value_range, name)
    if value_range is not None:
        return partial(_ranged, value_range=value_range), list(levels.notes)
    if x.dtype.kind in "fb":
        return np.asarray, list(levels.notes)
    return levels.convert, list(levels.notes)  # whole numbers from 0 to 255, unchanged


def _ranged(values: NDArray[Any], value_range: ValueRange) -> NDArray[Any]:
    return shares_of(of_array(values), value_range)


def _of_picture(data: bytes) -> Samples:
    """Read a file by Pillow, with all the bits that it has; colours of no RGB become RGB."""
    image = open_header(data)
    with decoding.clear():
        decoding.remark_on(image, data)
        deep = depths.deep_samples(image, data)
        if deep is not None:
            known = image.format in depths.SIXTEEN and deep.dtype.kind != "f"
            return Samples(deep, (0.0, 65535.0) if known else _declared(image, deep))
        image.load()
        values = _plain(upright_of(image), image)
    return Samples(values, (0.0, 255.0), bands_last=True if values.ndim == 3 else None)


def _plain(image: Image.Image, source: Image.Image) -> NDArray[Any]:
    """Return the samples of an image; those of a palette, or of no RGB, as RGB."""
    if image.mode == "P":
        image = image.convert("RGBA" if "transparency" in source.info else "RGB")
    elif image.mode == "1":
        image = image.convert("L")
    elif image.mode not in ("L", "LA", "RGB", "RGBA", "F") and not image.mode.startswith("I"):
        image = image.convert("RGB")
    return np.asarray(image)


def _declared(image: Any, values: NDArray[Any]) -> ValueRange | None:
    """Return what a TIFF says by its number of bits, where that is no whole number of bytes."""
    bits = depths.bits_of(image)
    return (0.0, float(2**bits - 1)) if 8 < bits < 16 else limits_of(values)


def _of_tiff(data: bytes) -> Samples:
    """Read the first picture of a TIFF by tifffile; a plain one by Pillow where that is missing."""
    if importlib.util.find_spec("tifffile") is None:
        try:
            return _of_picture(data)
        except UndecodableError as error:
            raise UndecodableError(
                f"{error} (the package tifffile reads other TIFFs: pip install 'headstart[tiff]')"
            ) from error
    import tifffile

    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            first: Any = file.pages[0]
            if first.photometric.name not in _SAMPLES:
                return _of_picture(data)
            return _of_series(file)
    except UndecodableError:
        raise
    except Exception as error:  # decoders raise nearly anything
        text = " ".join(str(error).split())[:200]
        raise UndecodableError(f"damaged TIFF: {text or type(error).__name__}") from error


def _of_series(file: Any) -> Samples:
    series, page = file.series[0], file.pages[0]
    if int(np.prod(series.shape)) * series.dtype.itemsize > MOST_BYTES:
        raise TooLargeError(f"a TIFF of shape {series.shape}, more than the limit of memory")
    values, axes = series.asarray(), str(series.axes)
    keep = [i for i, size in enumerate(values.shape) if size > 1 or axes[i] in "YX"]
    values = values.reshape([values.shape[i] for i in keep])
    axes = "".join(axes[i] for i in keep)
    if values.ndim == 3 and axes[0] in "ZT":
        remark(FRAMES)
        values, axes = values[0], axes[1:]
    if values.ndim > 3:
        raise UndecodableError(
            f"a TIFF of {len(axes)} axes ({axes}), expected height, width, bands"
        )
    values = _turned(values, axes, page)
    last = {"YXS": True, "YXC": True, "SYX": False, "CYX": False}.get(axes)
    missing = _missing(values, page)
    bits = page.bitspersample
    limits = limits_of(values if missing is None else values[~missing])
    if limits is None and isinstance(bits, int) and 8 < bits < 16:
        limits = (0.0, float(2**bits - 1))
    inverted = page.photometric.name == "MINISWHITE"
    if inverted and limits is None:
        limits = (0.0, float(np.iinfo(values.dtype).max)) if values.dtype.kind == "u" else None
    return Samples(values, limits, inverted, last, missing)


def _missing(values: NDArray[Any], page: Any) -> NDArray[np.bool_] | None:
    """Return where a TIFF has no data, by the value that GDAL writes for it; None: nowhere."""
    tag = page.tags.get(_NO_DATA)
    try:
        value = float(str(tag.value).strip(" \0")) if tag is not None else None
    except ValueError:
        return None
    if value is None:
        return None
    if values.dtype.kind == "f":  # written in decimals, of a number of this precision
        found = np.isnan(values) if np.isnan(value) else values == values.dtype.type(value)
    else:
        found = values == value
    if not found.any():
        return None
    if found.all():
        raise UndecodableError("a TIFF without data: every pixel has its no-data value")
    remark(NO_DATA)
    return np.asarray(found)


def _turned(values: NDArray[Any], axes: str, page: Any) -> NDArray[Any]:
    """Apply the orientation that a page states."""
    tag = page.tags.get(274)
    orientation = 1 if tag is None else int(tag.value)
    if "Y" not in axes or "X" not in axes or not 2 <= orientation <= 8:
        return values
    y, x = axes.index("Y"), axes.index("X")
    if orientation >= 5:
        values = np.swapaxes(values, y, x)
    flips = {2: (x,), 3: (y, x), 4: (y,), 6: (x,), 7: (y, x), 8: (y,)}.get(orientation, ())
    return np.flip(values, flips) if flips else values


__all__ = ["RULES", "Samples", "native_content", "native_converter", "samples_of", "shares"]
