"""What is measured of one network: how its rows change, how long it takes, what moves in it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headstart.backbones import Backbone
from headstart.core.arguments import Arguments
from headstart.core.devices import doubled
from headstart.extraction import TOLERANCE, Extraction
from headstart.modules.comparing import largest_change
from headstart.modules.kinds import is_running_norm, randomness
from headstart.study import network
from headstart.study.configurations import Autograd
from headstart.study.functions import Cut, Facts, Function

REPEATS = 6
"""Timed passes: the true median lies between the fastest and the slowest with 1 - 2⁻⁵ = 97 %."""


FloatRows = NDArray[np.float32]


@dataclass(frozen=True)
class Changes:
    """How rows change where nothing about their items does.

    Attributes:
        in_another_batch: the largest change of a feature when the same items are in another
            batch, relative to the largest feature; randomness switched off.
        typical: the median over items of the change of their row, relative to its length.
        on_second_pass: the largest change between two passes over the same batch, randomness as
            configured, relative to the largest feature.
    """

    in_another_batch: float
    typical: float
    on_second_pass: float


@dataclass(frozen=True)
class Spread:
    """How the rows of the training items are spread.

    Attributes:
        width: features.
        scale: root of the mean variance of a feature.
        constant: features that do not vary.
        dimension: effective dimension ``tr(S)^2 / tr(S^2)`` of their covariance S (the
            participation ratio): as many directions of equal variance would spread alike.
    """

    width: int
    scale: float
    constant: int
    dimension: float


def find_facts(backbone: Backbone, inputs: Arguments) -> Facts:
    """Look for running statistics and for randomness up to the cut.

    Args:
        backbone: cut at the deepest of all cuts.
        inputs: a batch, run twice in training mode (by running statistics) under
            different seeds.
    """
    modules = dict(backbone.module.named_modules())
    parts = [(name, modules[name]) for name in backbone.live.modules]
    kinds = [(name, randomness(part)) for name, part in parts]
    function = Function("running", None, True, False, backbone.inputs, None)
    ready = network.prepared(backbone, function)
    rows = []
    for seed in (0, 1):
        with network.seeded(seed, ready.device):
            rows.append(network.run_batch([ready], inputs, "inference", Extraction())[0])
    return Facts(
        norms=tuple(name for name, part in parts if is_running_norm(part)),
        chance=tuple((name, kind) for name, kind in kinds if kind is not None),
        random=largest_change(*rows) > TOLERANCE["float32"] * 1e-2,
    )


def changes(
    ready: Backbone, cut: Cut, function: Function, inputs: Arguments, settings: Extraction
) -> Changes:
    """Measure how rows change with their batch and from pass to pass.

    Args:
        ready: a copy in the modes of the function.
        cut: where.
        function: what.
        inputs: two batches of different items, one behind the other.
        settings: for the precision.
    """
    cuts = network.at_cuts(ready, [cut])
    half = len(inputs) // 2
    keep = max(1, half // 2)
    here = inputs[:half]
    kept_and_new = torch.cat([torch.arange(keep), torch.arange(half, 2 * half - keep)])
    elsewhere = inputs[kept_and_new.to(ready.device)]

    def run(seed: int, batch: Arguments, source: Sequence[Backbone] = cuts) -> Tensor:
        with network.seeded(seed, ready.device):
            return network.run_batch(source, batch, "inference", settings)[0]

    first, again = run(0, here), run(1, here)
    if function.dropout:
        calm = network.prepared(ready, function.but(dropout=False))
        quiet = network.at_cuts(calm, [cut])
        one, other = run(0, here, quiet)[:keep], run(0, elsewhere, quiet)[:keep]
    else:
        one, other = first[:keep], run(0, elsewhere)[:keep]
    lengths = one.flatten(1).norm(dim=1).clamp_min(1e-12)
    typical = ((one - other).flatten(1).norm(dim=1) / lengths).median()
    return Changes(largest_change(one, other), float(typical), largest_change(first, again))


class PassTime(NamedTuple):
    """Seconds per item of a forward pass: the median of several, the fastest, the slowest."""

    median: float
    fastest: float
    slowest: float

    def times(self, passes: int) -> PassTime:
        """Return the time of several passes."""
        return PassTime(*(each * passes for each in self))


def seconds_per_item(
    cuts: Sequence[Backbone], inputs: Arguments, autograd: Autograd, settings: Extraction
) -> PassTime:
    """Return the time of a forward pass per item, without decoding.

    The first of seven passes warms up and is not counted.

    Returns:
        The median, the fastest and the slowest pass.
    """
    times = []
    with network.seeded(0, inputs.device):
        for _ in range(REPEATS + 1):
            begun = time.perf_counter()
            outputs = network.run_batch(cuts, inputs, autograd, settings)
            float(outputs[0].sum())  # waits for a device that runs ahead
            times.append(time.perf_counter() - begun)
    times = sorted(each / len(inputs) for each in times[1:])
    return PassTime(statistics.median(times), times[0], times[-1])


def equality(
    ready: Backbone,
    cuts: Sequence[Cut],
    modes: Sequence[Autograd],
    batches: Sequence[Arguments],
    settings: Extraction,
) -> tuple[bool, float]:
    """Run the same batches under several autograd modes, with equal seeds, and compare bits.

    Args:
        ready: a copy in the modes of the function.
        cuts: all of them are compared.
        modes: two or more.
        batches: what the network is called with.
        settings: for the precision.

    Returns:
        Whether all rows are equal bit for bit, and the largest difference, relative to the largest
        feature.
    """
    at = network.at_cuts(ready, cuts)
    found: list[list[Tensor]] = []
    for mode in modes:
        with network.seeded(0, ready.device):
            found.append(
                [row for batch in batches for row in network.run_batch(at, batch, mode, settings)]
            )
    pairs = [pair for other in found[1:] for pair in zip(found[0], other, strict=True)]
    return all(torch.equal(a, b) for a, b in pairs), max(largest_change(a, b) for a, b in pairs)


def moved_statistics(
    backbone: Backbone, norms: Sequence[str], batches: Sequence[Arguments]
) -> dict[str, float]:
    """Run a copy in plain training mode, and return how far each running mean moved.

    The unit is the layer's own running standard deviation; the mean over channels.
    """
    ready = network.copied(backbone)
    ready.module.train()

    def buffer(name: str, kind: str) -> Tensor:
        return doubled(ready.module.get_submodule(name).get_buffer(kind)).cpu().clone()

    means = {name: buffer(name, "running_mean") for name in norms}
    variances = {name: buffer(name, "running_var") for name in norms}
    with network.seeded(0, ready.device):
        for batch in batches:
            network.run_batch([ready], batch, "no_grad", Extraction())
    shifts = {name: (buffer(name, "running_mean") - means[name]).abs() for name in norms}
    return {n: float((shifts[n] / (variances[n] + 1e-12).sqrt()).mean()) for n in norms}


def spread_of(rows: FloatRows) -> Spread:
    """Measure how rows are spread; ``(n, d) float32``."""
    centred = rows.astype(np.float64)
    centred -= centred.mean(axis=0)
    deviation = np.sqrt((centred**2).mean(axis=0))
    n, d = centred.shape
    # tr(S^2) is the same for the smaller of the two Gram matrices.
    gram = centred.T @ centred if d <= n else centred @ centred.T
    total, squared = float(np.trace(gram)), float((gram**2).sum())
    return Spread(
        width=d,
        scale=float(np.sqrt((deviation**2).mean())),
        constant=int((deviation <= 1e-6 * max(float(np.abs(rows).max()), 1e-12)).sum()),
        dimension=total**2 / squared if squared > 0 else 0.0,
    )


__all__ = [
    "REPEATS",
    "Changes",
    "FloatRows",
    "PassTime",
    "Spread",
    "changes",
    "equality",
    "find_facts",
    "moved_statistics",
    "seconds_per_item",
    "spread_of",
]
