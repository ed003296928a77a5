"""Dropout or drop-path is active while features are computed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from headstart.audit.check import Check
from headstart.audit.checks.batch_statistics_in_extraction import extractions
from headstart.audit.checks.dropout_in_frozen_part import sources
from headstart.audit.events import Pass
from headstart.audit.parameters import common_path
from headstart.audit.records import Finding
from headstart.audit.row_changes import RowChanges, measure_rows
from headstart.core.wording import format_percent

if TYPE_CHECKING:
    from headstart.audit.scene import Scene


class DropoutInExtraction(Check):
    """The same item gets different features in every pass."""

    code = "dropout-in-extraction"
    severity = "error"
    cost = (
        "features of the same item differ from pass to pass, and cached ones keep that noise"
        " for good"
    )

    def __init__(self) -> None:
        self.measured: dict[int, RowChanges | None] = {}

    def on_pass(self, seen: Pass, scene: Scene) -> None:
        """Measure, once for each network, how far two passes differ."""
        number = seen.network.number
        if number in self.measured or seen.failed or seen.discarded or seen.network.stepped:
            return
        if scene.live_chance(seen) and not seen.network.stepped:
            self.measured[number] = measure_rows(seen)

    def finish(self, scene: Scene) -> Iterator[Finding]:
        """Yield one finding for each network."""
        for passes in extractions(scene):
            first = passes[0]
            parts = [call.part for call in scene.live_chance(first)]
            if not parts:
                continue
            names = [part.name for part in parts]
            measured = self.measured.get(first.network.number)
            change = None if measured is None else measured.on_second_pass
            by = (
                ""
                if change is None
                else f"; two passes over the same items differ by up to {format_percent(change)} of"
                " the largest value"
            )
            yield self.finding(
                f"{sources(parts)} drew random numbers while {first.network.kind} computed"
                f" features{by}",
                place=first.place,
                module=common_path(names) or first.network.kind,
                confidence=0.6 if first.grad else 0.95,
                evidence={
                    "layers": names,
                    "change_on_second_pass": change,
                    "passes": len(passes),
                },
                fix="backbone.eval()  # before features are computed",
            )


__all__ = ["DropoutInExtraction"]
