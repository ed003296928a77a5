"""A trained network is evaluated in training mode."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from headstart.audit.check import Check
from headstart.audit.events import Call, Pass
from headstart.audit.facts import Network
from headstart.audit.records import Finding
from headstart.core.wording import count, listed

if TYPE_CHECKING:
    from headstart.audit.scene import Scene


class EvaluationInTrainingMode(Check):
    """Dropout is on and batch norm uses batch statistics while a trained network is evaluated."""

    code = "evaluation-in-training-mode"
    severity = "error"
    cost = (
        "the measured accuracy is not that of the network: it depends on the batch and on chance,"
        " and evaluation moves the running statistics"
    )

    def finish(self, scene: Scene) -> Iterator[Finding]:
        """Yield one finding for each network."""
        for passes in _by_network(scene):
            network = passes[0].network
            meant = is_meant(passes, scene)
            first = next((p for p in passes if not p.grad), passes[0])
            live = [c.part for c in first.calls if c.training]
            norms = [part.name for part in live if part.normalises]
            chance = [f"{part.name} ({part.random})" for part in live if part.random]
            what = [
                *([f"{count(len(norms), 'batch norm')} used the batch"] if norms else []),
                *([f"{listed(chance, 3)} drew random numbers"] if chance else []),
            ]
            mode = next((part.mode for part in live if part.mode is not None), None)
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
                    "mode_set_at": "never" if mode is None else str(mode.place),
                },
                fix="model.eval()  # before the evaluation; model.train() after it",
            )


def evaluations_in_training_mode(scene: Scene) -> Iterator[tuple[Pass, list[Call]]]:
    """Yield, for each network evaluated in training mode by mistake, a pass and its live calls."""
    for passes in _by_network(scene):
        if not is_meant(passes, scene):
            first = next((p for p in passes if not p.grad), passes[0])
            yield first, [call for call in first.calls if call.training]


def _by_network(scene: Scene) -> list[list[Pass]]:
    found: dict[int, list[Pass]] = {}
    for seen in scene.passes_for("evaluation"):
        if is_concerned(seen, scene):
            found.setdefault(seen.network.number, []).append(seen)
    return list(found.values())


def is_meant(passes: list[Pass], scene: Scene) -> bool:
    """Whether passes in training mode are no mistake: those of a GAN, or for pseudo-labels."""
    return is_adversarial(passes[0].network, scene) or _in_turns(passes, scene)


def is_concerned(seen: Pass, scene: Scene) -> bool:
    """Whether a pass of a trained network in training mode is an evaluation."""
    if not seen.training or not seen.step or scene.restates(seen):
        return False
    if not any(c.training and (c.part.normalises or c.part.random) for c in seen.calls):
        return False
    return not scene.was_cut_off(seen) and not scene.feeds_training(seen)


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


__all__ = [
    "EvaluationInTrainingMode",
    "evaluations_in_training_mode",
    "is_adversarial",
    "is_concerned",
    "is_meant",
]
