"""Cached rows were computed from randomly augmented images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from headstart.audit.check import Check
from headstart.audit.events import Batch
from headstart.audit.loaders import Sources
from headstart.audit.records import Finding
from headstart.audit.scene import Scene


class AugmentedFeatures(Check):
    """A cached row fixes one random view of its image.

    A head that is trained on such rows gets no augmentation: every epoch sees the same view.
    """

    code: ClassVar[str] = "augmented-features"
    cost: ClassVar[str] = "accuracy: every item keeps the features of one random view"

    def __init__(self) -> None:
        self.sources = Sources()

    def on_batch(self, seen: Batch, scene: Scene) -> None:
        """Remember where data come from."""
        self.sources.note(seen)

    def finish(self, scene: Scene) -> Iterator[Finding]:
        """Yield a finding where the rows of a random loader were extracted at one go."""
        told: set[object] = set()
        for seen in scene.passes_for("extraction"):
            number = seen.loader
            if number is None or seen.place in told or not self.sources.is_random(number):
                continue
            loader = scene.loaders[number]
            mine = [
                p
                for p in scene.passes_for("extraction")
                if self.sources.same(p.loader) == self.sources.same(number)
            ]
            if loader.epochs > 1 or len({p.step for p in mine}) > 1:
                continue  # anew in every epoch, or while a head is trained
            told.add(seen.place)
            later = any(each.steps for each in scene.optimizers) and scene.steps > seen.step
            lost = (
                " The head is then trained on one random view of every picture: the augmentation"
                " is lost."
                if later
                else ""
            )
            yield self.finding(
                f"{seen.network.kind} extracts features once, from images that change at random."
                + lost,
                place=seen.place,
                confidence=0.85,
                evidence={"loader at line": loader.place.line, "trained on afterwards": later},
                fix="extract without random transforms, or several numbered views:"
                " headstart.extract(..., views=5)",
            )


__all__ = ["AugmentedFeatures"]
