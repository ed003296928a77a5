"""Are the inputs what the network was trained on? Its running statistics know.

A batch norm keeps mean and variance of what it was given in pre-training. Inputs that are scaled,
normalised or ordered otherwise show first and strongest in the earliest layers; so the usual
preprocessings are tried there, and the one that brings the layers nearest to their statistics
tells what is wrong. No label is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from headstart.backbones import Backbone
from headstart.core.arguments import Arguments
from headstart.core.devices import doubled
from headstart.data import Inputs, Variant
from headstart.data.inputs import Enlargement
from headstart.extraction import Extraction
from headstart.freezing import LayerDrift, drift
from headstart.freezing.agreement import EARLY, FACTOR, clear_improvement, early_drift
from headstart.study.network import run_batch
from headstart.study.repetitions import StudyData

USUAL = (0.02, 10.0)
"""Deviations that usual normalisations give, with room for plain and for contrasty images.

Images as they are (0..255) deviate by 40 to 100, images that were scaled twice by 0.002 or less.
"""


@dataclass(frozen=True)
class Trial:
    """A preprocessing that was tried.

    Attributes:
        name: what it changes, in words ("divided by 255").
        inputs: what was tried.
        mends: the mistake that it would correct, as one word.
        first: drift of the first layer, in nats (symmetric KL, mean over channels).
        early: the geometric mean of the drift of the first layers.
    """

    name: str
    inputs: Inputs
    first: float
    early: float
    mends: str = ""


@dataclass(frozen=True)
class InputRange:
    """What a network is given after preprocessing; all that can be said without running statistics.

    Attributes:
        mean, deviation: over all pixels and channels.
        low, high: the extremes.
        items: how many.
    """

    mean: float
    deviation: float
    low: float
    high: float
    items: int

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
        enlarged: by how much the items are enlarged, where that has a meaning.
        own_size: the trial at about the items' own size, if they are enlarged.
        items: how many.
    """

    layers: tuple[str, ...]
    given: Trial
    trials: tuple[Trial, ...]
    correction: Trial | None
    enlarged: Enlargement | None
    own_size: Trial | None
    items: int


def input_range(inputs: Arguments) -> InputRange | None:
    """Measure the first argument of the network; None where it holds no real numbers."""
    first = next(inputs.tensors())
    if not first.is_floating_point():
        return None
    values = doubled(first)
    return InputRange(
        mean=float(values.mean()),
        deviation=float(values.std(correction=0)),
        low=float(values.min()),
        high=float(values.max()),
        items=len(inputs),
    )


def check_inputs(
    backbone: Backbone, norms: Sequence[str], data: StudyData, batch_size: int
) -> InputCheck:
    """Try the usual preprocessings, and see how well the early layers know their results.

    Args:
        backbone: the network with the preprocessing in question.
        norms: its layers with running statistics, in the order of the network; not empty.
        data: its sample is used.
        batch_size: items in a pass.
    """
    early = tuple(norms[:EARLY])
    base = backbone.at(early[-1], "none")

    def trial(variant: Variant) -> Trial:
        batches = data.look(variant.inputs, backbone.device).split(batch_size)
        found = drift_up_to(base, early, batches)
        first = found[0].symmetric_kl
        return Trial(variant.name, variant.inputs, first, early_drift(found), variant.mends)

    as_given = trial(Variant("as given", backbone.inputs, ""))
    trials = tuple(trial(variant) for variant in backbone.inputs.variants())
    few = np.linspace(0, len(data.sample) - 1, num=min(16, len(data.sample)), dtype=np.int64)
    size = backbone.inputs.enlargement([data.sample.content(int(i)) for i in few])
    return InputCheck(
        layers=early,
        given=as_given,
        trials=trials,
        correction=choose_correction(as_given, trials),
        enlarged=size,
        own_size=None if size is None or size.nearer is None else trial(size.nearer),
        items=len(data.sample),
    )


def choose_correction(given: Trial, trials: Sequence[Trial]) -> Trial | None:
    """Return the smallest change that agrees about as well as the best, if that is clearly better.

    Trials are ordered from small changes to large ones.
    """
    at = clear_improvement(given.early, [trial.early for trial in trials])
    return None if at is None else trials[at]


def drift_up_to(
    backbone: Backbone, layers: Sequence[str], batches: Sequence[Arguments]
) -> tuple[LayerDrift, ...]:
    """Measure the drift of some layers, running no further than the backbone's cut."""

    def forward(_module: torch.nn.Module, batch: Arguments) -> None:
        run_batch([backbone], batch, "no_grad", Extraction())

    return drift(backbone.module, batches, layers=list(layers), forward=forward)


__all__ = [
    "FACTOR",
    "InputCheck",
    "InputRange",
    "Trial",
    "check_inputs",
    "choose_correction",
    "drift_up_to",
    "input_range",
]
