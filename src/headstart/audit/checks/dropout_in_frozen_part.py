"""Dropout or drop-path is active in a frozen part."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from headstart.audit.check import Check
from headstart.audit.checks.frozen_statistics_moved import eval_line
from headstart.audit.facts import Part
from headstart.audit.parameters import common_path
from headstart.audit.records import Finding
from headstart.core.wording import count, listed

if TYPE_CHECKING:
    from headstart.audit.scene import Scene


class DropoutInFrozenPart(Check):
    """Frozen weights cannot adapt to the noise, and it reaches the layers that train."""

    code = "dropout-in-frozen-part"
    cost = "noise that the frozen weights cannot adapt to: training is slower and often worse"

    def finish(self, scene: Scene) -> Iterator[Finding]:
        """Yield one finding for each network."""
        told: set[int] = set()
        for seen in scene.passes_for("training"):
            if seen.network.number in told:
                continue
            calls = scene.live_chance(seen)
            parts = [call.part for call in calls if scene.stays_frozen(seen, call.part)]
            if not parts:
                continue
            told.add(seen.network.number)
            names = [part.name for part in parts]
            yield self.finding(
                f"{sources(parts)} drew random numbers inside a frozen part while"
                f" {seen.network.kind} was trained",
                place=scene.mode_place(parts[0], seen.place),
                module=common_path(names) or seen.network.kind,
                confidence=0.85,
                evidence={"layers": names, "forward_at": str(seen.place)},
                fix=eval_line(names),
            )


def sources(parts: list[Part]) -> str:
    """Name the first layers, and how many there are."""
    shown = listed([f"{part.name or part.kind} ({part.random})" for part in parts[:2]])
    return shown if len(parts) <= 2 else f"{count(len(parts), 'layer')}, such as {shown},"


__all__ = ["DropoutInFrozenPart", "sources"]
