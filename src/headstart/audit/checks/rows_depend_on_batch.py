"""Rows that depend on their batch, or on chance, where no known layer explains it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from headstart.audit.check import Check
from headstart.audit.events import Pass
from headstart.audit.records import Finding
from headstart.audit.row_changes import RowChanges, measure_rows
from headstart.core.wording import format_percent

if TYPE_CHECKING:
    from headstart.audit.scene import Scene

_DEPENDS = 1e-3
"""Kernels that work on other batch sizes change float32 rows by 1e-6; half precision by less."""
_DIFFERS = 1e-5


class _Rows(Check):
    """What both checks gather: two figures for the first passes of a network in evaluation mode."""

    def __init__(self) -> None:
        self.measured: dict[int, tuple[Pass, RowChanges]] = {}
        self.tried: set[int] = set()

    def on_pass(self, seen: Pass, scene: Scene) -> None:
        """Measure a network the first time that it runs in evaluation mode."""
        number = seen.network.number
        if number in self.tried or seen.failed or seen.training or seen.discarded:
            return
        if scene.live_norms(seen) or scene.live_chance(seen):
            return  # known causes are told by checks of their own
        self.tried.add(number)
        found = measure_rows(seen)
        if found is not None:
            self.measured[number] = (seen, found)


class RowsDependOnBatch(_Rows):
    """The same item gets another row in another batch."""

    code = "rows-depend-on-batch"
    severity = "error"
    cost = "features and predictions depend on which items share a batch: none can be cached"

    def finish(self, scene: Scene) -> Iterator[Finding]:
        """Yield one finding for each network."""
        for seen, found in self.measured.values():
            if found.in_another_batch < _DEPENDS or found.on_second_pass > _DIFFERS:
                continue
            yield self.finding(
                f"without the other half of its batch, a row of {seen.network.kind} changes by up"
                f" to {format_percent(found.in_another_batch)} of the largest value, in evaluation"
                " mode; no batch norm explains it, so its own code mixes items",
                place=seen.place,
                module=seen.network.kind,
                severity="warning" if seen.trained else None,
                confidence=0.85,
                evidence={"change_in_another_batch": found.in_another_batch, "rows": seen.rows},
                fix="normalise over the features of an item: x.mean(dim=1), not x.mean(dim=0)",
            )


class RowsDiffer(_Rows):
    """Two passes over the same items give different rows."""

    code = "rows-differ-between-passes"
    severity = "error"
    cost = "features of the same item differ from pass to pass; cached ones are noise for good"

    def finish(self, scene: Scene) -> Iterator[Finding]:
        """Yield one finding for each network."""
        for seen, found in self.measured.values():
            if found.on_second_pass <= _DIFFERS:
                continue
            yield self.finding(
                f"two passes of {seen.network.kind} over the same items differ by up to"
                f" {format_percent(found.on_second_pass)} of the largest value, in evaluation mode:"
                " its own code draws random numbers whatever the mode",
                place=seen.place,
                module=seen.network.kind,
                severity="warning" if seen.trained else None,
                confidence=0.9,
                evidence={"change_on_second_pass": found.on_second_pass, "rows": seen.rows},
                fix="F.dropout(x, p, training=self.training)  # noise only if self.training",
            )


__all__ = ["RowsDependOnBatch", "RowsDiffer"]
