"""Numbered views: augmentation that can be cached.

An ordinary random transform returns another image each time, so its features cannot be stored. A
:class:`View` draws its random numbers from a hash of (seed, view number, item id, step): view 3 of
an item is the same image in every run, on every machine, in any order and any thread. K views are K
rows per item, and a training epoch picks among them.

View 0 is the image without augmentation.
"""

from __future__ import annotations

import math
import random
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from headstart.core.errors import ConfigError
from headstart.core.fingerprints import canonical_json, stable_integer
from headstart.data.content import UndecodableError

RULES = 1
"""Version of what the steps do to pixels; part of every description of an augmented view."""


@dataclass(frozen=True)
class RandomResizedCrop:
    """A part of the image, resized to the input size; replaces the preprocessing's own crop.

    Area and aspect ratio are drawn as in Szegedy et al. 2015, section 6, as torchvision does it:
    up to ten tries for a part that fits, then the largest centred part of an allowed ratio.

    Attributes:
        area: smallest and largest share of the image's area; at least a third by default,
            milder than the 8 % of training from scratch, because a frozen backbone cannot learn
            to cope with fragments.
        ratio: smallest and largest width / height, drawn evenly on a logarithmic scale.
    """

    area: tuple[float, float] = (0.35, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def faults(self) -> list[str]:
        """Return what cannot be, one sentence each."""
        low, high = self.area
        faults = [] if 0 < low <= high <= 1 else [f"area must lie in (0, 1], not {self.area}"]
        if not 0 < self.ratio[0] <= self.ratio[1]:
            faults.append(f"ratio must be positive and ascending, not {self.ratio}")
        return faults

    def box(self, size: tuple[int, int], rng: random.Random) -> tuple[int, int, int, int]:
        """Return (left, top, right, bottom) of the part of an image of ``size`` (w, h)."""
        width, height = size
        for _ in range(10):
            area = width * height * _between(self.area, rng)
            logs = (math.log(self.ratio[0]), math.log(self.ratio[1]))
            ratio = math.exp(_between(logs, rng))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            left, top = rng.random(), rng.random()
            if 0 < w <= width and 0 < h <= height:
                x, y = int(left * (width - w + 1)), int(top * (height - h + 1))
                return x, y, x + w, y + h
        ratio = min(max(width / height, self.ratio[0]), self.ratio[1])
        w, h = min(width, round(height * ratio)), min(height, round(width / ratio))
        x, y = (width - w) // 2, (height - h) // 2
        return x, y, x + w, y + h


@dataclass(frozen=True)
class Flip:
    """A mirror image.

    Attributes:
        probability: of mirroring, in [0, 1].
        vertical: top to bottom instead of left to right.
    """

    probability: float = 0.5
    vertical: bool = False

    def faults(self) -> list[str]:
        """Return what cannot be, one sentence each."""
        ok = 0 <= self.probability <= 1
        return [] if ok else [f"probability must lie in [0, 1], not {self.probability}"]

    def apply(self, image: Image.Image, rng: random.Random) -> Image.Image:
        """Mirror the image, or leave it."""
        if rng.random() >= self.probability:
            return image
        way = Image.Transpose.FLIP_TOP_BOTTOM if self.vertical else Image.Transpose.FLIP_LEFT_RIGHT
        return image.transpose(way)


@dataclass(frozen=True)
class Rotation:
    """A rotation about the centre, bilinear.

    Attributes:
        degrees: the largest angle to either side, in [0, 180].
        fill: level (0..255) of the corners that come into sight.
    """

    degrees: float = 10.0
    fill: int = 0

    def faults(self) -> list[str]:
        """Return what cannot be, one sentence each."""
        faults = []
        if not 0 <= self.degrees <= 180:
            faults.append(f"degrees must lie in [0, 180], not {self.degrees}")
        if self.fill not in range(256):
            faults.append(f"fill must be a level from 0 to 255, not {self.fill}")
        return faults

    def apply(self, image: Image.Image, rng: random.Random) -> Image.Image:
        """Rotate the image by a random angle."""
        angle = _between((-self.degrees, self.degrees), rng)
        fill = self.fill / 255 if image.mode == "F" else (self.fill,) * 3
        return image.rotate(angle, Image.Resampling.BILINEAR, fillcolor=fill)


@dataclass(frozen=True)
class ColourJitter:
    """Brightness, contrast, saturation and hue, in this order.

    Attributes:
        brightness: factors are drawn evenly from 1 − x to 1 + x.
        contrast: likewise.
        saturation: likewise.
        hue: shift of at most this part of the colour circle, in [0, 0.5].
    """

    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2
    hue: float = 0.0

    def faults(self) -> list[str]:
        """Return what cannot be, one sentence each."""
        faults = [
            f"{name} must lie in [0, 1], not {value}"
            for name, value in asdict(self).items()
            if not 0 <= value <= 1
        ]
        return faults if self.hue <= 0.5 else [*faults, f"hue must be ≤ 0.5, not {self.hue}"]

    def apply(self, image: Image.Image, rng: random.Random) -> Image.Image:
        """Change the colours.

        Raises:
            UndecodableError: a band of floats has none.
        """
        if image.mode == "F":
            raise UndecodableError("bands have no colours that ColourJitter could change")
        for enhancer, strength in (
            (ImageEnhance.Brightness, self.brightness),
            (ImageEnhance.Contrast, self.contrast),
            (ImageEnhance.Color, self.saturation),
        ):
            factor = _between((1 - strength, 1 + strength), rng)
            if strength:
                image = enhancer(image).enhance(factor)
        shift = round(_between((-self.hue, self.hue), rng) * 255)
        if shift:
            hue, saturation, value = image.convert("HSV").split()
            hue = hue.point([(level + shift) % 256 for level in range(256)])
            image = Image.merge("HSV", (hue, saturation, value)).convert("RGB")
        return image


AnyStep = RandomResizedCrop | Flip | Rotation | ColourJitter
STANDARD: tuple[AnyStep, ...] = (RandomResizedCrop(), Flip())
"""A part of the image, mirrored or not: what suits photographs."""


class Filling(Protocol):
    """What a view of headstart's own needs of the backbone's inputs."""

    def filled(self, image: Image.Image) -> Image.Image:
        """Resize a whole image to the size of the input."""

    def geometry(self, image: Image.Image) -> NDArray[Any]:
        """Resize and crop an image without augmentation."""


class Preprocessing(Filling, Protocol):
    """What any view of images of one size needs of their preprocessing."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the network's input."""


class ImageView(Protocol):
    """A numbered augmentation of images."""

    @property
    def number(self) -> int:
        """0 is the image without augmentation."""

    def geometry(self, image: Image.Image, key: str, preprocessing: Preprocessing) -> NDArray[Any]:
        """Return this view of one item, ``(h, w, 3) uint8``, at the network's input size."""

    def describe(self) -> dict[str, Any]:
        """Return what decides the pixels."""


@dataclass(frozen=True)
class View:
    """One numbered augmentation of every item.

    Attributes:
        number: 0 is the unaugmented image; 1, 2, ... are augmented.
        seed: one seed makes one family of views.
        recipe: the steps, in order; a :class:`RandomResizedCrop` can only be the first.

    Raises:
        ConfigError: naming every value that cannot be.
    """

    number: int = 0
    seed: int = 0
    recipe: tuple[AnyStep, ...] = STANDARD

    def __post_init__(self) -> None:
        faults = [
            f"{type(step).__name__}: {fault}" for step in self.recipe for fault in step.faults()
        ]
        if self.number < 0:
            faults.append(f"number must not be negative, not {self.number}")
        if any(isinstance(step, RandomResizedCrop) for step in self.recipe[1:]):
            faults.append("RandomResizedCrop can only be the first step")
        if faults:
            raise ConfigError(tuple(faults))

    def geometry(self, image: Image.Image, key: str, preprocessing: Filling) -> NDArray[Any]:
        """Return this view of one item, at the network's input size.

        Args:
            image: upright, any size; mode ``RGB``, or any that files come in; or one band of
                floats (mode ``F``) from 0 to 1. All bands of an item get the same view.
            key: the item's id.
            preprocessing: gives the size and the interpolation.

        Returns:
            ``(h, w, 3) uint8``, RGB; of a band ``(h, w) float32``.
        """
        if self.number == 0:
            return preprocessing.geometry(image)
        steps = list(enumerate(self.recipe))
        if steps and isinstance(self.recipe[0], RandomResizedCrop):
            box = self.recipe[0].box(image.size, self._rng(key, 0))
            # crop first: a resampling window that reaches beyond the box would see the rest
            image = preprocessing.filled(image.crop(box))
            steps = steps[1:]
        else:
            image = Image.fromarray(preprocessing.geometry(image))
        for place, step in steps:
            assert not isinstance(step, RandomResizedCrop)
            image = step.apply(image, self._rng(key, place))
        return np.asarray(image)

    def describe(self) -> dict[str, Any]:
        """Return what decides the pixels, as plain JSON values; view 0 depends on nothing else."""
        if self.number == 0:
            return {"number": 0}
        return {
            "number": self.number,
            "seed": self.seed,
            "recipe": [_described(step) for step in self.recipe],
            "rules": RULES,
        }

    def _rng(self, key: str, place: int) -> random.Random:
        """Return the random numbers of one step; they do not change when another step does.

        ``random.Random(int).random()`` is the same on every platform and, by promise of the
        standard library, in every version.
        """
        step = canonical_json(_described(self.recipe[place]), compact=False)
        text = "\0".join((str(self.seed), str(self.number), key, str(place), step))
        return random.Random(stable_integer(text))


def numbered_views(
    count: int, *, seed: int = 0, recipe: tuple[AnyStep, ...] = STANDARD
) -> tuple[View, ...]:
    """Return the augmented views 1 .. ``count`` of one family.

    Raises:
        ConfigError: as for :class:`View`.
    """
    return tuple(View(number, seed, recipe) for number in range(1, count + 1))


def _described(step: AnyStep) -> dict[str, Any]:
    values = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(step).items()}
    return {"step": type(step).__name__, **values}


def _between(bounds: tuple[float, float], rng: random.Random) -> float:
    return bounds[0] + (bounds[1] - bounds[0]) * rng.random()
