"""What optimizers hold, and what they do not hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor

from headstart.audit.check import Check
from headstart.audit.events import Network, OptimizerFacts, Step
from headstart.audit.records import Finding, Place
from headstart.audit.scene import ParameterFacts, common_path
from headstart.core.wording import count
from headstart.core.wording import format_number as number

if TYPE_CHECKING:
    from headstart.audit.scene import Scene


_FEW = 2
"""Frozen parameters that networks have by design, such as fixed position embeddings."""


def looks(step: int) -> bool:
    """Whether to look closely at a step: the first 32, and then every 64th, for late unfreezing."""
    return step <= 32 or step % 64 == 0


class OptimizerHoldsFrozen(Check):
    """Frozen parameters in an optimizer do nothing, as long as they have no gradient."""

    code = "optimizer-holds-frozen"
    cost = "nothing at first; once a gradient of zero is left behind, weight decay moves them"

    def __init__(self) -> None:
        self.held: dict[int, tuple[OptimizerFacts, list[ParameterFacts], int]] = {}

    def before_step(self, seen: Step, scene: Scene) -> None:
        """Count what is frozen in the optimizer."""
        if not looks(seen.facts.steps + 1):
            return
        parameters = [p for g in seen.optimizer.param_groups for p in g["params"]]
        known = [scene.facts_of(p) for p in parameters if not p.requires_grad]
        frozen = [facts for facts in known if facts is not None]
        if frozen:
            self.held[seen.facts.number] = (seen.facts, frozen, len(parameters))

    def finish(self, scene: Scene) -> Iterator[Finding]:
        """Yield one finding for each optimizer."""
        for facts, held, total in self.held.values():
            frozen = [f for f in held if not f.trainable and not f.steps and not f.flips]
            if not frozen:
                continue
            names = [f.name for f in frozen]
            few = len(names) <= _FEW
            yield self.finding(
                f"{facts.kind} holds {count(len(names), 'parameter')} of {total} that"
                " never required a gradient while it stepped",
                place=facts.place,
                module=common_path([name.rpartition(".")[0] for name in names]),
                severity="info" if few else None,
                confidence=0.5,
                evidence={"parameters": names[:50], "frozen": len(names), "held": total},
                fix="optimizer = Adam([p for p in model.parameters() if p.requires_grad], lr=lr)",
            )


class OptimizerMissesTrainable(Check):
    """Parameters get gradients at every step, and no optimizer moves them."""

    code = "optimizer-misses-trainable"
    severity = "error"
    cost = "they stay as they are: a new layer stays random, an unfrozen one stays frozen"

    def __init__(self) -> None:
        self.graded: dict[ParameterFacts, int] = {}
        self.places: dict[int, Place] = {}

    def before_step(self, seen: Step, scene: Scene) -> None:
        """Count parameters with a gradient that this optimizer does not hold."""
        if not looks(seen.number):
            return
        count_graded(self.graded, scene)
        for facts in self.graded:
            self.places.setdefault(facts.networks[-1].number, seen.place)

    def finish(self, scene: Scene) -> Iterator[Finding]:
        """Yield one finding for each network of which a part that is not the first is missed."""
        for network, missed in missed_by_network(self.graded, scene).items():
            if is_prefix(scene.networks[network], missed, scene):
                continue
            names = [facts.name for facts in missed]
            own = scene.networks[network]
            made = [o for o in scene.optimizers if o.number in scene.steppers.get(network, set())]
            unfrozen = any(facts.flips for facts in missed)
            yield self.finding(
                f"{count(len(names), 'trainable parameter')} of {own.kind}, such as {names[0]},"
                f" got gradients, and no optimizer holds"
                f" {'it' if len(names) == 1 else 'them'}"
                + ("; they were unfrozen after it was made" if unfrozen else ""),
                place=self.places.get(network, own.place),
                module=common_path([name.rpartition(".")[0] for name in names]) or own.kind,
                confidence=0.9,
                evidence={
                    "parameters": names[:50],
                    "count": len(names),
                    "optimizer_made_at": [str(o.place) for o in made],
                    "unfrozen_later": unfrozen,
                },
                fix='optimizer.add_param_group({"params": new_parameters})',
            )


def count_graded(graded: dict[ParameterFacts, int], scene: Scene) -> None:
    """Count, for each parameter with a gradient that no optimizer holds, the steps seen so."""
    listed = {
        id(p)
        for facts in scene.optimizers
        if (optimizer := facts.ref()) is not None
        for group in optimizer.param_groups
        for p in group["params"]
    }
    for parameter, facts in scene.parameters.items():
        if not parameter.requires_grad or parameter.grad is None:
            continue
        if facts.held or id(parameter) in listed:
            graded.pop(facts, None)
        else:
            graded[facts] = graded.get(facts, 0) + 1


def missed_by_network(
    graded: dict[ParameterFacts, int], scene: Scene
) -> dict[int, list[ParameterFacts]]:
    """Return the parameters that got gradients twice and are held by no optimizer, by network."""
    found: dict[int, list[ParameterFacts]] = {}
    for facts, times in graded.items():
        if not facts.held and times >= min(2, scene.steps):
            found.setdefault(facts.networks[-1].number, []).append(facts)
    return found


def is_prefix(network: Network, missed: list[ParameterFacts], scene: Scene) -> bool:
    """Whether all that is missed runs before all that an optimizer moves: frozen, but not said so.

    A network of which nothing is moved, and whose output others take, is such a prefix.
    """
    if not network.stepped:
        return True
    seen = next((p for p in scene.trained_passes(network)), None)
    if seen is None:
        return False
    order = {call.part.name: i for i, call in reversed(list(enumerate(seen.calls)))}
    last = max(order.get(facts.name.rpartition(".")[0], -1) for facts in missed)
    first = min(order.get(name.rpartition(".")[0], len(order)) for name in network.stepped)
    return last < first and not any(facts.flips for facts in missed)


class OptimizerHoldsStale(Check):
    """The optimizer holds parameters that no network has any more."""

    code = "optimizer-holds-stale"
    severity = "error"
    cost = "the layers that took their place are not trained"

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
            not facts.held and parameter.requires_grad and parameter.grad is not None
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


@dataclass
class _Group:
    facts: OptimizerFacts
    index: int
    checks: int = 0
    moved: bool = False
    rates: list[float] = field(default_factory=list)
    frozen: int = 0
    without: int = 0
    size: int = 0
    names: list[str] = field(default_factory=list)


class GroupWithoutEffect(Check):
    """A parameter group has a learning rate, and no step changes one bit of it."""

    code = "group-without-effect"
    cost = "the learning rate of the group does nothing"

    def __init__(self) -> None:
        self.groups: dict[tuple[int, int], _Group] = {}
        self.before: dict[int, list[tuple[Tensor, int, float] | None]] = {}

    def before_step(self, seen: Step, scene: Scene) -> None:
        """Take the value with the largest gradient in each group."""
        if not looks(seen.facts.steps + 1):
            return
        self.before[seen.facts.number] = [
            self._probe(seen, scene, index) for index in range(len(seen.optimizer.param_groups))
        ]

    def _probe(self, seen: Step, scene: Scene, index: int) -> tuple[Tensor, int, float] | None:
        group = seen.optimizer.param_groups[index]
        key = (seen.facts.number, index)
        found = self.groups.setdefault(key, _Group(seen.facts, index))
        parameters = group["params"]
        live = [p for p in parameters if p.requires_grad and p.grad is not None]
        found.checks += 1
        found.size = len(parameters)
        found.frozen = sum(not p.requires_grad for p in parameters)
        found.without = len(parameters) - len(live) - found.frozen
        found.rates.append(float(group["lr"]))
        known = [scene.facts_of(p) for p in parameters]
        found.names = [f.name for f in known if f is not None]
        found.moved |= any(f is None or f.flips > 0 for f in known)
        dense = [p for p in live if not p.grad.is_sparse]
        if len(dense) < len(live):
            found.moved = True
        if not dense:
            return None
        largest = max(dense, key=lambda p: float(p.grad.detach().abs().max()))
        at = int(largest.grad.detach().abs().reshape(-1).argmax())
        return largest, at, float(largest.detach().reshape(-1)[at])

    def after_step(self, seen: Step, scene: Scene) -> None:
        """See whether that value has moved."""
        for index, probe in enumerate(self.before.pop(seen.facts.number, [])):
            if probe is not None:
                parameter, at, value = probe
                moved = float(parameter.detach().reshape(-1)[at]) != value
                self.groups[seen.facts.number, index].moved |= moved

    def finish(self, scene: Scene) -> Iterator[Finding]:
        """Yield one finding for each group that never moved."""
        for group in self.groups.values():
            if group.moved or group.checks < 3 or group.facts.steps < 4 or not group.size:
                continue
            alone = not any(
                number == group.facts.number and index != group.index
                for number, index in self.groups
            )
            rate = max(group.rates)
            if group.frozen == group.size:
                why = "all of its parameters are frozen"
            elif not rate:
                why = "it is 0"
            elif group.without + group.frozen == group.size:
                why = "its parameters get no gradients"
            else:
                why = "its steps are below the rounding of the parameters"
            scheduled = any(s.optimizer is group.facts for s in scene.schedulers)
            early = scheduled and not rate and group.facts.steps < 64
            yield self.finding(
                f"parameter group {group.index} of {group.facts.kind}"
                f" ({count(group.size, 'parameter')}, learning rate {number(rate)}) was not moved"
                f" in {count(group.facts.steps, 'step')}: {why}",
                place=group.facts.place,
                module=common_path([name.rpartition(".")[0] for name in group.names]),
                severity="info" if early or (alone and group.frozen == group.size) else None,
                confidence=0.9,
                evidence={
                    "group": group.index,
                    "learning_rate": rate,
                    "frozen": group.frozen,
                    "without_gradient": group.without,
                    "parameters": group.size,
                },
                fix="unfreeze the parameters of the group, or leave it out of the optimizer",
            )


__all__ = [
    "GroupWithoutEffect",
    "OptimizerHoldsFrozen",
    "OptimizerHoldsStale",
    "OptimizerMissesTrainable",
    "count_graded",
    "is_prefix",
    "looks",
    "missed_by_network",
]
