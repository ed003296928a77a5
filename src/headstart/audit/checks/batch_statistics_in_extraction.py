"""Features are computed with batch statistics, because the network is in training mode."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from headstart.audit.check import Check
from headstart.audit.events import Pass
from headstart.audit.parameters import common_path
from headstart.audit.records import Finding
from headstart.audit.row_changes import RowChanges, measure_rows
from headstart.core.wording import count, format_percent

if TYPE_CHECKING:
    from headstart.audit.scene import Scene


class BatchStatisticsInExtraction(Check):
    """A feature then depends on the rest of its batch, and every pass moves the statistics."""

    code = "batch-statistics-in-extraction"
    severity = "error"
    cost = (
        "features depend on which items share a batch, so cached rows fit neither the test"
        " items nor the served network; every pass moves the running statistics"
    )

    def __init__(self) -> None:
        self.measured: dict[int, RowChanges | None] = {}

    def on_pass(self, seen: Pass, scene: Scene) -> None:
        """Measure, once for each network, how far rows depend on their batch."""
        number = seen.network.number
        if number in self.measured or seen.failed or seen.discarded or seen.network.stepped:
            return
        if scene.live_norms(seen):
            self.measured[number] = measure_rows(seen)

    def finish(self, scene: Scene) -> Iterator[Finding]:
        """Yield one finding for each network."""
        for passes in extractions(scene):
            first = passes[0]
            calls = scene.live_norms(first)
            names = [call.part.name for call in calls]
            if not names:
                continue
            measured = self.measured.get(first.network.number)
            change = None if measured is None else measured.in_another_batch
            by = (
                ""
                if change is None
                else f": in another batch a row changes by up to {_share(change)}"
            )
            yield self.finding(
                f"{first.network.kind} computed features in"
                f" {count(len(passes), 'observed pass', 'observed passes')} with"
                f" {count(len(names), 'batch norm')} in training mode{by}",
                place=first.place,
                module=common_path(names) or first.network.kind,
                confidence=0.6 if first.grad else 0.95,
                evidence={
                    "passes": len(passes),
                    "layers": names,
                    "change_in_another_batch": change,
                    "no_grad": not first.grad,
                },
                fix="backbone.eval()  # before features are computed",
            )


def extractions(scene: Scene) -> Iterator[list[Pass]]:
    """Yield, for each network that computes features, the passes in training mode that do.

    Passes that feed a network to which gradients come back count too: features computed anew in
    every epoch. A single pass is a look at the shapes, and one of a batch of one says nothing.
    """
    found: dict[int, list[Pass]] = {}
    for seen in scene.passes_for("extraction"):
        if not any(call.training for call in seen.calls) or scene.restates(seen):
            continue
        found.setdefault(seen.network.number, []).append(seen)
    for passes in found.values():
        passes = [p for p in passes if not scene.was_cut_off(p)] or passes[4:]
        if len(passes) > 1:
            yield passes


def _share(change: float) -> str:
    return f"{format_percent(change)} of the largest value"


__all__ = ["BatchStatisticsInExtraction", "extractions"]
