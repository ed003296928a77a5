"""A parameter moves although its ``requires_grad`` is off."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.weak import WeakIdKeyDictionary

from headstart.audit.check import Check
from headstart.audit.events import Pass, Step
from headstart.audit.places import user_place
from headstart.audit.records import Finding, Place
from headstart.audit.scene import ParameterFacts, common_path
from headstart.core.wording import count
from headstart.freezing.guards import parameter_cause
from headstart.modules.digests import Change, Record, change, record

if TYPE_CHECKING:
    from headstart.audit.scene import Scene

_ALONG = 0.9
"""Cosine from which a move counts as one towards another parameter; at random it is near 0, and
parameters with few values, of which many are alike, tell nothing."""
_FEW = 16
_ROUNDING = 1e-5
"""Relative moves below it are rounding: a moving average of equal values."""


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


class FrozenParameterMoved(Check):
    """Weight decay, momentum, a moving average or a direct write moves what is frozen."""

    code = "frozen-parameter-moved"
    severity = "error"
    cost = "what is meant to stay as it was pre-trained does not; stored features no longer fit it"

    def __init__(self) -> None:
        self.records: Any = WeakIdKeyDictionary()
        self.loads: Any = WeakIdKeyDictionary()
        self.moved: list[_Moved] = []
        self.told: set[str] = set()

    def on_pass(self, seen: Pass, scene: Scene) -> None:
        """Record what is frozen, at the first passes of its network."""
        if seen.network.passes <= 2 or not scene.steps:
            self._record(scene)

    def before_step(self, seen: Step, scene: Scene) -> None:
        """Look for what moved between steps."""
        if _looks(seen.number):
            self._record(scene)
            self._compare(scene, seen, None)

    def after_step(self, seen: Step, scene: Scene) -> None:
        """Look for what the step moved."""
        if _looks(seen.number):
            self._compare(scene, seen, seen.optimizer)

    def _record(self, scene: Scene) -> None:
        for parameter, facts in scene.parameters.items():
            trainable = parameter.requires_grad or _unreadable(parameter)
            if trainable:
                self.records.pop(parameter, None)
            elif parameter not in self.records or self.loads.get(parameter) != facts.loads:
                self.records[parameter] = record(parameter)
                self.loads[parameter] = facts.loads

    def _compare(self, scene: Scene, seen: Step, optimizer: Optimizer | None) -> None:
        for parameter, before in list(self.records.items()):
            facts = scene.facts_of(parameter)
            if facts is None or parameter.requires_grad:
                continue
            if optimizer is not None and not _holds(optimizer, parameter):
                continue
            if self.loads.get(parameter) != facts.loads:
                continue
            change_ = change(facts.name, parameter, before)
            if change_ is None:
                continue
            found = self._explain(scene, seen, optimizer, parameter, facts, before, change_)
            if found is not None:
                self.moved.append(found)
            self.records[parameter] = record(parameter)

    def _explain(
        self,
        scene: Scene,
        seen: Step,
        optimizer: Optimizer | None,
        parameter: Tensor,
        facts: ParameterFacts,
        before: Record,
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
            source = _source(scene, parameter, before)
            if source is not None and source.steps:
                return None  # a moving average of a network that is trained
            if source is not None:
                if change_.relative < _ROUNDING:
                    return None
                cause = (
                    f"a moving average: it drifts towards {source.name}, which is frozen and has"
                    " other values"
                )
        network = facts.networks[0]
        place = user_place() if stepper is not None else seen.place
        where = str(made) if stepper is not None else ""
        return _Moved(
            facts.name, network.number, network.kind, change_, cause, place, seen.number, where
        )

    def finish(self, scene: Scene) -> Iterator[Finding]:
        """Yield one finding for each network and cause."""
        groups: dict[tuple[int, str], list[_Moved]] = {}
        for each in self.moved:
            network = scene.networks[each.network]
            if not network.moved_directly and not _alternates(scene, each):
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
                    "step": first.step,
                    "largest_change": first.change.largest,
                    "relative_change": first.change.relative,
                    "optimizer_made_at": first.made,
                },
                fix=_fix(first),
            )


def _looks(step: int) -> bool:
    """Whether to compare contents at this step: the first ones, then at powers of two."""
    return step <= 3 or step & (step - 1) == 0


def _unreadable(parameter: Tensor) -> bool:
    return bool(parameter.is_meta) or parameter.layout != torch.strided or _is_lazy(parameter)


def _is_lazy(parameter: Tensor) -> bool:
    return bool(torch.nn.parameter.is_lazy(parameter))


def _holds(optimizer: Optimizer, parameter: Tensor) -> bool:
    return any(p is parameter for group in optimizer.param_groups for p in group["params"])


def _alternates(scene: Scene, moved: _Moved) -> bool:
    module = scene.networks[moved.network].module
    if module is None:
        return False
    parameter = dict(module.named_parameters()).get(moved.name)
    facts = None if parameter is None else scene.facts_of(parameter)
    return facts is not None and facts.flips > 1


def _source(scene: Scene, parameter: Tensor, before: Record) -> ParameterFacts | None:
    """Return the parameter of equal shape towards which this one has moved; None: there is none."""
    if before.sample is None or parameter.numel() < _FEW:
        return None
    old, new = before.sample.double(), record(parameter).sample
    assert new is not None
    move = new.double() - old
    best: tuple[float, ParameterFacts] | None = None
    for other, facts in scene.parameters.items():
        if other is parameter or other.shape != parameter.shape:
            continue
        sample = record(other).sample
        assert sample is not None
        way = sample.double() - old
        norm = float(move.norm() * way.norm())
        cosine = float((move * way).sum()) / norm if norm else 0.0
        if cosine > _ALONG and (best is None or cosine > best[0]):
            best = (cosine, facts)
    return None if best is None else best[1]


def _fix(moved: _Moved) -> str:
    if moved.made:
        return (
            "optimizer = type(optimizer)([p for p in model.parameters() if p.requires_grad], lr=lr)"
        )
    return "skip parameters whose requires_grad is off where the loop writes to parameters"


__all__ = ["FrozenParameterMoved"]
