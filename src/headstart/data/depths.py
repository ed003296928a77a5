"""Samples of more than 8 bits: what a file says of them, and how they become 8 bits.

The rules are those of :mod:`headstart.data.decoding`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.data.content import UndecodableError
from headstart.data.levels import likely_white
from headstart.data.orientation import upright_of

_BITS_TAG, _PHOTOMETRIC_TAG = 258, 262
_DEPTH, _WIDE, _INVERTED = "headstart bits", "headstart wide", "headstart white is zero"
SIXTEEN = ("PPM", "PNG", "JPEG2000", "HEIF")
"""Formats whose integers Pillow scales to 16 bits itself, or that have no more."""


def eightbits_of(image: Image.Image) -> NDArray[np.uint8]:
    """Map samples of up to 16 bits (in any integer type) to 8 bits by their high byte."""
    samples = _samples(image)
    low, high = (int(samples.min()), int(samples.max())) if samples.size else (0, 0)
    if low < 0 or high > 65535:
        raise UndecodableError(
            f"integer samples from {low:,} to {high:,} exceed 16 bits, so nothing says which value"
            f" is white; say so with value_range=({min(low, 0)}, {high}), or save it with 8 or 16"
            " bits"
        )
    if image.info.get(_WIDE):
        raise UndecodableError(
            f"integer samples of 32 bits from {low:,} to {high:,}: nothing says which value is"
            f" white; say so, such as with value_range=(0, {likely_white(high):g})"
        )
    return (samples.astype(np.uint16) >> (bits_of(image) - 8)).astype(np.uint8)


def bits_of(image: Image.Image) -> int:
    """Return the bits of a sample that a marked image declares; 16 where it declares none."""
    return int(image.info.get(_DEPTH, 16))


def unit_floats(samples: NDArray[Any]) -> NDArray[np.uint8]:
    """Map floats in [0, 1] to 8 bits."""
    low, high = (float(samples.min()), float(samples.max())) if samples.size else (0.0, 0.0)
    if not (low >= 0.0 and high <= 1.0):  # written so that NaN fails, too
        raise UndecodableError(
            f"floating-point samples from {low:g} to {high:g} lie outside [0, 1]; say which values"
            f" are black and white, such as with value_range=({min(low, 0):g}, {high:g}), or save"
            " it with 8 or 16 bits"
        )
    return np.rint(samples * 255.0).astype(np.uint8)


def marks_of(image: Image.Image) -> dict[str, Any]:
    """Return what a format says of its samples, to be kept in ``info``, which parts inherit."""
    if image.mode == "I" and image.format not in SIXTEEN:
        return {_WIDE: True}
    if image.mode.startswith("I;16") and image.format == "TIFF":
        tags: Any = getattr(image, "tag_v2", {})
        bits = int(tags.get(_BITS_TAG, (16,))[0])
        return {_DEPTH: bits, _INVERTED: tags.get(_PHOTOMETRIC_TAG) == 0}
    return {}


def _samples(image: Image.Image) -> NDArray[Any]:
    """Return integer samples, with black as the smallest."""
    found = np.asarray(image)
    return (2 ** bits_of(image) - 1) - found if image.info.get(_INVERTED) else found


def deep_samples(image: Image.Image, source: bytes | Image.Image) -> NDArray[Any] | None:
    """Return the samples of an upright image of more than 8 bits a sample; None for others.

    Returns:
        ``(h, w)`` of any numeric type, or ``(h, w, 3) uint16``.
    """
    if image.mode == "F" or image.mode.startswith("I"):
        marks = marks_of(image)
        image.load()
        upright = upright_of(image)
        upright = upright.copy() if upright is image else upright
        upright.info.update(marks)
        return _samples(upright)
    if not isinstance(source, bytes):
        return None
    if image.format == "PNG" and source[24] == 16:
        return _deep_colours(source)
    bits: Any = getattr(image, "tag_v2", {}).get(_BITS_TAG, (8,))
    if image.format == "TIFF" and max(bits) > 8:
        raise UndecodableError(
            f"a colour TIFF with {max(bits)} bits per sample, of which only 8 can be read; save"
            " it as a 16-bit PNG, or name its bands with bands=(1, 2, 3), which read all of them"
        )
    return None


def _deep_colours(data: bytes) -> NDArray[np.uint16]:
    """Decode a PNG of 16 bits a sample, of which Pillow keeps 8."""
    import torch
    from torchvision.io import ImageReadMode, decode_png

    buffer = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    samples = decode_png(buffer, mode=ImageReadMode.RGB, apply_exif_orientation=True)
    return np.asarray(samples.permute(1, 2, 0).numpy(), dtype=np.uint16)


__all__ = ["SIXTEEN", "bits_of", "deep_samples", "eightbits_of", "marks_of", "unit_floats"]
