"""Formats of image files: how they are known, their endings, and what a file is instead.

Only formats that are decoded inside the process are accepted. (Pillow would hand an EPS file to
Ghostscript, which runs programs.)
"""

from __future__ import annotations

import functools
import importlib.util
import io
import struct
from collections.abc import Callable, Iterable
from pathlib import PurePath
from typing import Any

from PIL import Image

from headstart.data.content import TooLargeError, UndecodableError, stand_in
from headstart.data.levels import BANDS_HINT

MAX_PIXELS = 178_956_970
"""Largest accepted width × height: where Pillow, too, refuses (0.5 GB as RGB)."""

FORMATS = (
    "JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "JPEG2000", "ICO", "AVIF", "DIB",
)  # fmt: skip
_HEIF = (".heic", ".heif", ".hif")
HEIF_INSTALLED = importlib.util.find_spec("pillow_heif") is not None
"""Whether HEIC photos can be read: ``pip install 'headstart[heif]'``."""

SUFFIXES = frozenset((
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".webp", ".bmp", ".dib", ".tif",
    ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".ico", ".avif",
))  # fmt: skip
"""File name endings (lower case) of the formats that are always read."""

_DICOM = (".dcm", ".dicom")
DICOM_INSTALLED = importlib.util.find_spec("pydicom") is not None
"""Whether DICOM files can be read: ``pip install 'headstart[dicom]'``."""
ARRAYS = (".npy", ".npz")
"""Endings of NumPy files of one image each."""

IMAGE_SUFFIXES = SUFFIXES | frozenset((
    *ARRAYS, *(_HEIF if HEIF_INSTALLED else ()), *(_DICOM if DICOM_INSTALLED else ()),
))  # fmt: skip
"""File name endings (lower case) by which a folder's files count as images."""

_GET_HEIF = "HEIC photos need the package pillow-heif; run: pip install 'headstart[heif]'"
GET_DICOM = "DICOM files need the package pydicom; run: pip install 'headstart[dicom]'"
_UNREAD = {
    "HEIC": (() if HEIF_INSTALLED else _HEIF, _GET_HEIF),
    "JPEG XL": ((".jxl",), "JPEG XL is not supported: save it as PNG or JPEG"),
    "camera raw": (
        (".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2"),
        "camera raw is not supported: convert it to PNG, TIFF or JPEG",
    ),
    "DICOM": (() if DICOM_INSTALLED else _DICOM, GET_DICOM),
    "SVG": ((".svg", ".eps", ".pdf"), "vector graphics are not supported: render them as PNG"),
    "PSD": ((".psd", ".xcf"), "layered image files are not supported: save them as PNG"),
    "video": ((".mp4", ".mov", ".avi"), "videos are not supported: extract their frames"),
}
"""Endings of formats that are no input, with what to do."""


def suffix_hint(names: Iterable[str]) -> str:
    """Return what to do about files whose endings are not those of images; may be empty."""
    endings = {PurePath(name).suffix.lower() for name in names}
    hints = [way for known, way in _UNREAD.values() if endings & set(known)]
    if "" in endings:
        hints.append("files without an extension are not read: add one, such as .jpg")
    return f" ({'; '.join(hints)})" if hints else ""


def open_header(data: bytes, most: float = MAX_PIXELS) -> Image.Image:
    """Recognise the format and read the header; the pixels stay unread.

    This is the core of ``Image.open`` without its size check, which warns through Python's
    process-wide warning filters; ours (:data:`MAX_PIXELS`) speaks once, in the list of bad items.

    Args:
        data: the bytes of a file.
        most: pixels that it may have.

    Raises:
        TooLargeError: it has more.
        UndecodableError: with the reason in plain words.
    """
    if not data:
        raise UndecodableError("the file is empty")
    image = _recognised(data)
    width, height = image.size
    if width * height > most:
        raise TooLargeError(f"{width:,} × {height:,} pixels are more than the limit of {most:,}")
    return image


def _recognised(data: bytes) -> Image.Image:
    if (undeclared := _undeclared_tiff(data)) is not None:
        raise UndecodableError(undeclared)
    prefix = data[:16].ljust(16, b"\0")  # some look at four bytes, whether they are there or not
    broken: Exception | None = None
    for factory, accept in _openers():
        try:
            accepted = accept(prefix) if accept else True
            if not accepted or isinstance(accepted, str):
                continue
            image: Image.Image = factory(io.BytesIO(data), "")
            return image
        except MemoryError:
            raise UndecodableError("it needs more memory than is available") from None
        except (SyntaxError, IndexError, TypeError, struct.error) as error:
            broken = error  # "not mine" in Pillow's convention: the next format may claim it
        except Exception as error:
            raise UndecodableError(reason(error)) from error
    if broken is None:
        raise UndecodableError(what_it_is(data))
    raise UndecodableError(reason(broken))


