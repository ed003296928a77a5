"""How far data are from the running statistics of a network, layer by layer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from headstart.freezing import passes
from headstart.freezing.moments import Moments
from headstart.freezing.norm import running_norms, statistics_of
from headstart.modules.keras_contract import as_module
from headstart.modules.modes import evaluation_mode


@dataclass(frozen=True)
class LayerDrift:
    """How far the target's statistics are from a layer's running statistics.

    Attributes:
        name: the layer.
        channels: its number of channels.
        symmetric_kl: the mean over channels of ``KL(p‖q) + KL(q‖p)`` (Jeffreys) between the
            Gaussians of the running and the target's statistics, in nats. 0 if they agree.
        mean_shift: the mean over channels of ``|target mean - running mean|`` in units of the
            running standard deviation.
        variance_ratio: the geometric mean over channels of target over running variance.
        worst: the channels with the largest symmetric KL, and its value, the largest first.
    """

    name: str
    channels: int
    symmetric_kl: float
    mean_shift: float
    variance_ratio: float
    worst: tuple[tuple[int, float], ...]

    def __str__(self) -> str:
        worst = ", ".join(f"{channel} ({value:.2g})" for channel, value in self.worst[:3])
        return (
            f"{self.name}: symmetric KL {self.symmetric_kl:.3g} nats, mean shift"
            f" {self.mean_shift:.2g} SD, variance × {self.variance_ratio:.2g}; channels {worst}"
        )


def drift(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    layers: Sequence[str] = ("*",),
    forward: passes.Forward = passes.default_forward,
    worst: int = 5,
) -> tuple[LayerDrift, ...]:
    """Measure in one pass, layer by layer, how far the data are from the running statistics.

    Every layer's input is measured as in evaluation mode, with running statistics upstream, so a
    shift that an early layer does not remove shows in the later ones too. The model does not
    change.

    Args:
        model: the model.
        batches: as for :func:`reestimate`.
        layers: names, globs or parts to measure; all by default.
        forward: how to run a batch.
        worst: how many channels to name per layer.

    Returns:
        One record per layer, in the order of the forward.

    Raises:
        FreezeError: no layer has running statistics, or no batch reached one.
    """
    model = as_module(model)
    chosen, _ = running_norms(model, layers)
    with torch.no_grad(), evaluation_mode(model):
        found = passes.observe(model, chosen, batches, forward)
    return tuple(_drift(name, chosen[name], moments, worst) for name, moments in found.items())


def _drift(name: str, layer: nn.Module, moments: Moments, worst: int) -> LayerDrift:
    mean, var = statistics_of(layer)
    return drift_between(
        name, mean, var, moments, eps=float(getattr(layer, "eps", 1e-5)), worst=worst
    )


def drift_between(
    name: str, mean: Tensor, var: Tensor, moments: Moments, *, eps: float = 1e-5, worst: int = 5
) -> LayerDrift:
    """Compare statistics, such as a layer's running statistics, with what was measured.

    Args:
        name: of the layer.
        mean, var: ``(c,)``, the statistics that count as right.
        moments: of the layer's input.
        eps: what the layer adds to a variance before it divides.
        worst: how many channels to name.
    """
    mean, var = mean.to("cpu", torch.float64), var.to("cpu", torch.float64)
    # The layer itself adds eps before dividing, which keeps dead channels finite here too.
    running, target = var + eps, moments.variance + eps
    squared = (moments.mean - mean).square()
    # KL(p‖q) + KL(q‖p) of two Gaussians; the logarithms cancel.
    kl = 0.5 * (running / target + target / running - 2 + squared * (1 / running + 1 / target))
    top = torch.topk(kl, min(worst, kl.numel()))
    pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True)
    return LayerDrift(
        name=name,
        channels=kl.numel(),
        symmetric_kl=float(kl.mean()),
        mean_shift=float((squared / running).sqrt().mean()),
        variance_ratio=float((target / running).log().mean().exp()),
        worst=tuple((int(channel), float(value)) for channel, value in pairs),
    )


__all__ = ["LayerDrift", "drift", "drift_between"]
