"""Bytes of an image file → an 8-bit RGB image, by fixed rules.

The rules (``RULES`` is their version; it is part of every cache key):

- The format is recognised by content, never by the file's name.
- Of an animation or a multi-page file, the first frame; it is said which files have several.
- EXIF orientation is applied.
- Transparency (alpha channel, palette entry, key colour) is composited on white.
- 16-bit samples keep their high byte (``v >> 8``), for grey as Pillow does it for colour. Samples
  that a TIFF declares with fewer bits, such as 12, keep their highest eight.
- Integers of 32 bits, and floats outside of [0, 1], do not say what white is and are refused.
  Floats in [0, 1] are multiplied by 255 and rounded.
- Bands beyond grey or RGB that a TIFF does not declare as alpha are refused.
- CMYK and YCbCr are converted by Pillow without colour management; ICC profiles are ignored, as
  in the evaluation pipelines of torchvision and timm.

With a ``value_range``, samples of any depth are scaled from it instead (:func:`ranged`).

NumPy and DICOM files (:mod:`headstart.data.sample_files`) become 8-bit RGB here.

Large images stay in their own mode until they are small (:mod:`headstart.data.resampling`), and
only so many of them are in memory at a time (:func:`opened`).
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features
from PIL import __version__ as pillow_version

from headstart.data.content import Content, UndecodableError
from headstart.data.depths import bits_of, deep_samples, eightbits_of, marks_of, unit_floats
from headstart.data.formats import open_header, reason
from headstart.data.jpeg import is_damaged_inside
from headstart.data.levels import ValueRange, scaled
from headstart.data.orientation import upright_of
from headstart.data.remarks import FRAMES, NOISE, VANISHED, remark
from headstart.data.sample_files import is_samples_file, levels_rgb

RULES = 1

LARGE = 4_000_000
"""Pixels beyond which an image is not converted to RGB as a whole."""

IN_MEMORY = 2**30
"""Bytes of decoded images larger than :data:`LARGE` that all threads hold together; one image that
takes more is decoded alone."""


def image_of(content: Content) -> Image.Image:
    """Return the image that a content is: the bytes of a file, or samples ``(h, w, 3) uint8``.

    Returns:
        A loaded image in mode ``RGB``.

    Raises:
        UndecodableError: the bytes cannot be decoded, or the content is no image.
    """
    return decode(content) if isinstance(content, bytes) else _from_samples(content)


def decode(data: bytes) -> Image.Image:
    """Decode the bytes of an image file.

    Args:
        data: the whole file.

    Returns:
        A loaded image in mode ``RGB``.

    Raises:
        UndecodableError: with the reason in plain words.
    """
    with opened(data) as image, clear():
        return flat_rgb(image)


@contextlib.contextmanager
def opened(content: Content) -> Iterator[Image.Image]:
    """Open the image that a content is, upright, in RGB or, if it is large, in its own mode.

    While the context lasts, a large image counts among those in memory; others wait for it.

    Yields:
        A loaded image that :func:`flat_rgb`, and :func:`~headstart.data.resampling.resize`, take.

    Raises:
        UndecodableError: as for :func:`image_of`.
    """
    if not isinstance(content, bytes):
        yield _from_samples(content)
        return
    if is_samples_file(content):
        yield Image.fromarray(levels_rgb(content))
        return
    image = open_header(content)
    pixels = image.size[0] * image.size[1]
    with _MEMORY.holding(4 * pixels if pixels > LARGE else 0):
        with clear():
            remark_on(image, content)
            image = loaded(image)
        yield image


def loaded(image: Image.Image) -> Image.Image:
    """Load an image: upright, in RGB or, if it is large, in its own mode.

    Raises:
        UndecodableError: as for :func:`to_rgb`.
    """
    image.load()
    image.info.update(marks_of(image))
    upright = upright_of(image)
    if upright.width * upright.height > LARGE:
        return upright
    flat = flat_rgb(upright)
    white = _is_transparent(upright) and _least(flat.convert("L")) == 255
    if white and _least(upright.convert("RGBA").getchannel("A")) < 255:
        remark(VANISHED)
    return flat


def remark_on(image: Image.Image, data: bytes) -> None:
    """Say what is odd about a file that can be decoded all the same."""
    if image.format == "JPEG":
        if is_damaged_inside(data):
            remark(NOISE)
    elif _has_frames(image, data):
        remark(FRAMES)


def _has_frames(image: Image.Image, data: bytes) -> bool:
    try:
        if image.format in ("GIF", "TIFF"):  # these move to other frames to find out
            image = open_header(data)
        return bool(getattr(image, "is_animated", False))
    except Exception:  # a damaged second frame is no matter of the first
        return False


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a loaded image of any mode to ``RGB`` by the rules of this module.

    Raises:
        UndecodableError: the pixel type has no defined 8-bit meaning.
    """
    marks = marks_of(image)
    upright = upright_of(image)
    if marks:
        upright = upright.copy() if upright is image else upright  # the user's own stays unmarked
        upright.info.update(marks)
    return flat_rgb(upright)