@functools.cache
def _openers() -> tuple[tuple[Callable[..., Any], Callable[[bytes], Any] | None], ...]:
    Image.preinit()
    Image.init()
    found = [Image.OPEN[name] for name in FORMATS if name in Image.OPEN]
    if HEIF_INSTALLED:  # not registered with Pillow, whose table belongs to the whole process
        from pillow_heif import HeifImageFile

        found.append((HeifImageFile, _is_heif))
    return tuple(found)


def _is_heif(prefix: bytes) -> bool:
    return prefix[4:8] == b"ftyp" and prefix[8:12] in _HEIF_BRANDS


_HEIF_BRANDS = frozenset({
    b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1",
})  # fmt: skip


# -- TIFF: what its own tags say -----------------------------------------------------------------

_BITS, _PHOTOMETRIC, _SAMPLES, _PLANAR, _EXTRA = 258, 262, 277, 284, 338
_COLOURS = {0: 1, 1: 1, 2: 3, 3: 1, 4: 1, 5: 4, 6: 3, 8: 3}
"""Samples that a photometric interpretation takes: grey, RGB, palette, CMYK, YCbCr, Lab."""
_ALPHA = {(1,), (2,)}
_SIZES = {1: ("B", 1), 3: ("H", 2), 4: ("I", 4)}


def _undeclared_tiff(data: bytes) -> str | None:
    """Return why the bands of a TIFF are not those of an image, or None.

    Pillow takes a fourth band without a declaration for alpha, and drops one that is declared as
    something else: near infrared becomes transparency, or disappears. It mixes up planes of 16
    bits, and it logs an error of its own for many bands.
    """
    tags = _tiff_tags(data)
    if tags is None:
        return None
    samples, photometric = tags.get(_SAMPLES, (1,))[0], tags.get(_PHOTOMETRIC, (-1,))[0]
    colours = _COLOURS.get(photometric, samples)
    extra = samples - colours
    if extra > 1 or (extra == 1 and tags.get(_EXTRA, ()) not in _ALPHA):
        kind = "grey" if colours == 1 else "colours"
        return (
            f"{samples} bands per pixel, {extra} more than its {kind}, and it is not known what"
            f" they are: {BANDS_HINT}"
        )
    deep = max(tags.get(_BITS, (1,))) > 8
    if deep and samples > 1 and tags.get(_PLANAR, (1,))[0] == 2:
        return "a planar TIFF with more than 8 bits per sample; save it as PNG"
    if samples > 1 and max(tags.get(_BITS, (1,))) > 16:
        return "a colour TIFF with 32 bits per sample; save it as PNG"
    return None


def _tiff_tags(data: bytes) -> dict[int, tuple[int, ...]] | None:
    """Return the numeric tags of the first page of a TIFF; None for anything else."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None:
        return None
    tags: dict[int, tuple[int, ...]] = {}
    try:
        (place,) = struct.unpack_from(order + "I", data, 4)
        (entries,) = struct.unpack_from(order + "H", data, place)
        for i in range(min(entries, 512)):
            at = place + 2 + 12 * i
            tag, kind, number = struct.unpack_from(order + "HHI", data, at)
            if kind not in _SIZES or not 0 < number <= 64:
                continue
            letter, size = _SIZES[kind]
            at += 8
            if number * size > 4:
                (at,) = struct.unpack_from(order + "I", data, at)
            tags[tag] = struct.unpack_from(f"{order}{number}{letter}", data, at)
    except struct.error:
        return None  # the decoder says what is wrong with it
    return tags


# -- what a file is instead --------------------------------------------------------------------


def reason(error: Exception) -> str:
    """Return why a damaged image cannot be decoded, from the decoder's own error."""
    if any(isinstance(each, struct.error) for each in (error, error.__cause__)):
        return "damaged image: it ends too early"
    text = " ".join(str(error).split())[:300]
    return f"damaged image: {text}" if text else f"damaged image: {type(error).__name__}"


def what_it_is(data: bytes) -> str:
    """Return what a file is that is no image in a known format."""
    if found := stand_in(data, "image"):
        return found
    head = data[:256].lstrip().lower()
    if head.startswith((b"<svg", b"<?xml")):
        return "a vector graphic (SVG), not a pixel image"
    if head.startswith(b"%!ps"):
        return "PostScript, not a pixel image"
    if _is_heif(data[:16]):
        return _GET_HEIF
    if data[:2] == b"\xff\x0a" or data[4:12] == b"JXL \r\n\x87\n":
        return "JPEG XL, which is not supported; save it as PNG or JPEG"
    return "not an image in a known format"


__all__ = [
    "FORMATS",
    "HEIF_INSTALLED",
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "SUFFIXES",
    "open_header",
    "reason",
    "suffix_hint",
    "what_it_is",
]
