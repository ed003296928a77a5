"""Bytes of an image file → an 8-bit RGB image, by fixed rules.

The rules (``RULES`` is their version; it is part of every cache key):

- The format is recognised by content, never by the file's name.
- Of an animation or a multi-page file, the first frame.
- EXIF orientation is applied.
- Transparency (alpha channel, palette entry, key colour) is composited on white.
- 16-bit samples keep their high byte (``v >> 8``), for grey as Pillow does it for colour.
- Floating-point samples must lie in [0, 1] and are multiplied by 255 and rounded.
- CMYK and YCbCr are converted by Pillow without colour management; ICC profiles are ignored, as
  in the evaluation pipelines of torchvision and timm.

Only formats that are decoded inside the process are accepted. (Pillow would hand an EPS file to
Ghostscript, which runs programs.)
"""

from __future__ import annotations

import functools
import io
import struct
from collections.abc import Callable, Iterable
from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features
from PIL import __version__ as pillow_version

from headstart.data.content import Content, UndecodableError

RULES = 1
MAX_PIXELS = 178_956_970
"""Largest accepted width × height: where Pillow, too, refuses (0.5 GB as RGB)."""

FORMATS = (
    "JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "JPEG2000", "ICO", "AVIF", "DIB",
)  # fmt: skip
SUFFIXES = frozenset((
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".webp", ".bmp", ".dib", ".tif",
    ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".ico", ".avif",
))  # fmt: skip
"""File name endings (lower case) by which a folder's files count as images."""

_UNREAD = {
    "HEIC": (".heic", ".heif", ".hif"),
    "JPEG XL": (".jxl",),
    "camera raw": (".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2"),
    "DICOM": (".dcm", ".dicom"),
    "PSD": (".psd",),
    "SVG": (".svg",),
}
"""Endings of formats that are no input, by the name of the format."""

_ORIENTATION_TAG = 0x0112
_EXIF_CARRIERS = ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp")
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def suffix_hint(names: Iterable[str]) -> str:
    """Return what to do about files whose endings are not those of images; may be empty."""
    endings = {PurePath(name).suffix.lower() for name in names}
    hints = []
    for name, known in _UNREAD.items():
        if endings & set(known):
            way = "save them as PNG or JPEG"
            hints.append(f"{name} is not read: {way}")
    if "" in endings:
        hints.append("files without an ending are not read: give them one, such as .jpg")
    return f" ({'; '.join(hints)})" if hints else ""


def image_of(content: Content) -> Image.Image:
    """Return the image that a content is: the bytes of a file, or samples ``(h, w, 3) uint8``.

    Raises:
        UndecodableError: the bytes cannot be decoded, or the content is no image.
    """
    if isinstance(content, bytes):
        return decode(content)
    if isinstance(content, str):
        raise UndecodableError("a text, not an image")
    if content.dtype != np.uint8 or content.ndim != 3 or content.shape[2] != 3:
        raise UndecodableError(
            f"samples of type {content.dtype} and shape {content.shape}, expected"
            " (height, width, 3) uint8"
        )
    return Image.fromarray(content)


