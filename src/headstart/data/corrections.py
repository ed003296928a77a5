"""What may be wrong with images that are tensors already, and the corrections to try.

A tensor does not say how it was made. Every usual preprocessing that could have made it is undone,
and every usual one applied instead; then come the order of the channels and the layout. What the
right one is, a network's running statistics tell, or the preprocessing that it was published with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from headstart.data.image_variants import IMAGENET_MEAN, IMAGENET_STD

Mistake = Literal["scale", "normalisation", "channel-order", "layout"]

_LOW, _HIGH = -4.0, 259.0
"""Bounds of the pixels that a preprocessing, undone, must give: resampling overshoots a little."""
_CONTRAST = 30.0
"""Images whose pixels differ by less than this were not made so."""

ROUGH = 0.7
"""Images that were reshaped instead of permuted are rougher along their rows than when read right;
neighbours of a picture are alike."""


@dataclass(frozen=True)
class Normalisation:
    """A usual way to normalise RGB pixels of 0..255: ``(pixels * scale - mean) / std``.

    Attributes:
        name: in words.
        scale, mean, std: as in :class:`~headstart.data.Preprocessing`; per channel.
    """

    name: str
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def apply(self, pixels: Tensor) -> Tensor:
        """Normalise ``(n, 3, h, w)`` pixels of 0..255."""
        mean, std = _column(self.mean, pixels), _column(self.std, pixels)
        return (pixels * self.scale - mean) / std

    def undo(self, images: Tensor) -> Tensor:
        """Return the pixels, 0..255, from which normalised ``(n, 3, h, w)`` images came."""
        mean, std = _column(self.mean, images), _column(self.std, images)
        return (images * std + mean) / self.scale


_NONE, _ONE, _HALF = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (0.5, 0.5, 0.5)
NORMALISATIONS = (
    Normalisation("pixels of 0..255", 1.0, _NONE, _ONE),
    Normalisation("pixels of 0..1", 1 / 255, _NONE, _ONE),
    Normalisation("ImageNet's mean and standard deviation", 1 / 255, IMAGENET_MEAN, IMAGENET_STD),
    Normalisation("mean 0.5 and standard deviation 0.5", 1 / 255, _HALF, _HALF),
    Normalisation("0..255 less ImageNet's mean", 1.0, (123.675, 116.28, 103.53), _ONE),
)
"""What networks are trained on."""


def _slips() -> tuple[Normalisation, ...]:
    """Return what a forgotten or a repeated step makes of them."""
    mean, std = IMAGENET_MEAN, IMAGENET_STD
    pairs = (
        ("ImageNet's mean and standard deviation", mean, std),
        ("mean and std 0.5", _HALF, _HALF),
    )
    found = [Normalisation("pixels divided by 255 twice", 1 / 65025, _NONE, _ONE)]
    for name, m, s in pairs:
        # ((x - m) / s - m) / s = (x - (m + m s)) / s²
        both = tuple(a + a * b for a, b in zip(m, s, strict=True))
        squared = tuple(b * b for b in s)
        found += [
            Normalisation(f"{name} after dividing by 255 twice", 1 / 65025, m, s),
            Normalisation(f"{name} without dividing by 255", 1.0, m, s),
            Normalisation(f"{name}, applied twice", 1 / 255, triple(both), triple(squared)),
        ]
    return tuple(found)


def triple(values: Sequence[float]) -> tuple[float, float, float]:
    """Return three values as what a :class:`Normalisation` holds."""
    first, second, third = values
    return first, second, third


SLIPS = _slips()
"""What networks are given by mistake, beside what others are trained on."""
_PLAIN = NORMALISATIONS[0]


@dataclass(frozen=True)
class Correction:
    """A change of images that are tensors.

    Attributes:
        name: what it does, in words ("divided by 255").
        mistake: what it mends.
        code: a line of Python that changes ``x``.
        apply: the change: ``(n, c, h, w) float`` → the same shape.
    """

    name: str
    mistake: Mistake
    code: str
    apply: Callable[[Tensor], Tensor]


def corrections(images: Tensor) -> tuple[Correction, ...]:
    """Return what to try, the smallest changes first.

    Args:
        images: ``(n, c, h, w) float``, an example of what a network is given.
    """
    extent = float(images.abs().amax()) if images.numel() else 0.0
    found = [_flipped(images)] if images.shape[1] == 3 else []
    if extent > 20:
        found.append(_scaled("divided by 255", 1 / 255, "x = x / 255"))
    elif extent <= 3:
        found.append(_scaled("multiplied by 255", 255.0, "x = x * 255"))
    if images.shape[1] == 3:
        found += _renormalised(images)
        relaid = _relaid(images.shape)
        if _roughness(relaid.apply(images)) < ROUGH * _roughness(images):
            found.append(relaid)
    return tuple(found)


def _flipped(images: Tensor) -> Correction:
    # Mean and deviation stay with their channel, the pixels change places.
    was = next((n for n in reversed(NORMALISATIONS) if could_have_made(n, images)), _PLAIN)
    return Correction(
        "with the channels in the opposite order (BGR ↔ RGB)",
        "channel-order",
        "x = x[:, [2, 1, 0]]  # before the normalisation",
        lambda x: was.apply(was.undo(x).flip(1)),
    )


def _scaled(name: str, factor: float, code: str) -> Correction:
    return Correction(name, "scale", code, lambda x: x * factor)


def _relaid(shape: torch.Size) -> Correction:
    _, c, h, w = shape

    def apply(x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], h, w, c).permute(0, 3, 1, 2)

    return Correction(
        "read as (n, height, width, channels) and permuted",
        "layout",
        f"x = x.reshape(-1, {h}, {w}, {c}).permute(0, 3, 1, 2)  # from the images as they were",
        apply,
    )


def _roughness(images: Tensor) -> float:
    """Return how much neighbours along a row differ, relative to how much all pixels do."""
    return float(images.diff(dim=3).abs().mean() / images.std().clamp_min(1e-12))


def _renormalised(images: Tensor) -> list[Correction]:
    """Return every usual normalisation in the place of those that could have made the images."""
    found: list[Correction] = []
    for was in (*NORMALISATIONS, *SLIPS):
        if not could_have_made(was, images):
            continue
        for wanted in NORMALISATIONS:
            if wanted is was:
                continue
            for flip in (False, True):
                found.append(_instead(was, wanted, flip))
    return found


def could_have_made(was: Normalisation, images: Tensor) -> bool:
    """Whether a normalisation can have given these ``(n, 3, h, w)`` images."""
    pixels = was.undo(images)
    low, high = float(pixels.amin()), float(pixels.amax())
    return low >= _LOW and high <= _HIGH and high - low >= _CONTRAST


def _instead(was: Normalisation, wanted: Normalisation, flip: bool) -> Correction:
    def apply(x: Tensor) -> Tensor:
        pixels = was.undo(x)
        # The order of the channels belongs to the pixels: mean and deviation stay where they are.
        return wanted.apply(pixels.flip(1) if flip else pixels)

    scale = was.scale / wanted.scale
    mistake: Mistake = "scale" if not 0.02 < scale < 50 else "normalisation"
    code = code_for(wanted)
    name = f"with {wanted.name} instead of {was.name}"
    if flip:
        name += ", channels in the opposite order"
        code = code.replace("RGB", "BGR")
    return Correction(name, mistake, code, apply)


def code_for(wanted: Normalisation) -> str:
    """Return a line of Python that normalises ``pixels``."""
    pixels = "pixels / 255" if wanted.scale < 0.5 else "pixels.float()"
    whence = "  # pixels: RGB, 0..255"
    if wanted.mean == _NONE and wanted.std == _ONE:
        return f"x = {pixels}{whence}"
    mean, std = list(wanted.mean), list(wanted.std)
    return f"x = torchvision.transforms.functional.normalize({pixels}, {mean}, {std}){whence}"


def _column(values: tuple[float, ...], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device).view(-1, 1, 1)


__all__ = [
    "NORMALISATIONS",
    "SLIPS",
    "Correction",
    "Mistake",
    "Normalisation",
    "code_for",
    "corrections",
    "could_have_made",
    "triple",
]
