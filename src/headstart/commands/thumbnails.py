"""Small pictures of items, for the pages of reports."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

SIDE = 128
_GAP = 4


def thumbnail(*images: Image.Image) -> bytes:
    """Return images side by side, each at most 128 × 128 pixels: PNG if all are tiny, else JPEG.

    Tiny images are enlarged without smoothing: their pixels are what there is to see.
    """
    from PIL import Image

    small = [_shrunk(image.convert("RGB")) for image in images]
    width = sum(image.width for image in small) + _GAP * (len(small) - 1)
    sheet = Image.new("RGB", (width, max(image.height for image in small)), "white")
    left = 0
    for image in small:
        sheet.paste(image, (left, 0))
        left += image.width + _GAP
    buffer = io.BytesIO()
    if all(max(image.size) <= SIDE for image in images):
        sheet.save(buffer, format="PNG", optimize=True)
    else:
        sheet.save(buffer, format="JPEG", quality=80)
    return buffer.getvalue()


def _shrunk(image: Image.Image) -> Image.Image:
    from PIL import Image

    if max(image.size) < SIDE:
        factor = SIDE // max(image.size)
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    image.thumbnail((SIDE, SIDE))
    return image
