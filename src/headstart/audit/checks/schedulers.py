"""A learning-rate scheduler is stepped at the wrong time, too often, too rarely, or never."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from headstart.audit.check import Check
from headstart.audit.events import Step
from headstart.audit.facts import SchedulerFacts
from headstart.audit.records import Finding, Place
from headstart.core.wording import count
from headstart.core.wording import format_number as number

if TYPE_CHECKING:
    from headstart.audit.scene import Scene

_COLLAPSED = 0.02
"""Share of its highest value to which a rate falls within the first epoch."""


class SchedulerMisstepped(Check):
    """Wrong calls of ``scheduler.step()`` silently change the learning rate."""

    code = "scheduler-misstepped"
    cost = "the learning rates are not those you asked for"

    def __init__(self) -> None:
        self.collapsed: dict[int, tuple[int, int]] = {}

    def after_step(self, seen: Step, scene: Scene) -> None:
        """Remember when the learning rate of a scheduler has fallen to almost nothing."""
        for i, facts in enumerate(scene.schedulers):
            rates = facts.rates
            if i not in self.collapsed and rates and rates[-1] <= _COLLAPSED * max(rates):
                epochs = sum(loader.complete for loader in scene.loaders)
                self.collapsed[i] = (seen.number, epochs)

    def finish(self, scene: Scene) -> Iterator[Finding]:
        """Yield one finding for each scheduler."""
        told: set[object] = set()
        for i, facts in enumerate(scene.schedulers):
            found = (
                self._first(facts)
                or self._too_often(facts, scene, i)
                or self._too_rarely(facts, scene)
                or self._never(facts, scene)
            )
            if found is not None and (found.code, found.place, found.message) not in told:
                told.add((found.code, found.place, found.message))
                yield found

    def _first(self, facts: SchedulerFacts) -> Finding | None:
        steps = 0 if facts.optimizer is None else facts.optimizer.steps
        if facts.first != 0 or facts.backwards or not steps:
            return None
        return self.finding(
            f"{facts.kind}.step() was called before the first step of its optimizer, so the first"
            " learning rate is skipped",
            place=facts.last,
            confidence=0.95,
            evidence={"scheduler": facts.kind, "made_at": str(facts.place)},
            fix="scheduler.step()  # at the end of the epoch, after optimizer.step()",
        )

    def _too_often(self, facts: SchedulerFacts, scene: Scene, i: int) -> Finding | None:
        """It counts epochs, and is stepped with every batch."""
        steps = 0 if facts.optimizer is None else facts.optimizer.steps
        if facts.steps < 8 or facts.steps < 0.9 * steps or not scene.loaders:
            return None
        if len(facts.rates) < 4096 and i in self.collapsed:
            at, epochs = self.collapsed[i]
            if epochs == 0:
                return self.finding(
                    f"{facts.kind} was stepped with every batch: within the first epoch, by step"
                    f" {at}, the learning rate fell from {number(max(facts.rates))} to"
                    f" {number(facts.rates[-1])}",
                    place=facts.last,
                    severity="error",
                    cost="training stalls before the first epoch has ended",
                    evidence={"scheduler": facts.kind, "rates": facts.rates[:32], "step": at},
                    fix="scheduler.step()  # once an epoch, outside of the loop over batches",
                )
        period = facts.period
        loader = max((each.batches for each in scene.loaders), default=0)
        if period is None or not 2 * period < facts.steps or not facts.rates:
            return None
        if not loader >= facts.steps > 16 or max(facts.rates[period:]) < 0.9 * max(facts.rates):
            return None
        return self.finding(
            f"{facts.kind} with T_max={period} was stepped with every batch: the learning rate fell"
            f" and rose again every {2 * period} batches",
            place=facts.last,
            evidence={"scheduler": facts.kind, "T_max": period, "steps": facts.steps},
            fix="scheduler.step()  # once an epoch, or T_max=epochs * len(loader)",
        )

    def _too_rarely(self, facts: SchedulerFacts, scene: Scene) -> Finding | None:
        """It counts batches, and is stepped with every epoch."""
        total = facts.total
        steps = 0 if facts.optimizer is None else facts.optimizer.steps
        if total is None or facts.steps < 2 or steps < 3 * facts.steps:
            return None
        per = steps / facts.steps
        if total < 2 * per or total % round(per) or scene.backwards < steps:
            return None
        return self.finding(
            f"{facts.kind} plans {total:,} steps and was stepped once in {number(per)} steps of the"
            " optimizer: it stays at the beginning of its plan",
            place=facts.last,
            evidence={"scheduler": facts.kind, "total_steps": total, "steps": facts.steps},
            fix="scheduler.step()  # after every optimizer.step(), inside of the loop over batches",
        )

    def _never(self, facts: SchedulerFacts, scene: Scene) -> Finding | None:
        steps = 0 if facts.optimizer is None else facts.optimizer.steps
        ended: Counter[Place] = Counter()  # a loader may be made anew in every epoch
        for loader in scene.loaders:
            ended[loader.place] += loader.complete
        epochs = max(ended.values(), default=0)
        if facts.steps or not steps or (epochs < 2 and steps < 200):
            return None
        return self.finding(
            f"{facts.kind} was made and never stepped, in {count(steps, 'step')} of its optimizer",
            place=facts.place,
            confidence=0.85,
            evidence={"scheduler": facts.kind, "optimizer_steps": steps},
            fix="scheduler.step()  # at the end of every epoch",
        )


__all__ = ["SchedulerMisstepped"]
