"""How an image of any bands is shown: as a thumbnail, stretched, and in words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

STRETCH = (2.0, 98.0)
"""Percentiles of a band that a thumbnail shows as black and white."""


def rendering(channels: int) -> str:
    """Return how a thumbnail shows so many channels, in words."""
    low, high = STRETCH
    how = f"stretched from percentile {low:g} to {high:g}"
    if channels < 3:
        return f"the first channel as grey, {how}"
    return f"the first three channels as red, green and blue, each {how}"


def rendered(planes: Sequence[NDArray[np.float32]]) -> Image.Image:
    """Return an image of bands, each ``(h, w)``, as :func:`rendering` says."""
    taken = list(planes[:3]) if len(planes) >= 3 else [planes[0]] * 3
    stretched = []
    for plane in taken:
        low, high = (float(each) for each in np.percentile(plane, STRETCH))
        spread = high - low if high > low else 1.0
        stretched.append(np.clip((plane - low) / spread, 0.0, 1.0))
    return Image.fromarray(np.rint(np.stack(stretched, axis=2) * 255).astype(np.uint8))


__all__ = ["STRETCH", "rendered", "rendering"]
