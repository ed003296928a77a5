"""An averaged network (EMA, SWA) is evaluated with batch-norm statistics that do not fit it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from headstart.audit.check import Check
from headstart.audit.events import Call, Pass
from headstart.audit.facts import Network, Part
from headstart.audit.measuring import trial
from headstart.audit.records import Finding
from headstart.core.wording import count
from headstart.core.wording import format_number as number
from headstart.freezing import drift

if TYPE_CHECKING:
    from headstart.audit.scene import Scene


_WORSE = 1.7
"""How much larger the drift has to be. Copies of statistics in a slowly moving average, a usual
habit, change it by 1.05 to 1.34 (five seeds); those in an average of whole epochs by 2.2 to 8."""
_FLOOR = 0.1


class AveragedStatistics(Check):
    """Averaging changes the parameters; running statistics must be recomputed for the result."""

    code = "averaged-statistics"
    severity = "error"
    cost = (
        "the averaged network normalises with the statistics of another network: often chance"
        " accuracy"
    )

    def __init__(self) -> None:
        self.found: dict[int, tuple[Pass, list[str], str, dict[str, float]]] = {}

    def on_pass(self, seen: Pass, scene: Scene) -> None:
        """Look at the statistics of a network that is evaluated."""
        network, module = seen.network, seen.network.module
        if seen.training or network.number in self.found or module is None or seen.failed:
            return
        if not scene.steps:
            return
        calls = [c for c in seen.calls if c.part.running and not c.training]
        if not calls:
            return
        reset = [call.part.name for call in calls if is_reset(call.part)]
        if len(reset) == len(calls) and self._is_trained(seen, module, scene):
            self.found[network.number] = (seen, reset, "are reset: mean 0 and variance 1", {})
            return
        if network.stepped:
            return
        twin = twin_of(module, network, scene)
        if twin is None:
            return
        names = [call.part.name for call in calls]
        if self._kept_first_statistics(calls, twin, module, scene):
            text = "are those that the trained network began with, though its parameters are not"
            self.found[network.number] = (seen, names, text, {})
            return
        drifts = _drifts(seen, module, twin)
        if drifts is not None and drifts[0] > max(_WORSE * drifts[1], _FLOOR):
            text = (
                "are copies of those of the trained network, and fit the averaged one worse: on"
                f" this batch the mean drift is {number(drifts[0])} nats against"
                f" {number(drifts[1])}"
            )
            figures = {"drift": drifts[0], "drift_of_trained": drifts[1]}
            self.found[network.number] = (seen, names, text, figures)

    def _is_trained(self, seen: Pass, module: nn.Module, scene: Scene) -> bool:
        """Whether a network whose statistics are reset was trained by batch statistics."""
        if seen.network.stepped:
            return any(
                call.part.running and call.training
                for each in scene.trained_passes(seen.network)
                for call in each.calls
            )
        return twin_of(module, seen.network, scene) is not None

    def _kept_first_statistics(
        self, calls: list[Call], twin: Network, module: nn.Module, scene: Scene
    ) -> bool:
        """Whether statistics are those that the trained network began with, and parameters not."""
        other = twin.module
        first = scene.first_values.get(twin.number, [])
        now = [p.detach().reshape(-1)[:8].cpu() for p in module.parameters()]
        if other is None or all(torch.equal(a, b) for a, b in zip(first, now, strict=False)):
            return False
        theirs = [
            scene.parts.get(m)
            for m in other.modules()
            if scene.parts.get(m) is not None and scene.parts[m].running
        ]
        if len(theirs) < len(calls):
            return False
        moved = False
        for call, part in zip(calls, theirs, strict=False):
            mine, began, live = _mean(call.part), part.first.get("running_mean"), _mean(part)
            if mine is None or began is None or live is None or not torch.equal(mine, began):
                return False
            moved |= not torch.equal(live, began)
        return moved

    def finish(self, scene: Scene) -> Iterator[Finding]:
        """Yield one finding for each network."""
        for seen, names, state, figures in self.found.values():
            yield self.finding(
                f"The running statistics of {count(len(names), 'batch norm')} of"
                f" {seen.network.kind} {state}, and it was evaluated with them",
                place=seen.place,
                module=seen.network.kind,
                confidence=0.9,
                evidence={"layers": names, "statistics": state, **figures},
                fix="torch.optim.swa_utils.update_bn(train_loader, averaged_model)",
            )


def _drifts(seen: Pass, module: nn.Module, twin: Network) -> tuple[float, float] | None:
    """Measure how far a batch is from the statistics of both networks, where these are equal.

    Returns:
        The mean drift over layers of the averaged and of the trained network, in nats.
    """
    other = twin.module
    if other is None:
        return None
    mine, theirs = _means(module), _means(other)
    if len(mine) != len(theirs) or not all(map(torch.equal, mine, theirs)):
        return None
    pairs = zip(module.parameters(), other.parameters(), strict=True)
    if all(torch.equal(a.reshape(-1)[:8], b.reshape(-1)[:8]) for a, b in pairs):
        return None

    def forward(network: nn.Module, _batch: object) -> None:
        network(*(seen.args or ()), **(seen.kwargs or {}))

    found = []
    for each in (module, other):
        try:
            with trial(each) as stand_in:
                layers = drift(stand_in, [None], forward=forward)
        except Exception:
            return None
        found.append(sum(layer.symmetric_kl for layer in layers) / len(layers))
    return found[0], found[1]


def is_reset(part: Part) -> bool:
    """Whether running statistics are those of a layer that has seen nothing."""
    module = part.ref()
    mean = None if module is None else module._buffers.get("running_mean")
    spread = None if module is None else module._buffers.get("running_var")
    return (
        mean is not None
        and spread is not None
        and not bool(mean.any())
        and bool((spread == 1).all())
    )


def twin_of(module: nn.Module, network: Network, scene: Scene) -> Network | None:
    """Return a trained network of which this one has all shapes of parameters, in order."""
    shapes = [p.shape for p in module.parameters()]
    for other in scene.networks:
        theirs = other.module
        if other is not network and other.stepped and theirs is not None and theirs is not module:
            inside = {id(part) for part in theirs.modules()}
            if id(module) in inside or any(id(part) in inside for part in module.modules()):
                continue
            if [p.shape for p in theirs.parameters()] == shapes:
                return other
    return None


def _means(module: nn.Module) -> list[Tensor]:
    return [value for name, value in module.named_buffers() if name.endswith("running_mean")]


def _mean(part: Part) -> Tensor | None:
    module = part.ref()
    return None if module is None else module._buffers.get("running_mean")


__all__ = ["AveragedStatistics", "is_reset", "twin_of"]
