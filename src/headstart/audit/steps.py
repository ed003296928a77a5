"""Watches optimizers and schedulers of learning rates: how they are made, and how they step."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer

from headstart.audit import events
from headstart.audit.facts import OptimizerFacts, SchedulerFacts
from headstart.audit.hub import Hub
from headstart.audit.passes import PassWatcher
from headstart.audit.places import user_place


class StepWatcher:
    """Gathers steps, by hooks of optimizers and around schedulers."""

    def __init__(self, hub: Hub, passes: PassWatcher) -> None:
        self.hub, self.passes = hub, passes
        self._optimizers: dict[int, OptimizerFacts] = {}
        self._schedulers: dict[int, SchedulerFacts] = {}
        self._in_schedule = 0

    def around_optimizer(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap the making of optimizers."""

        def init(optimizer: Optimizer, *args: Any, **kwargs: Any) -> None:
            original(optimizer, *args, **kwargs)
            self._optimizer(optimizer)

        return init

    def _optimizer(self, optimizer: Optimizer) -> OptimizerFacts:
        key = id(optimizer)
        found = self._optimizers.get(key)
        if found is None:
            number, kind = len(self.hub.scene.optimizers), type(optimizer).__name__

            def forget(_ref: Any) -> None:
                self._optimizers.pop(key, None)

            ref = weakref.ref(optimizer, forget)
            found = OptimizerFacts(number, kind, ref, user_place())
            self._optimizers[key] = found
            self.hub.scene.optimizers.append(found)
        return found

    def before_step(self, optimizer: Optimizer, _args: Any, _kwargs: Any) -> None:
        """An optimizer is about to step: a global hook."""
        if self.hub.elsewhere():
            return
        self.passes.surface()
        scene, facts = self.hub.scene, self._optimizer(optimizer)
        self.hub.stop_when_done()
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                known = scene.facts_of(parameter)
                if known is not None:
                    known.held += 1
                    if known.held == 1:
                        for network, name in known.places():
                            network.held.add(name)
                    if parameter.requires_grad and parameter.grad is not None:
                        known.steps += 1
                        for network, name in known.places():
                            network.stepped.add(name)
                            scene.steppers.setdefault(network.number, set()).add(facts.number)
        if self.hub.listens("before_step"):
            self.hub.tell("before_step", self._step(optimizer, facts, scene.steps + 1))

    def after_step(self, optimizer: Optimizer, _args: Any, _kwargs: Any) -> None:
        """An optimizer has stepped: a global hook."""
        if self.hub.elsewhere():
            return
        scene, facts = self.hub.scene, self._optimizer(optimizer)
        scene.steps += 1
        facts.steps += 1
        if self.hub.listens("after_step"):
            self.hub.tell("after_step", self._step(optimizer, facts, scene.steps))
        scene.backwards_since_step = 0
        self.hub.stop_when_done()

    def _step(self, optimizer: Optimizer, facts: OptimizerFacts, number: int) -> events.Step:
        since = self.hub.scene.backwards_since_step
        return events.Step(number, optimizer, facts, user_place(), since)

    def around_scheduler(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap the making of schedulers."""

        def init(scheduler: Any, *args: Any, **kwargs: Any) -> None:
            self._in_schedule += 1
            try:
                original(scheduler, *args, **kwargs)
            finally:
                self._in_schedule -= 1
            if not self._in_schedule and not self.hub.elsewhere():
                self._scheduler(scheduler)

        return init

    def _scheduler(self, scheduler: Any) -> SchedulerFacts:
        key = id(scheduler)
        found = self._schedulers.get(key)
        if found is None:
            optimizer = getattr(scheduler, "optimizer", None)
            facts = self._optimizer(optimizer) if isinstance(optimizer, Optimizer) else None

            def forget(_ref: Any) -> None:
                self._schedulers.pop(key, None)

            ref = weakref.ref(scheduler, forget)
            kind = type(scheduler).__name__
            found = SchedulerFacts(kind, ref, user_place(), facts)
            found.total = _count(scheduler, "total_steps")
            found.period = _count(scheduler, "T_max")
            self._schedulers[key] = found
            self.hub.scene.schedulers.append(found)
        return found

    def around_schedule(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap the steps of schedulers."""

        def step(scheduler: Any, *args: Any, **kwargs: Any) -> Any:
            self._in_schedule += 1
            try:
                result = original(scheduler, *args, **kwargs)
            finally:
                self._in_schedule -= 1
            if (
                self._in_schedule or self.hub.elsewhere()
            ):  # its own first step, or one inside another
                return result
            facts = self._scheduler(scheduler)
            facts.steps += 1
            facts.last = user_place()
            if facts.first is None:
                facts.first = 0 if facts.optimizer is None else facts.optimizer.steps
                facts.backwards = self.hub.scene.backwards
            optimizer = None if facts.optimizer is None else facts.optimizer.ref()
            if optimizer is not None and len(facts.rates) < 4096:
                facts.rates.append(float(optimizer.param_groups[0]["lr"]))
            return result

        return step


def _count(scheduler: Any, name: str) -> int | None:
    found = getattr(scheduler, name, None)
    return found if isinstance(found, int) else None


__all__ = ["StepWatcher"]
