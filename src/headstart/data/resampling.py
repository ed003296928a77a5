"""Resizing an image, or the part of it that is wanted, within bounds of memory and time.

For an ordinary RGB image this is Pillow's ``resize`` and ``crop``. Two others need care:

- A thin image that is enlarged by its shorter side becomes enormous before the crop: 1×65,500
  pixels at 224 would be 224×14,672,000. Only the part that the crop keeps is resized, from the
  pixels that it is made of.
- A large image in another mode than RGB (16 bits, a palette with transparency) would be copied
  several times at full size to become RGB. It is converted and shrunk in strips. Pillow resizes
  rows first and columns then, with rounding in between, so strips give the same pixels bit by bit.
"""

from __future__ import annotations

import math

from PIL import Image

from headstart.data.decoding import flat_rgb

Box = tuple[int, int, int, int]
"""Left, top, right, bottom; in pixels."""

MOST = 2**24
"""Pixels of a resized image that are made even though a crop drops most of them."""

_STRIP = 2**20
"""Pixels converted to RGB at a time."""

_REACH = {
    "nearest": 1.0,
    "box": 0.5,
    "bilinear": 1.0,
    "hamming": 1.0,
    "bicubic": 2.0,
    "lanczos": 3.0,
}
"""Half the width of each filter, in pixels of the coarser side."""


def resize(
    image: Image.Image,
    target: tuple[int, int],
    interpolation: str,
    part: Box | None = None,
    *,
    samples: bool = False,
) -> Image.Image:
    """Resize an image, and crop it.

    Args:
        image: upright, in any mode that :func:`~headstart.data.decoding.flat_rgb` takes.
        target: (width, height) to resize to.
        interpolation: the filter, as in :class:`~headstart.data.preprocessing.Preprocessing`.
        part: what to keep of the resized image; None: all of it.
        samples: whether the image is one band of floats (mode ``F``) that stays as it is.

    Returns:
        Mode ``RGB``, or ``F`` for a band of floats, as large as ``part``.
    """
    whole = (0, 0, *target)
    part = part or whole
    if part != whole and target[0] * target[1] > MOST:
        return _part_only(image, target, interpolation, part, samples=samples)
    resized = _strips(image, target, interpolation, samples=samples)
    return resized if part == whole else resized.crop(part)


def placed(
    size: tuple[int, int], kept: tuple[int, int], box: tuple[int, int], how: str, crop_offset: str
) -> tuple[tuple[int, int], Box]:
    """Return what an image is resized to, and what a centre crop keeps of it.

    Args:
        size: (width, height) of the image.
        kept: (height, width) of the crop.
        box: (height, width) that the image is resized to fill.
        how, crop_offset: ``resize`` and ``crop_offset`` of
            :class:`~headstart.data.preprocessing.Preprocessing`.

    Returns:
        (width, height), and the part to keep.
    """
    height, width = kept
    target = _target(size, box, how)
    whole = round if crop_offset == "round" else math.floor
    left, top = whole((target[0] - width) / 2), whole((target[1] - height) / 2)
    return target, (left, top, left + width, top + height)


def _target(size: tuple[int, int], box: tuple[int, int], how: str) -> tuple[int, int]:
    """Return (width, height) that an image of (width, height) is resized to."""
    box_height, box_width = box
    width, height = size
    if how == "squash":
        return box_width, box_height
    if height * box_width >= width * box_height:  # tall for the box: the width decides
        return box_width, max(box_height, int(box_width * height / width))
    return max(box_width, int(box_height * width / height)), box_height


def _strips(
    image: Image.Image, target: tuple[int, int], interpolation: str, *, samples: bool
) -> Image.Image:
    """Resize, converting to RGB in strips of rows."""
    width, height = image.size
    filter_ = Image.Resampling[interpolation.upper()]
    rows = max(1, _STRIP // width)
    if samples or (image.mode == "RGB" and "transparency" not in image.info):
        return image if target == image.size else image.resize(target, filter_)
    if height <= rows:
        rgb = flat_rgb(image)
        return rgb if target == rgb.size else rgb.resize(target, filter_)
    narrow = Image.new("RGB", (target[0], height))
    for top in range(0, height, rows):
        strip = flat_rgb(image.crop((0, top, width, min(height, top + rows))))
        if target[0] != width:
            strip = strip.resize((target[0], strip.height), filter_)
        narrow.paste(strip, (0, top))
    return narrow if target[1] == height else narrow.resize(target, filter_)


def _part_only(
    image: Image.Image, target: tuple[int, int], interpolation: str, part: Box, *, samples: bool
) -> Image.Image:
    """Resize only what a part of the resized image is made of."""
    left, right, *x = _source(image.width, target[0], part[0], part[2], interpolation)
    top, bottom, *y = _source(image.height, target[1], part[1], part[3], interpolation)
    source = image.crop((left, top, right, bottom))
    source = source if samples else flat_rgb(source)
    size = (part[2] - part[0], part[3] - part[1])
    filter_ = Image.Resampling[interpolation.upper()]
    return source.resize(size, filter_, box=(x[0], y[0], x[1], y[1]))


def _source(
    length: int, target: int, start: int, stop: int, interpolation: str
) -> tuple[int, int, float, float]:
    """Return which pixels a stretch of the target needs, and where it begins and ends in them."""
    scale = length / target
    reach = _REACH[interpolation] * max(scale, 1.0) + 1.0
    first = max(0, math.floor(start * scale - reach))
    last = min(length, math.ceil(stop * scale + reach))
    return first, last, start * scale - first, min(stop * scale, length) - first


__all__ = ["MOST", "Box", "placed", "resize"]
