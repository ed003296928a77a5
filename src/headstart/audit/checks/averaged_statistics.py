"""An averaged network (EMA, SWA) is evaluated with batch-norm statistics that do not fit it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from headstart.audit.check import Check
from headstart.audit.events import Call, Network, Part, Pass
from headstart.audit.records import Finding
from headstart.core.wording import count

if TYPE_CHECKING:
    from headstart.audit.scene import Scene


class AveragedStatistics(Check):
    """Averaging moves parameters; running statistics have to be computed for the result."""

    code = "averaged-statistics"
    severity = "error"
    cost = "the averaged network normalises by statistics of another network: often chance accuracy"

    def __init__(self) -> None:
        self.found: dict[int, tuple[Pass, list[str], bool]] = {}

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
            self.found[network.number] = (seen, reset, True)
            return
        if network.stepped:
            return
        twin = twin_of(module, network, scene)
        if twin is not None and self._kept_first_statistics(calls, twin, module, scene):
            self.found[network.number] = (seen, [call.part.name for call in calls], False)

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
        for seen, names, reset in self.found.values():
            state = (
                "are reset: mean 0 and variance 1"
                if reset
                else "are those that the trained network began with, though its parameters are not"
            )
            yield self.finding(
                f"the running statistics of {count(len(names), 'batch norm')} of"
                f" {seen.network.kind} {state}, and it was evaluated with them",
                place=seen.place,
                module=seen.network.kind,
                confidence=0.9,
                evidence={"layers": names, "reset": reset},
                fix="torch.optim.swa_utils.update_bn(train_loader, averaged_model)",
            )


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


def _mean(part: Part) -> Tensor | None:
    module = part.ref()
    return None if module is None else module._buffers.get("running_mean")


__all__ = ["AveragedStatistics", "is_reset", "twin_of"]
