"""Gradients are accumulated over small batches, but batch norm sees each small batch alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from headstart.audit.check import Check
from headstart.audit.events import Pass, Step
from headstart.audit.facts import Network
from headstart.audit.records import Finding, Place
from headstart.core.wording import count

if TYPE_CHECKING:
    from headstart.audit.scene import Scene

_SMALL = 8
"""Batches of fewer items have noisy statistics (Wu and He 2018: errors grow below 16)."""


class AccumulationWithBatchNorm(Check):
    """Gradient accumulation enlarges the optimizer step, not the batch that batch norm sees."""

    code = "accumulation-with-batch-norm"
    cost = (
        "batch statistics come from the small batches: training is noisier than the step size"
        " suggests"
    )

    def __init__(self) -> None:
        self.passes: list[Pass] = []
        self.found: dict[int, tuple[Pass, list[str], int, Place]] = {}
        self.times: Counter[int] = Counter()

    def on_pass(self, seen: Pass, scene: Scene) -> None:
        """Remember the passes since the latest step."""
        if seen.grad and len(self.passes) < 256:
            self.passes.append(seen)

    def before_step(self, seen: Step, scene: Scene) -> None:
        """Compare passes at one line with backward passes, since the latest step."""
        passes, self.passes = self.passes, []
        if seen.backwards < 2:
            return
        at: dict[tuple[int, Place], list[Pass]] = {}
        for each in passes:
            if each.trained:
                at.setdefault((each.network.number, each.place), []).append(each)
        for (number, _), group in at.items():
            if len(group) < min(seen.backwards, 3) or len(group) < 2:
                continue
            first = group[0]
            calls = [c for c in scene.live_norms(first) if not scene.stays_frozen(first, c.part)]
            if calls:
                names = [call.part.name for call in calls]
                self.times[number] += 1
                self.found.setdefault(number, (first, names, len(group), seen.place))

    def finish(self, scene: Scene) -> Iterator[Finding]:
        """Yield one finding for each network that did so at two steps or more."""
        for number, (first, names, times, place) in self.found.items():
            if self.times[number] < min(2, max(scene.steps, 1)):
                continue
            network: Network = first.network
            rows = first.rows or 0
            yield self.finding(
                f"Gradients of {count(times, 'batch', 'batches')} of {rows} items were accumulated"
                f" for one step, and {count(len(names), 'batch norm')} of {network.kind} normalised"
                f" by each batch of {rows} alone",
                place=first.place,
                module=network.kind,
                severity=None if rows < _SMALL else "info",
                confidence=0.9,
                evidence={
                    "batches_per_step": times,
                    "rows": rows,
                    "layers": names,
                    "step_at": str(place),
                },
                fix="for m in model.modules(): isinstance(m, nn.BatchNorm2d) and m.eval()",
            )


__all__ = ["AccumulationWithBatchNorm"]
