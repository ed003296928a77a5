"""Are the inputs what the network was trained on? Its running statistics know.

A batch norm keeps mean and variance of what it was given in pre-training. Inputs that are scaled,
normalised or ordered otherwise show first and strongest in the earliest layers; so the usual
preprocessings are tried there, and the one that brings the layers nearest to their statistics
tells what is wrong. No label is used.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headstart.backbones import Backbone
from headstart.data import Preprocessing, Split
from headstart.extraction import Extraction
from headstart.freezing import LayerDrift, drift
from headstart.study.configurations import IMAGENET_MEAN, IMAGENET_STD
from headstart.study.network import run_batch
from headstart.study.repetitions import StudyData

EARLY = 3
"""Early layers that are looked at. Later ones see what these have normalised, and tell less."""

FACTOR = 1.6
"""A correction counts if it lowers the early drift at least so much.

On right inputs no usual preprocessing did so by more than 1.2, also with tiny images; swapped
channels change it by 2.8 on photographs, a wrong mean and deviation by 9, missing scaling by
10,000.
"""

FLOOR = 0.02
"""Drift in nats below which inputs agree, whatever else would agree still better."""

USUAL = (0.02, 10.0)
"""Deviations that usual normalisations give, with room for plain and for contrasty images.

Images as they are (0..255) deviate by 40 to 100, images that were scaled twice by 0.002 or less.
"""

TINY = 1.5
"""Images that are enlarged by more than this lack the detail that the network knows."""


@dataclass(frozen=True)
class Trial:
    """A preprocessing that was tried.

    Attributes:
        name: what it changes, in words ("divided by 255").
        preprocessing: what was tried.
        first: drift of the first layer, in nats (symmetric KL, mean over channels).
        early: the geometric mean of the drift of the first layers.
    """

    name: str
    preprocessing: Preprocessing
    first: float
    early: float


@dataclass(frozen=True)
class InputRange:
    """What a network is given after preprocessing; all that can be said without running statistics.

    Attributes:
        mean, deviation: over all pixels and channels.
        low, high: the extremes.
        images: on how many images.
    """

    mean: float
    deviation: float
    low: float
    high: float
    images: int

    @property
    def unusual(self) -> bool:
        """Whether the deviation is that of no usual normalisation (0.2 to 1.3 on photographs)."""
        return not USUAL[0] <= self.deviation <= USUAL[1]


@dataclass(frozen=True)
class InputCheck:
    """What the trials say.

    Attributes:
        layers: the early layers.
        given: the preprocessing as given.
        trials: the others.
        correction: the simplest trial that agrees clearly better; None if there is none.
        image_side: median of the shorter sides of the images, in pixels.
        resized_side: to which the preprocessing brings it.
        own_size: the trial at about the images' own size, if they are enlarged.
        images: on how many images.
    """

    layers: tuple[str, ...]
    given: Trial
    trials: tuple[Trial, ...]
    correction: Trial | None
    image_side: int
    resized_side: int
    own_size: Trial | None
    images: int

    @property
    def enlargement(self) -> float:
        """How many times the images are enlarged."""
        return self.resized_side / self.image_side


def input_range(inputs: Tensor) -> InputRange:
    """Measure normalised inputs ``(n, 3, h, w) float32``."""
    values = inputs.double()
    return InputRange(
        mean=float(values.mean()),
        deviation=float(values.std(correction=0)),
        low=float(values.min()),
        high=float(values.max()),
        images=len(inputs),
    )


def check_inputs(
    backbone: Backbone, norms: Sequence[str], data: StudyData, batch_size: int
) -> InputCheck:
    """Try the usual preprocessings, and see how well the early layers know their results.

    Args:
        backbone: the network with the preprocessing in question.
        norms: its layers with running statistics, in the order of the network; not empty.
        data: its sample is used.
        batch_size: images in a pass.
    """
    early = tuple(norms[:EARLY])
    given = backbone.preprocessing
    as_decoded = data.sample_pixels(given)

    def trial(name: str, changed: Preprocessing, pixels: Tensor = as_decoded) -> Trial:
        inputs = changed.normalise(pixels.to(backbone.device))
        found = drift_up_to(backbone.at(early[-1], "none"), early, torch.split(inputs, batch_size))
        logs = [math.log(max(layer.symmetric_kl, 1e-12)) for layer in found]
        return Trial(name, changed, found[0].symmetric_kl, math.exp(sum(logs) / len(logs)))

    as_given = trial("as given", given)
    trials = tuple(trial(name, changed) for name, changed in alternatives(given))
    side = _median_side(data.sample)
    resized = round(min(given.size) / given.crop_fraction)
    smaller = _own_size(given, side) if resized / side >= TINY else None
    own = None
    if smaller is not None:
        name = f"at {smaller.size[0]} px, near their own size"
        own = trial(name, smaller, data.sample_pixels(smaller))
    return InputCheck(
        layers=early,
        given=as_given,
        trials=trials,
        correction=choose_correction(as_given, trials),
        image_side=side,
        resized_side=resized,
        own_size=own,
        images=len(data.sample),
    )


def alternatives(given: Preprocessing) -> list[tuple[str, Preprocessing]]:
    """Return usual preprocessings other than the one given, the smallest changes first."""
    swapped = "BGR" if given.channels == "RGB" else "RGB"
    usual: dict[str, tuple[float, tuple[Any, ...], tuple[Any, ...]]] = {
        "with mean 0.5 and standard deviation 0.5": (1 / 255, (0.5,) * 3, (0.5,) * 3),
        "with ImageNet's mean and standard deviation": (1 / 255, IMAGENET_MEAN, IMAGENET_STD),
        "divided by 255 alone": (1 / 255, (0.0,) * 3, (1.0,) * 3),
        "0..255 as they are": (1.0, (0.0,) * 3, (1.0,) * 3),
        "0..255 less ImageNet's mean": (
            1.0,
            tuple(round(255 * m, 3) for m in IMAGENET_MEAN),
            (1.0,) * 3,
        ),
    }
    candidates: list[tuple[str, Preprocessing]] = [
        (f"with channels in {swapped} order", dataclasses.replace(given, channels=swapped))  # type: ignore[arg-type]
    ]
    if given.scale > 0.1:
        scaled = dataclasses.replace(given, scale=given.scale / 255)
        candidates.append(("divided by 255", scaled))
    else:
        raw = dataclasses.replace(given, scale=given.scale * 255)
        candidates.append(("multiplied by 255", raw))
    for channels in (given.channels, swapped):
        for name, (scale, mean, std) in usual.items():
            order = "" if channels == given.channels else f", channels in {swapped} order"
            changed = dataclasses.replace(
                given,
                scale=scale,
                mean=mean,
                std=std,
                channels=channels,  # type: ignore[arg-type]
            )
            candidates.append((name + order, changed))
    distinct: dict[Preprocessing, str] = {}
    for name, changed in candidates:
        if changed != given:
            distinct.setdefault(changed, name)
    return [(name, changed) for changed, name in distinct.items()]


def choose_correction(given: Trial, trials: Sequence[Trial]) -> Trial | None:
    """Return the smallest change that agrees about as well as the best, if that is clearly better.

    Trials are ordered from small changes to large ones; "about as well" is within a fifth.
    """
    best = min((trial.early for trial in trials), default=math.inf)
    if given.early < FLOOR or best * FACTOR > given.early:
        return None
    return next(trial for trial in trials if trial.early <= 1.2 * best)


def drift_up_to(
    backbone: Backbone, layers: Sequence[str], batches: Sequence[Tensor]
) -> tuple[LayerDrift, ...]:
    """Measure the drift of some layers, running no further than the backbone's cut."""

    def forward(_module: torch.nn.Module, batch: Tensor) -> None:
        run_batch([backbone], batch, "no_grad", Extraction())

    return drift(backbone.module, batches, layers=list(layers), forward=forward)


def _median_side(split: Split) -> int:
    places = np.linspace(0, len(split) - 1, num=min(16, len(split)), dtype=np.int64)
    return int(np.median([min(split.image(int(i)).size) for i in places]))


def _own_size(given: Preprocessing, side: int) -> Preprocessing | None:
    """Return the preprocessing at half again the images' size, if the network might take it."""
    target = max(32, 16 * round(1.5 * side / 16))
    if target >= min(given.size):
        return None
    height, width = given.size
    scale = target / min(height, width)
    size = (max(16, 16 * round(height * scale / 16)), max(16, 16 * round(width * scale / 16)))
    return dataclasses.replace(given, size=size)


__all__ = [
    "FACTOR",
    "InputCheck",
    "InputRange",
    "Trial",
    "alternatives",
    "check_inputs",
    "choose_correction",
    "drift_up_to",
    "input_range",
]
