"""Image files → pixels of the network's size, as the model was trained on them.

Decoding and resizing are Pillow's. They stand outside of the network: Pillow rounds between its two
passes, which no runtime's own resizing does.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from headstart.data.decoding import loaded
from headstart.data.formats import FORMATS
from headstart.data.resampling import placed, resize


def open_file(path: Any) -> Image.Image:
    """Open an image file by its content: the first frame, upright."""
    formats = list(FORMATS)
    with contextlib.suppress(ImportError):  # photos of telephones, where pillow-heif is installed
        import pillow_heif

        pillow_heif.register_heif_opener()
        formats.append("HEIF")
    return loaded(Image.open(io.BytesIO(Path(path).read_bytes()), formats=formats))


def pixels_of(image: Image.Image, settings: Mapping[str, Any]) -> np.ndarray:
    """Resize and crop one image; ``(3, height, width) uint8``, RGB."""
    target, part = placed(
        image.size,
        tuple(settings["size"]),
        tuple(settings["box"]),
        settings["resize"],
        settings["crop_offset"],
    )
    found = np.asarray(resize(image, target, settings["interpolation"], part))
    return np.ascontiguousarray(found.transpose(2, 0, 1))


def read(
    items: Sequence[Any],
    settings: Mapping[str, Any],
    folder: Any,  # noqa: ARG001
) -> dict[str, np.ndarray]:
    """Return what the network takes, of image files."""
    return {"pixels": np.stack([pixels_of(open_file(item), settings) for item in items])}


__all__ = ["open_file", "pixels_of", "read"]