def flat_rgb(image: Image.Image) -> Image.Image:
    """Convert an image that is upright already, or a part of one.

    Raises:
        UndecodableError: as for :func:`to_rgb`.
    """
    mode = image.mode
    if _is_transparent(image):
        return _on_white(image)
    if mode == "RGB":
        return image
    if mode.startswith("I"):
        return Image.fromarray(eightbits_of(image)).convert("RGB")
    if mode == "F":
        return Image.fromarray(unit_floats(np.asarray(image))).convert("RGB")
    return image.convert("RGB")


def _least(band: Image.Image) -> int:
    """Return the smallest sample of an image of one band."""
    low: Any = band.getextrema()[0]
    return int(low)


def _is_transparent(image: Image.Image) -> bool:
    """Return whether parts of an image may be transparent."""
    return image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or (
        "transparency" in image.info and image.mode in ("1", "L", "P", "RGB")
    )


def ranged(source: bytes | Image.Image, value_range: ValueRange) -> NDArray[np.uint8]:
    """Decode an image whose samples reach from a value of black to one of white.

    Args:
        source: the bytes of an image file, or a PIL image.
        value_range: the values of black and white, as they stand in the file. Files of 8 bits a
            sample cannot hold values beyond 255, so they are refused where the range is wider.

    Returns:
        ``(h, w, 3) uint8``.

    Raises:
        UndecodableError: as for :func:`decode`; or the file does not reach the range.
    """
    low, high = value_range
    if isinstance(source, bytes) and is_samples_file(source):
        return levels_rgb(source, value_range)
    image = open_header(source) if isinstance(source, bytes) else source
    with clear():
        deep = deep_samples(image, source)
        if deep is not None:
            levels = scaled(deep, low, high)
            return np.repeat(levels[:, :, None], 3, axis=2) if levels.ndim == 2 else levels
        if low < 0 or high > 255:
            raise UndecodableError(
                f"8 bits per sample, too few for value_range=({low:g}, {high:g}); read it"
                " without value_range, or separately from the others"
            )
        image.load()
        return scaled(np.asarray(to_rgb(image)), low, high)


def highest(data: bytes) -> tuple[float, float]:
    """Return the largest sample of an image file and the value of white, for a look at a few files.

    Raises:
        UndecodableError: it cannot be decoded, or does not say what white is.
    """
    if is_samples_file(data):
        return float(levels_rgb(data).max(initial=0)), 255.0
    image = open_header(data)
    if image.format == "JPEG":
        image.draft(None, (64, 64))  # an eighth of the size: enough to see that it is dark
    with clear():
        image.load()
        deep = deep_samples(image, data)
        if deep is None or deep.dtype.kind == "f":
            return float(np.asarray(to_rgb(image)).max(initial=0)), 255.0
        return float(deep.max(initial=0)), float(2 ** bits_of(image) - 1)


@functools.cache
def _decoder_description() -> tuple[tuple[str, str | int], ...]:
    turbo = features.version_feature("libjpeg_turbo")
    jpeg = f"libjpeg-turbo {turbo}" if turbo else f"libjpeg {features.version_codec('jpg')}"
    return (
        ("library", f"pillow {pillow_version.split('.')[0]}"),
        ("jpeg", jpeg.split(".")[0]),
        ("rules", RULES),
    )


def describe_decoder() -> dict[str, str | int]:
    """Return the decoder as far as it can change pixels: major versions, and our own rules."""
    return dict(_decoder_description())


class _Memory:
    """Bytes of large images that threads may hold together."""

    def __init__(self, limit: int) -> None:
        self._limit, self._held = limit, 0
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def holding(self, size: int) -> Iterator[None]:
        """Wait until ``size`` bytes fit beside what others hold, or nobody holds any."""
        if not size:
            yield
            return
        with self._changed:
            self._changed.wait_for(lambda: not self._held or self._held + size <= self._limit)
            self._held += size
        try:
            yield
        finally:
            with self._changed:
                self._held -= size
                self._changed.notify_all()


_MEMORY = _Memory(IN_MEMORY)


@contextlib.contextmanager
def clear() -> Iterator[None]:
    """Turn what decoders raise into one reason; damaged files make them raise nearly anything."""
    try:
        yield
    except UndecodableError:
        raise
    except MemoryError:
        raise UndecodableError("it needs more memory than is available") from None
    except Exception as error:
        raise UndecodableError(reason(error)) from error


def _from_samples(content: Any) -> Image.Image:
    if isinstance(content, str):
        raise UndecodableError("text, not an image")
    if content.dtype != np.uint8 or content.ndim != 3 or content.shape[2] != 3:
        raise UndecodableError(
            f"samples of type {content.dtype} and shape {content.shape}, expected"
            " (height, width, 3) uint8"
        )
    return Image.fromarray(content)


def _on_white(image: Image.Image) -> Image.Image:
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, rgba).convert("RGB")
