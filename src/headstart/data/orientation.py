"""Which way up an image is meant: what its metadata say, and the image turned so."""

from __future__ import annotations

from PIL import Image

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


def turned_by(image: Image.Image) -> Image.Transpose | None:
    """Return how the metadata of an image say that it is to be turned; None: not at all."""
    if image.format != "TIFF" and not any(key in image.info for key in _EXIF_CARRIERS):
        return None
    # Not ImageOps.exif_transpose: it rewrites the metadata after turning the image, and where that
    # fails (damaged metadata, readable orientation) the image would stay as it was stored.
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # damaged metadata around sound pixels: keep the pixels unchanged
        return None
    return _TRANSPOSE.get(orientation)


def upright_of(image: Image.Image) -> Image.Image:
    """Return an image turned as its metadata say."""
    method = turned_by(image)
    return image if method is None else image.transpose(method)


__all__ = ["turned_by", "upright_of"]
