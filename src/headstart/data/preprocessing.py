"""What happens to an image between the file and the backbone, as one describable value.

It travels with the weights: a :class:`Preprocessing` says everything that changes the pixels, so
that a cache key built from :meth:`Preprocessing.describe` never confuses two of them. The work is
divided in two: :meth:`Preprocessing.geometry` runs per image in threads on the CPU and yields
bytes; :meth:`Preprocessing.normalise` runs per batch on the device.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, features
from PIL import __version__ as pillow_version

from headstart.core.errors import ConfigError
from headstart.data import decoding

Resize = Literal["shortest", "squash"]
Interpolation = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
Channels = Literal["RGB", "BGR"]


@dataclass(frozen=True)
class Preprocessing:
    """The road from an RGB image to a network's input.

    The image is resized to a box of ``size / crop_fraction`` pixels, cropped to ``size`` from the
    centre, multiplied by ``scale`` (samples are 0..255), reduced by ``mean`` and divided by
    ``std``. Resizing is Pillow's, with antialiasing; the arithmetic of sizes is that of timm's
    and torchvision's evaluation transforms, pixel for pixel.

    Attributes:
        size: (height, width) of the network's input; an int stands for a square.
        mean, std: per channel, in the network's channel order, on scaled samples; one number
            stands for all three channels.
        scale: factor on the 0..255 samples before normalising; 1/255 by default, 1 for networks
            that take raw samples.
        crop_fraction: the part of the resized box that the crop keeps, in (0, 1]; 224/256 is
            0.875. 1.0 crops only what exceeds the aspect ratio.
        resize: ``shortest`` keeps the aspect ratio and fills the box with the shorter side;
            ``squash`` resizes both sides to the box and may distort.
        interpolation: the resampling filter.
        channels: the channel order the network was trained with.

    Raises:
        ConfigError: naming every value that cannot be.
    """

    size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    scale: float = 1.0 / 255.0
    crop_fraction: float = 1.0
    resize: Resize = "shortest"
    interpolation: Interpolation = "bicubic"
    channels: Channels = "RGB"

    def __post_init__(self) -> None:
        size: Any = self.size
        object.__setattr__(self, "size", _pair(size))
        for name in ("mean", "std"):
            object.__setattr__(self, name, _triple(getattr(self, name)))
        faults = _faults(self)
        if faults:
            raise ConfigError(tuple(faults))

    def geometry(self, image: Image.Image) -> NDArray[np.uint8]:
        """Resize and crop one image.

        Args:
            image: mode ``RGB``, any size.

        Returns:
            ``(h, w, 3) uint8`` in RGB order, whatever ``channels`` is.
        """
        height, width = self.size
        resized = _resize(image, self._box(), self.resize, self.interpolation)
        if resized.size != (width, height):
            resized = _centre_crop(resized, height, width)
        return np.asarray(resized)

    def normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        """Turn bytes into the network's input, on the device where they are.

        Args:
            pixels: ``(n, 3, h, w) uint8``, RGB.

        Returns:
            ``(n, 3, h, w) float32``, in the network's channel order, newly allocated.
        """
        if self.channels == "BGR":
            pixels = pixels.flip(1)
        mean = torch.tensor(self.mean, dtype=torch.float32, device=pixels.device)
        std = torch.tensor(self.std, dtype=torch.float32, device=pixels.device)
        x = pixels.to(torch.float32, copy=True).mul_(self.scale)
        return x.sub_(mean.view(1, 3, 1, 1)).div_(std.view(1, 3, 1, 1))

    def describe(self) -> dict[str, Any]:
        """Return everything that decides the pixels, as plain JSON values, for cache keys."""
        return {
            "size": list(self.size),
            "mean": list(self.mean),
            "std": list(self.std),
            "scale": self.scale,
            "crop_fraction": self.crop_fraction,
            "resize": self.resize,
            "interpolation": self.interpolation,
            "channels": self.channels,
            "decoder": describe_decoder(),
        }

    def __str__(self) -> str:
        height, width = self.size
        box_height, box_width = self._box()
        how = "shorter side" if self.resize == "shortest" else "both sides"
        box = f"{box_height}" if box_height == box_width else f"{box_height}×{box_width}"
        scale = "/255" if math.isclose(self.scale, 1 / 255) else f"×{self.scale:g}"
        return (
            f"{how} to {box} ({self.interpolation}), centre crop {height}×{width},"
            f" {self.channels} {scale}, mean {_short(self.mean)}, std {_short(self.std)}"
        )

    def _box(self) -> tuple[int, int]:
        """Return (height, width) that the image is resized to fill."""
        # timm floors; the small excess recovers 232 from crop_fraction = 224 / 232
        height, width = (math.floor(side / self.crop_fraction + 1e-6) for side in self.size)
        return height, width


@functools.cache
def _decoder_description() -> tuple[tuple[str, str | int], ...]:
    turbo = features.version_feature("libjpeg_turbo")
    jpeg = f"libjpeg-turbo {turbo}" if turbo else f"libjpeg {features.version_codec('jpg')}"
    return (
        ("library", f"pillow {pillow_version.split('.')[0]}"),
        ("jpeg", jpeg.split(".")[0]),
        ("rules", decoding.RULES),
    )


def describe_decoder() -> dict[str, str | int]:
    """Return the decoder as far as it can change pixels: major versions, and our own rules."""
    return dict(_decoder_description())


def _resize(image: Image.Image, box: tuple[int, int], how: str, interpolation: str) -> Image.Image:
    box_height, box_width = box
    width, height = image.size
    if how == "squash":
        target = (box_width, box_height)
    elif height * box_width >= width * box_height:  # tall for the box: the width decides
        target = (box_width, max(box_height, int(box_width * height / width)))
    else:
        target = (max(box_width, int(box_height * width / height)), box_height)
    if target == image.size:
        return image
    return image.resize(target, Image.Resampling[interpolation.upper()])


def _centre_crop(image: Image.Image, height: int, width: int) -> Image.Image:
    left = round((image.width - width) / 2)
    top = round((image.height - height) / 2)
    return image.crop((left, top, left + width, top + height))


def _pair(size: Any) -> tuple[Any, ...]:
    return (size, size) if isinstance(size, int) else tuple(size)


def _triple(values: Any) -> tuple[Any, ...]:
    if isinstance(values, int | float):
        return (float(values),) * 3
    numbers = tuple(float(value) for value in values)
    return numbers * 3 if len(numbers) == 1 else numbers


def _faults(p: Preprocessing) -> list[str]:
    faults: list[str] = []
    if len(p.size) != 2 or not all(isinstance(s, int) and s > 0 for s in p.size):
        faults.append(f"size must be one or two positive whole numbers of pixels, not {p.size}")
    for name, values in (("mean", p.mean), ("std", p.std)):
        if len(values) != 3 or not all(math.isfinite(v) for v in values):
            faults.append(f"{name} must be one or three finite numbers, not {values}")
    if any(v <= 0 for v in p.std):
        faults.append(f"std must be positive, not {p.std}")
    if not (math.isfinite(p.scale) and p.scale > 0):
        faults.append(f"scale must be positive, not {p.scale}")
    if not 0 < p.crop_fraction <= 1:
        faults.append(f"crop_fraction must lie in (0, 1], not {p.crop_fraction}")
    for name, value, options in (
        ("resize", p.resize, get_args(Resize)),
        ("interpolation", p.interpolation, get_args(Interpolation)),
        ("channels", p.channels, get_args(Channels)),
    ):
        if value not in options:
            faults.append(f"{name} must be one of {', '.join(options)}, not {value!r}")
    return faults


def _short(values: tuple[float, ...]) -> str:
    if len(set(values)) == 1:
        return f"{values[0]:g}"
    return "(" + ", ".join(f"{value:g}" for value in values) + ")"
