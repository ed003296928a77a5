"""Random augmentation is applied where an item should always give the same image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from headstart.audit.check import Check
from headstart.audit.events import Batch, Pass
from headstart.audit.loaders import Sources
from headstart.audit.records import Finding
from headstart.audit.scene import Scene

VIEWS = 3
"""So many readings of the same data between two steps are test-time augmentation, on purpose."""


class AugmentedEvaluation(Check):
    """A network is evaluated on randomly augmented data."""

    code: ClassVar[str] = "augmented-evaluation"
    cost: ClassVar[str] = (
        "the score is measured on different images every time, and is mostly too low"
    )

    def __init__(self) -> None:
        self.sources = Sources()

    def on_batch(self, seen: Batch, scene: Scene) -> None:
        """Remember where data come from."""
        self.sources.note(seen)

    def finish(self, scene: Scene) -> Iterator[Finding]:
        """Yield one finding for every loader of random items that evaluates a trained network."""
        told: set[object] = set()
        for seen in scene.passes_for("evaluation"):
            number = seen.loader
            if number is None or seen.place in told or not self.sources.is_random(number):
                continue
            if _views(scene, seen) >= VIEWS:
                continue
            told.add(seen.place)
            yield self.finding(
                f"{seen.network.kind} is evaluated on images that change at random: asked again for"
                " the same item, the data set behind the loader returns a different image.",
                place=seen.place,
                confidence=0.9,
                evidence={"loader at line": scene.loaders[number].place.line},
                fix="give the evaluation data a transform of their own, without random steps",
            )


def _views(scene: Scene, seen: Pass) -> int:
    """Return how often a loader began anew between two steps: batches of one step over all."""
    mine = [p for p in scene.passes_for("evaluation") if p.loader == seen.loader]
    loader = scene.loaders[seen.loader] if seen.loader is not None else None
    if loader is None or not mine:
        return 0
    return round(loader.epochs / max(1, len({p.step for p in mine})))


__all__ = ["AugmentedEvaluation"]
