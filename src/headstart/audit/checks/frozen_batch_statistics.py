"""A frozen part uses batch statistics, although its running statistics do not move."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from headstart.audit.check import Check
from headstart.audit.checks.frozen_statistics_moved import eval_line, shift_of
from headstart.audit.events import Pass
from headstart.audit.parameters import common_path
from headstart.audit.records import Finding
from headstart.core.wording import count

if TYPE_CHECKING:
    from headstart.audit.scene import Scene


class FrozenBatchStatistics(Check):
    """With momentum 0 or no running statistics nothing moves, but the batch still decides."""

    code = "frozen-batch-statistics"
    cost = "the frozen part computes different features in training and in evaluation"

    def __init__(self) -> None:
        self.seen: dict[int, tuple[Pass, list[str]]] = {}

    def on_pass(self, seen: Pass, scene: Scene) -> None:
        """Look for frozen norms that use the batch and do not move."""
        if seen.network.number in self.seen or seen.failed:
            return
        parts = [c.part for c in scene.live_norms(seen) if scene.stays_frozen(seen, c.part)]
        names = [part.name for part in parts if part.batch_only or shift_of(part) == 0]
        if names and seen.grad:
            self.seen[seen.network.number] = (seen, names)

    def finish(self, scene: Scene) -> Iterator[Finding]:
        """Yield one finding for each network."""
        for seen, names in self.seen.values():
            if not seen.trained or seen.network.moved_directly or scene.restates(seen):
                continue
            left = {call.part.name for call in seen.calls if scene.stays_frozen(seen, call.part)}
            names = [name for name in names if name in left]
            if not names:
                continue
            yield self.finding(
                f"{count(len(names), 'frozen norm')} normalised by the batch while the rest of"
                f" {seen.network.kind} was trained; the running statistics do not move",
                place=seen.place,
                module=common_path(names) or seen.network.kind,
                evidence={"layers": names},
                fix=eval_line(names),
            )


__all__ = ["FrozenBatchStatistics"]
