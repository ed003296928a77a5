"""The optimizer holds parameters that no longer belong to any network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from torch import Tensor

from headstart.audit.check import Check
from headstart.audit.events import Step
from headstart.audit.facts import OptimizerFacts
from headstart.audit.held import has_gradient, looks
from headstart.audit.records import Finding
from headstart.core.wording import count

if TYPE_CHECKING:
    from headstart.audit.scene import Scene


class OptimizerHoldsStale(Check):
    """The optimizer holds parameters that no longer belong to any network."""

    code = "optimizer-holds-stale"
    severity = "error"
    cost = "the layers that replaced them are not trained"

    def __init__(self) -> None:
        self.stale: dict[int, tuple[OptimizerFacts, list[list[int]], int, int]] = {}

    def before_step(self, seen: Step, scene: Scene) -> None:
        """Count parameters without a gradient that are in no network that ran."""
        steps = seen.facts.steps + 1
        if not looks(steps) or steps < 2:
            return
        parameters = [p for g in seen.optimizer.param_groups for p in g["params"]]
        stale = [
            list(p.shape)
            for p in parameters
            if p.grad is None and p.requires_grad and not _in_a_network(p, scene)
        ]
        lost = sum(
            not facts.held and has_gradient(parameter)
            for parameter, facts in scene.parameters.items()
        )
        self.stale[seen.facts.number] = (seen.facts, stale, len(parameters), lost)

    def finish(self, scene: Scene) -> Iterator[Finding]:
        """Yield one finding for each optimizer."""
        for facts, shapes, total, lost in self.stale.values():
            if not shapes:
                continue
            yield self.finding(
                f"{facts.kind} holds {count(len(shapes), 'parameter')} of {total} that belong to no"
                f" network that runs; {count(lost, 'trainable parameter')} of the networks that do"
                " run are in no optimizer",
                place=facts.place,
                severity=None if lost else "warning",
                confidence=0.9 if lost else 0.6,
                evidence={"shapes": shapes[:20], "stale": len(shapes), "not_held": lost},
                fix="make the optimizer after the last change of the network",
            )


def _in_a_network(parameter: Tensor, scene: Scene) -> bool:
    facts = scene.facts_of(parameter)
    if facts is None:
        return False
    for network in facts.networks:
        module = network.module
        if module is not None and any(p is parameter for p in module.parameters()):
            return True
    return False


__all__ = ["OptimizerHoldsStale"]
