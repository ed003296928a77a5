"""What the checks of rows share: how rows of a network change in evaluation mode."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headstart.audit.check import Check
from headstart.audit.events import Pass
from headstart.audit.row_changes import RowChanges, measure_rows

if TYPE_CHECKING:
    from headstart.audit.scene import Scene

DIFFERS = 1e-5
"""Change of a row from one pass to the next, from which it is not rounding."""


class RowsMeasured(Check):
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


__all__ = ["DIFFERS", "RowsMeasured"]
