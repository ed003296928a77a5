"""A trained network is evaluated while it is in training mode."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from headstart.audit.check import Check
from headstart.audit.events import Network, Pass
from headstart.audit.records import Finding
from headstart.core.wording import count, listed

if TYPE_CHECKING:
    from headstart.audit.scene import Scene


class EvaluationInTrainingMode(Check):
    """Dropout is on and batch norms use the batch while a trained network is evaluated."""

    code = "evaluation-in-training-mode"
    severity = "error"
    cost = (
        "the measured accuracy is not that of the network: it depends on the batch and on chance,"
        " and evaluation moves the running statistics"
    )

    def finish(self, scene: Scene) -> Iterator[Finding]:
        """Yield one finding for each network."""
        found: dict[int, list[Pass]] = {}
        for seen in scene.passes_for("evaluation"):
            if self._concerned(seen, scene):
                found.setdefault(seen.network.number, []).append(seen)
        for passes in found.values():
            network = passes[0].network
            meant = is_adversarial(network, scene) or _in_turns(passes, scene)
            first = next((p for p in passes if not p.grad), passes[0])
            live = [c.part for c in first.calls if c.training]
            norms = [part.name for part in live if part.normalises]
            chance = [f"{part.name} ({part.random})" for part in live if part.random]
            what = [
                *([f"{count(len(norms), 'batch norm')} used the batch"] if norms else []),
                *([f"{listed(chance, 3)} drew random numbers"] if chance else []),
            ]
            yield self.finding(
                f"{network.kind} was evaluated in training mode in"
                f" {count(len(passes), 'observed pass', 'observed passes')}: {' and '.join(what)}",
                place=first.place,
                module=network.kind,
                severity="info" if meant else None,
                confidence=0.3 if meant else 0.95 if not first.grad else 0.7,
                evidence={
                    "passes": len(passes),
                    "batch_norms": norms,
                    "random": chance,
                    "no_grad": not first.grad,
                    "mode_set_at": _mode_set(first, scene),
                },
                fix="model.eval()  # before the evaluation; model.train() after it",
            )

    def _concerned(self, seen: Pass, scene: Scene) -> bool:
        if not seen.training or not seen.step or scene.restates(seen):
            return False
        if not any(c.training and (c.part.normalises or c.part.random) for c in seen.calls):
            return False
        if seen.grad and seen.number > scene.passes_at_backward:  # its backward was still to come
            return False
        return not scene.feeds_training(seen)


def is_adversarial(network: Network, scene: Scene) -> bool:
    """Whether a network is trained only through another one that has an optimizer of its own."""
    trained = [p for p in scene.passes if p.network is network and p.trained]
    owners = scene.steppers.get(network.number, set())
    through = [
        each.network
        for p in trained
        for each in p.consumers
        if each.network is not network and each.trained
    ]
    return bool(through) and all(
        scene.steppers.get(other.number, set()) - owners for other in through
    )


def _in_turns(passes: list[Pass], scene: Scene) -> bool:
    """Whether such passes alternate with steps, as those that make pseudo-labels do."""
    steps = {seen.step for seen in passes}
    return len(steps) >= 4 and len(passes) <= 2 * len(steps) and len(steps) >= scene.steps / 2


def _mode_set(seen: Pass, scene: Scene) -> str:
    module = seen.network.module
    call = None if module is None else scene.mode_call(module)
    return "never" if call is None else str(call.place)


__all__ = ["EvaluationInTrainingMode", "is_adversarial"]
