"""Where an image is resized to and which part of it is kept: one arithmetic for all images.

It is that of timm's and torchvision's evaluation transforms, pixel for pixel.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple, Protocol, get_args

from headstart.data.resampling import Box, placed

Resize = Literal["shortest", "squash"]
Interpolation = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
CropOffset = Literal["round", "floor"]


class Place(NamedTuple):
    """What an image is resized to, and the part that is kept of it.

    Attributes:
        target: (width, height) of the resized image.
        part: what the crop keeps of it.
    """

    target: tuple[int, int]
    part: Box


def box_of(size: tuple[int, int], crop_fraction: float) -> tuple[int, int]:
    """Return (height, width) that an image is resized to fill.

    Args:
        size: (height, width) of the input.
        crop_fraction: the part of the box that the crop keeps.
    """
    # timm floors; the small excess recovers 232 from crop_fraction = 224 / 232
    height, width = (math.floor(side / crop_fraction + 1e-6) for side in size)
    return height, width


class Placing(Protocol):
    """Inputs that resize and crop images."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the network's input."""

    @property
    def crop_fraction(self) -> float:
        """The part of the resized box that the crop keeps."""

    @property
    def resize(self) -> str:
        """A :data:`Resize`."""

    @property
    def interpolation(self) -> str:
        """An :data:`Interpolation`."""

    @property
    def crop_offset(self) -> str:
        """A :data:`CropOffset`."""


def place(image: tuple[int, int], p: Placing) -> Place:
    """Return what becomes of an image of (width, height)."""
    box = box_of(p.size, p.crop_fraction)
    return Place(*placed(image, p.size, box, p.resize, p.crop_offset))


def pair(size: Any) -> tuple[Any, ...]:
    """Return a size that may be one number as a tuple."""
    return (size, size) if isinstance(size, int) else tuple(size)


def geometry_faults(p: Placing) -> list[str]:
    """Return what is wrong with size, crop and resizing, one sentence each."""
    faults = []
    if len(p.size) != 2 or not all(isinstance(s, int) and s > 0 for s in p.size):
        faults.append(f"size must be one or two positive whole numbers of pixels, not {p.size}")
    if not 0 < p.crop_fraction <= 1:
        faults.append(f"crop_fraction must lie in (0, 1], not {p.crop_fraction}")
    for name, value, options in (
        ("resize", p.resize, get_args(Resize)),
        ("interpolation", p.interpolation, get_args(Interpolation)),
        ("crop_offset", p.crop_offset, get_args(CropOffset)),
    ):
        if value not in options:
            faults.append(f"{name} must be one of {', '.join(options)}, not {value!r}")
    return faults


def how_placed(p: Placing) -> str:
    """Return how images are resized and cropped, in words."""
    height, width = p.size
    box_height, box_width = box_of(p.size, p.crop_fraction)
    how = "shorter side" if p.resize == "shortest" else "both sides"
    box = f"{box_height}" if box_height == box_width else f"{box_height}×{box_width}"
    return f"{how} to {box} ({p.interpolation}), centre crop {height}×{width}"


__all__ = [
    "CropOffset",
    "Interpolation",
    "Place",
    "Placing",
    "Resize",
    "box_of",
    "geometry_faults",
    "how_placed",
    "pair",
    "place",
]
