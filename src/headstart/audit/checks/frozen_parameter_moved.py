"""A parameter changes although its ``requires_grad`` is off."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.weak import WeakIdKeyDictionary

from headstart.audit.beneath import Beneath
from headstart.audit.check import Check
from headstart.audit.events import Backward, Pass, Step
from headstart.audit.parameters import ParameterFacts, common_path, sample_of
from headstart.audit.places import user_place
from headstart.audit.records import Finding, Place
from headstart.core.wording import count
from headstart.freezing.guards import parameter_cause
from headstart.modules.digests import Change, change, record

if TYPE_CHECKING:
    from headstart.audit.scene import Scene

_FEW = 16
"""Parameters with fewer values say nothing about where they move to."""


@dataclass(frozen=True)
class _Moved:
    name: str
    network: int
    kind: str
    change: Change
    cause: str
    place: Place
    step: int
    made: str
    facts: ParameterFacts


class FrozenParameterMoved(Check):
    """Weight decay, momentum, a moving average or a direct write changes a frozen parameter."""

    code = "frozen-parameter-moved"
    severity = "error"
    cost = (
        "weights that should stay as pre-trained do not, and stored features no longer match them"
    )

    def __init__(self) -> None:
        self.records: Any = WeakIdKeyDictionary()
        self.loads: Any = WeakIdKeyDictionary()
        self.samples: Any = WeakIdKeyDictionary()
        self.averaged: set[int] = set()
        self.moved: list[_Moved] = []
        self.trap: _Trap | None = None
        self.trapped = False

    def on_pass(self, seen: Pass, scene: Scene) -> None:
        """Record what is frozen, at the first passes of its network."""
        if seen.network.passes <= 2 or not scene.steps:
            self._record(scene)
        if self.trap is not None:
            scene.look_between(self.trap)

    def on_backward(self, seen: Backward, scene: Scene) -> None:
        """Go on to look who writes to what is frozen."""
        if self.trap is not None:
            scene.look_between(self.trap)

    def before_step(self, seen: Step, scene: Scene) -> None:
        """Look for what moved between steps."""
        self._release(scene)
        if _looks(seen.number):
            self._record(scene)
            self._compare(scene, seen, None)

    def after_step(self, seen: Step, scene: Scene) -> None:
        """Look for what the step moved."""
        if _looks(seen.number):
            self._compare(scene, seen, seen.optimizer)
        if not self.trapped and any(not each.made for each in self.moved):
            self.trapped = True
            self.trap = _Trap({p.data_ptr() for p in self.records})
            scene.look_between(self.trap)

    def _release(self, scene: Scene) -> None:
        """Take the trap away, and correct the line where something wrote to what is frozen."""
        if self.trap is None:
            return
        self.trap.stop()
        place, self.trap = self.trap.place, None
        if place is not None:
            self.moved = [m if m.made else replace(m, place=place) for m in self.moved]

    def _record(self, scene: Scene) -> None:
        for parameter, facts in scene.parameters.items():
            trainable = parameter.requires_grad or _unreadable(parameter)
            if trainable:
                self.records.pop(parameter, None)
            elif parameter not in self.records or self.loads.get(parameter) != _state(facts):
                self.records[parameter] = record(parameter)
                self.samples[parameter] = sample_of(parameter)
                self.loads[parameter] = _state(facts)

    def _compare(self, scene: Scene, seen: Step, optimizer: Optimizer | None) -> None:
        for parameter, before in list(self.records.items()):
            facts = scene.facts_of(parameter)
            if facts is None or parameter.requires_grad:
                continue
            if optimizer is not None and not _holds(optimizer, parameter):
                continue
            if self.loads.get(parameter) != _state(facts):
                continue
            change_ = change(facts.name, parameter, before)
            if change_ is None:
                continue
            found = self._explain(scene, seen, optimizer, parameter, facts, change_)
            if found is not None:
                self.moved.append(found)
            self.records[parameter] = record(parameter)
            self.samples[parameter] = sample_of(parameter)

    def _explain(
        self,
        scene: Scene,
        seen: Step,
        optimizer: Optimizer | None,
        parameter: Tensor,
        facts: ParameterFacts,
        change_: Change,
    ) -> _Moved | None:
        stepper = optimizer
        made = seen.facts.place
        if stepper is None and parameter.grad is not None:
            for each in scene.optimizers:
                other = each.ref()
                if other is not None and _holds(other, parameter):
                    stepper, made = other, each.place
        cause = "a direct write: no optimizer that steps it holds it"
        if stepper is not None:
            module = facts.networks[0].module
            cause = parameter_cause(parameter, stepper, module) if module is not None else ""
        else:
            if self._averages(scene, parameter, facts):
                return None
        network = facts.networks[0]
        place = user_place() if stepper is not None else seen.place
        where = str(made) if stepper is not None else ""
        return _Moved(
            facts.name,
            network.number,
            network.kind,
            change_,
            cause,
            place,
            seen.number,
            where,
            facts,
        )

    def _averages(self, scene: Scene, parameter: Tensor, facts: ParameterFacts) -> bool:
        """Whether it is part of a moving average of something that is trained."""
        if parameter.numel() >= _FEW and parameter.is_floating_point():
            if scene.source_of(parameter, self.samples[parameter]) is None:
                return False
            self.averaged.add(facts.networks[0].number)
            return True
        return facts.networks[0].number in self.averaged

    def finish(self, scene: Scene) -> Iterator[Finding]:
        """Yield one finding for each network and cause."""
        self._release(scene)
        groups: dict[tuple[int, str], list[_Moved]] = {}
        for each in self.moved:
            network = scene.networks[each.network]
            if not network.moved_directly and each.facts.flips <= 1:
                groups.setdefault((each.network, each.cause), []).append(each)
        for (_, cause), moved in groups.items():
            names = list(dict.fromkeys(each.name for each in moved))
            first = moved[0]
            yield self.finding(
                f"{count(len(names), 'frozen parameter')} moved, first at step {first.step}:"
                f" {first.change}. Cause: {cause}",
                place=first.place,
                module=common_path([name.rpartition(".")[0] for name in names]) or first.kind,
                confidence=0.95,
                evidence={
                    "parameters": names,
                    "cause": cause,
                    "network_ran_at": str(scene.networks[first.network].place),
                    "step": first.step,
                    "largest_change": first.change.largest,
                    "relative_change": first.change.relative,
                    "optimizer_made_at": first.made,
                },
                fix=_fix(first),
            )


class _Trap(Beneath):
    """Sees the user's own functions of torch, and remembers which line wrote to a tensor.

    It is set when a frozen parameter has been found to move between steps.
    """

    def __init__(self, addresses: set[int]) -> None:
        super().__init__()
        self.addresses = addresses
        self.place: Place | None = None

    def _holds(self, target: Any) -> bool:
        if isinstance(target, list | tuple):
            return any(self._holds(each) for each in target)
        strided = isinstance(target, Tensor) and target.layout == torch.strided
        return strided and target.data_ptr() in self.addresses

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the function, and look at what it writes to."""
        result = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        writes = name in ("__setitem__", "__set__") or (
            name.endswith("_") and not name.endswith("__")
        )
        writes |= name.startswith("__i") and name.endswith("__")
        target = args[0] if writes and args else (kwargs or {}).get("out")
        if self.place is None and target is not None and self._holds(target):
            self.place = user_place()
        return result


def _looks(step: int) -> bool:
    """Whether to compare contents at this step: the first ones, then at powers of two."""
    return step <= 3 or step & (step - 1) == 0


def _unreadable(parameter: Tensor) -> bool:
    return bool(parameter.is_meta) or parameter.layout != torch.strided or _is_lazy(parameter)


def _is_lazy(parameter: Tensor) -> bool:
    return bool(torch.nn.parameter.is_lazy(parameter))


def _holds(optimizer: Optimizer, parameter: Tensor) -> bool:
    return any(p is parameter for group in optimizer.param_groups for p in group["params"])


def _state(facts: ParameterFacts) -> tuple[int, int]:
    """What makes earlier records of a parameter void: loaded values, and unfreezing in between."""
    return facts.loads, facts.flips


def _fix(moved: _Moved) -> str:
    if moved.made:
        return (
            "optimizer = type(optimizer)([p for p in model.parameters() if p.requires_grad], lr=lr)"
        )
    return "skip parameters whose requires_grad is off where the loop writes to parameters"


__all__ = ["FrozenParameterMoved"]
