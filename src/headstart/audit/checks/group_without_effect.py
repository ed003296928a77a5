"""A parameter group has a learning rate, but no step changes any of its parameters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor

from headstart.audit.check import Check
from headstart.audit.events import Step
from headstart.audit.facts import OptimizerFacts
from headstart.audit.held import looks
from headstart.audit.parameters import common_path
from headstart.audit.records import Finding
from headstart.core.wording import count
from headstart.core.wording import format_number as number

if TYPE_CHECKING:
    from headstart.audit.scene import Scene


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
    """A parameter group has a learning rate, but no step changes any of its parameters."""

    code = "group-without-effect"
    cost = "the learning rate of the group has no effect"

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
                f"Parameter group {group.index} of {group.facts.kind}"
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


__all__ = ["GroupWithoutEffect"]
