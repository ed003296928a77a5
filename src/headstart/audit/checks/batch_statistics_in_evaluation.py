"""A trained network uses batch statistics while it is evaluated."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from headstart.audit.check import Check
from headstart.audit.checks.evaluation_in_training_mode import evaluations_in_training_mode
from headstart.audit.events import Pass
from headstart.audit.parameters import common_path
from headstart.audit.records import Finding
from headstart.core.wording import count, verb

if TYPE_CHECKING:
    from headstart.audit.scene import Scene


class BatchStatisticsInEvaluation(Check):
    """Batch norm uses the batch in training mode, or always if it has no running statistics."""

    code = "batch-statistics-in-evaluation"
    cost = "a prediction depends on the other items in its batch, so a single item cannot be served"

    def finish(self, scene: Scene) -> Iterator[Finding]:
        """Yield one finding for each network."""
        told: set[int] = set()
        for seen, live in evaluations_in_training_mode(scene):
            names = [call.part.name for call in live if call.part.normalises]
            if not names or seen.network.number in told:
                continue
            told.add(seen.network.number)
            yield self.finding(
                f"{count(len(names), 'batch norm')} of {seen.network.kind} normalised by the batch"
                " while it was evaluated, and their running statistics moved",
                place=seen.place,
                module=common_path(names) or seen.network.kind,
                severity="error",
                confidence=0.7 if seen.grad else 0.95,
                evidence={"layers": names, "rows": seen.rows, "no_grad": not seen.grad},
                fix="model.eval()  # before the evaluation; model.train() after it",
            )
        for purpose in ("evaluation", "extraction"):
            for seen in scene.passes_for(purpose):
                names = [c.part.name for c in seen.calls if c.part.batch_only]
                if seen.training or not names or seen.network.number in told:
                    continue
                if scene.restates(seen) or scene.was_cut_off(seen):
                    continue
                told.add(seen.network.number)
                meant = _adapts(seen)
                yield self.finding(
                    f"{count(len(names), 'batch norm')} of {seen.network.kind}"
                    f" {verb(len(names), 'has', 'have')} no running statistics and"
                    f" {verb(len(names), 'normalises', 'normalise')} by the batch in evaluation"
                    " mode too",
                    place=seen.place,
                    module=common_path(names) or seen.network.kind,
                    severity="info" if meant else None,
                    confidence=0.3 if meant else 0.8,
                    evidence={"layers": names, "rows": seen.rows},
                    fix="BatchNorm2d(..., track_running_stats=True)",
                )


def _adapts(seen: Pass) -> bool:
    """Whether all that is trained are the norms themselves, as in test-time adaptation."""
    norms = {c.part.name for c in seen.calls if c.part.normalises}
    stepped = {name.rpartition(".")[0] for name in seen.network.stepped}
    return bool(stepped) and stepped <= norms


__all__ = ["BatchStatisticsInEvaluation"]
