"""Images outside of a network: thumbnails for reports, raw pixels for a baseline."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.core.progress import Reporter
from headstart.data.dataset import Split
from headstart.data.decoding import image_of
from headstart.data.inputs import Inputs
from headstart.data.reading import read_batches

THUMBNAIL = 128
"""Pixels a side of a thumbnail, at most."""
_GAP = 4

SMALL_SIDE = 64
"""Images up to this many pixels a side are offered as raw pixels."""
PIXEL_SIDE = 32
"""Larger ones of them are resized to this side: as a baseline it is enough."""


def thumbnail(*images: Image.Image) -> bytes:
    """Return images side by side, each at most 128 × 128 pixels: PNG if all are tiny, else JPEG.

    Tiny images are enlarged without smoothing: their pixels are what there is to see.
    """
    small = [_shrunk(image.convert("RGB")) for image in images]
    width = sum(image.width for image in small) + _GAP * (len(small) - 1)
    sheet = Image.new("RGB", (width, max(image.height for image in small)), "white")
    left = 0
    for image in small:
        sheet.paste(image, (left, 0))
        left += image.width + _GAP
    buffer = io.BytesIO()
    if all(max(image.size) <= THUMBNAIL for image in images):
        sheet.save(buffer, format="PNG", optimize=True)
    else:
        sheet.save(buffer, format="JPEG", quality=80)
    return buffer.getvalue()


def _shrunk(image: Image.Image) -> Image.Image:
    if max(image.size) < THUMBNAIL:
        factor = THUMBNAIL // max(image.size)
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    return image


def small_side(look: Split) -> int | None:
    """Return the side to take raw pixels at; None where 16 images of ``look`` hold a large one.

    Images are taken at 32×32 or, if smaller, at their own size.
    """
    places = np.linspace(0, len(look) - 1, num=min(16, len(look)), dtype=np.int64)
    largest = max(max(image_of(look.content(int(i))).size) for i in places)
    return None if largest > SMALL_SIDE else min(largest, PIXEL_SIDE)


def raw_pixels(small: Inputs, split: Split, reporter: Reporter) -> NDArray[np.float32]:
    """Return the pixels of images, decoded by ``small``, from 0 to 1: ``(n, c h w) float32``."""
    parts: list[NDArray[np.float32]] = []
    with reporter.task("read pixels for the baseline", len(split), "images") as task:
        for batch in read_batches(split, None, small, batch_size=256):
            values = np.stack(batch.samples).reshape(len(batch), -1)
            white = 255.0 if values.dtype == np.uint8 else 1.0
            parts.append(values.astype(np.float32) / white)
            task.advance(len(batch))
    return np.concatenate(parts)


__all__ = ["raw_pixels", "small_side", "thumbnail"]
