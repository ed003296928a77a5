"""Mean, variance and range of the images that networks are given, by what they are given for."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from headstart.audit.events import Pass
from headstart.core.devices import doubled
from headstart.data.corrections import (
    NORMALISATIONS,
    SLIPS,
    Normalisation,
    could_have_made,
)
from headstart.freezing.drifts import drift_between
from headstart.freezing.moments import Moments

UNLIKE = 0.3
"""Nats (symmetric KL, mean over channels) from which two sets of images are unlike each other."""
PLAINER = 0.8
"""An unusual pair of preprocessings has to explain a difference so much better than a usual one."""
EXPLAINED = 5.0
"""A change of the preprocessing explains the difference if it lowers it by this factor."""


@dataclass
class Images:
    """What was seen of a set of images.

    Attributes:
        first: the first pass that ran on them.
        moments: per channel, over all pixels.
        low, high: per channel, ``(c,) float64``.
        rows: how many images.
    """

    first: Pass
    moments: Moments
    low: Tensor
    high: Tensor
    rows: int

    @classmethod
    def of(cls, seen: Pass, images: Tensor) -> Images:
        """Measure ``(n, c, h, w)`` images."""
        wide = doubled(images.detach())
        low, high = wide.amin((0, 2, 3)).cpu(), wide.amax((0, 2, 3)).cpu()
        return cls(seen, Moments.of(wide), low, high, len(images))

    def merge(self, other: Images) -> Images:
        """Return both together."""
        return Images(
            self.first,
            self.moments.merge(other.moments),
            torch.minimum(self.low, other.low),
            torch.maximum(self.high, other.high),
            self.rows + other.rows,
        )

    def extremes(self) -> Tensor:
        """Return an image of two pixels: the darkest and the brightest of every channel."""
        return torch.stack([self.low, self.high], 1).view(1, -1, 1, 2)


@dataclass(frozen=True)
class Explanation:
    """How one set of images came to be unlike another.

    Attributes:
        before, after: the preprocessings, in words.
        given: how unlike they are, in nats.
        left: how unlike once the first set is preprocessed like the second.
    """

    before: str
    after: str
    given: float
    left: float


def explain(one: Images, other: Images) -> Explanation | None:
    """Return the change of the preprocessing that makes the first set look like the second.

    Returns:
        None if they are alike, or if no usual change explains the difference.
    """
    given = _unlike(one.moments.mean, one.moments.variance, other.moments)
    if len(one.low) != 3 or given < UNLIKE:
        return None
    best: Explanation | None = None
    for was in (*NORMALISATIONS, *SLIPS):
        if not could_have_made(was, one.extremes()):
            continue
        for now in (*NORMALISATIONS, *SLIPS):
            for flip in (False, True):
                if (now is was and not flip) or not could_have_made(now, other.extremes()):
                    continue
                left = _unlike(*_changed(one.moments, was, now, flip), other.moments)
                name = now.name + (", channels in the opposite order" if flip else "")
                # Several pairs may explain it equally well: the first, which is the most usual.
                if best is None or left < PLAINER * best.left:
                    best = Explanation(was.name, name, given, left)
    return best if best is not None and best.left * EXPLAINED < given else None


def _changed(
    moments: Moments, was: Normalisation, now: Normalisation, flip: bool
) -> tuple[Tensor, Tensor]:
    """Return mean and variance, ``(3,)``, of images that are normalised otherwise."""

    def channels(values: tuple[float, float, float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64)

    pixel_mean = (moments.mean * channels(was.std) + channels(was.mean)) / was.scale
    pixel_var = moments.variance * (channels(was.std) / was.scale) ** 2
    if flip:
        pixel_mean, pixel_var = pixel_mean.flip(0), pixel_var.flip(0)
    mean = (pixel_mean * now.scale - channels(now.mean)) / channels(now.std)
    return mean, pixel_var * (now.scale / channels(now.std)) ** 2


def _unlike(mean: Tensor, variance: Tensor, other: Moments) -> float:
    return drift_between("", mean, variance, other, eps=1e-8, worst=1).symmetric_kl


__all__ = ["Explanation", "Images", "explain"]