def decode(data: bytes) -> Image.Image:
    """Decode the bytes of an image file.

    Args:
        data: the whole file.

    Returns:
        A loaded image in mode ``RGB``.

    Raises:
        UndecodableError: with the reason in plain words.
    """
    if not data:
        raise UndecodableError("the file is empty")
    image = _open(data)
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise UndecodableError(
            f"{width:,} × {height:,} pixels are more than the limit of {MAX_PIXELS:,}"
        )
    try:
        image.load()
        return to_rgb(image)
    except (UndecodableError, MemoryError):
        raise
    except Exception as error:  # damaged files make decoders raise nearly anything
        raise UndecodableError(_reason(error)) from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a loaded image of any mode to ``RGB`` by the rules of this module.

    Raises:
        UndecodableError: the pixel type has no defined 8-bit meaning.
    """
    image = _upright(image)
    mode = image.mode
    if mode in ("RGBA", "LA", "PA", "RGBa", "La") or (
        "transparency" in image.info and mode in ("1", "L", "P", "RGB")
    ):
        return _on_white(image)
    if mode == "RGB":
        return image
    if mode.startswith("I"):
        return Image.fromarray(_eight_bits(np.asarray(image))).convert("RGB")
    if mode == "F":
        return Image.fromarray(_unit_floats(np.asarray(image))).convert("RGB")
    return image.convert("RGB")


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


def _open(data: bytes) -> Image.Image:
    """Recognise the format and read the header; the pixels stay unread.

    This is the core of ``Image.open`` without its size check, which warns through Python's
    process-wide warning filters; ours (``MAX_PIXELS``) speaks once, in the list of bad items.
    """
    prefix = data[:16]
    broken: Exception | None = None
    for factory, accept in _openers():
        accepted = accept(prefix) if accept else True
        if not accepted or isinstance(accepted, str):
            continue
        try:
            image: Image.Image = factory(io.BytesIO(data), "")
            return image
        except MemoryError:
            raise
        except (SyntaxError, IndexError, TypeError, struct.error) as error:
            broken = error  # "not mine" in Pillow's convention: the next format may claim it
        except Exception as error:
            raise UndecodableError(_reason(error)) from error
    raise UndecodableError(_what_it_is(data) if broken is None else _reason(broken))


@functools.cache
def _openers() -> tuple[tuple[Callable[..., Any], Callable[[bytes], Any] | None], ...]:
    Image.preinit()
    Image.init()
    return tuple(Image.OPEN[name] for name in FORMATS if name in Image.OPEN)


def _upright(image: Image.Image) -> Image.Image:
    if image.format != "TIFF" and not any(key in image.info for key in _EXIF_CARRIERS):
        return image
    # Not ImageOps.exif_transpose: it rewrites the metadata after turning the image, and where that
    # fails (damaged metadata, readable orientation) the image would stay as it was stored.
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # damaged metadata around sound pixels: keep the pixels unchanged
        return image
    method = _TRANSPOSE.get(orientation)
    return image if method is None else image.transpose(method)


def _on_white(image: Image.Image) -> Image.Image:
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, rgba).convert("RGB")


def _eight_bits(samples: NDArray[Any]) -> NDArray[np.uint8]:
    """Map 16-bit samples (in any integer type) to 8 bits by their high byte."""
    low, high = (int(samples.min()), int(samples.max())) if samples.size else (0, 0)
    if low < 0 or high > 65535:
        raise UndecodableError(
            f"integer samples from {low:,} to {high:,} exceed 16 bits; save it with 8 or 16 bits"
        )
    return (samples.astype(np.uint16) >> 8).astype(np.uint8)


def _unit_floats(samples: NDArray[Any]) -> NDArray[np.uint8]:
    """Map floats in [0, 1] to 8 bits."""
    low, high = (float(samples.min()), float(samples.max())) if samples.size else (0.0, 0.0)
    if not (low >= 0.0 and high <= 1.0):  # written so that NaN fails, too
        raise UndecodableError(
            f"floating-point samples from {low:g} to {high:g} lie outside [0, 1];"
            " save it with 8 or 16 bits"
        )
    return np.rint(samples * 255.0).astype(np.uint8)


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"damaged image: {text}" if text else f"damaged image: {type(error).__name__}"


def _what_it_is(data: bytes) -> str:
    head = data[:256].lstrip().lower()
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer instead of the image; run: git lfs pull"
    if head.startswith((b"<!doctype html", b"<html")):
        return "a web page instead of an image, perhaps from a failed download"
    if head.startswith((b"<svg", b"<?xml")):
        return "a vector drawing (SVG), not a pixel image"
    if head.startswith(b"%!ps"):
        return "PostScript, not a pixel image"
    if not any(data[:4096]):
        return "nothing but zero bytes, perhaps from an interrupted copy"
    return "not an image in a known format"
