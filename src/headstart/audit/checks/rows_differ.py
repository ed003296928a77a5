"""Rows depend on chance, and no known layer explains it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from headstart.audit.records import Finding
from headstart.audit.rows_measured import DIFFERS, RowsMeasured
from headstart.core.wording import format_percent

if TYPE_CHECKING:
    from headstart.audit.scene import Scene


class RowsDiffer(RowsMeasured):
    """Two passes over the same items give different rows."""

    code = "rows-differ-between-passes"
    severity = "error"
    cost = (
        "features of the same item differ from pass to pass, and cached ones keep that noise"
        " for good"
    )

    def finish(self, scene: Scene) -> Iterator[Finding]:
        """Yield one finding for each network."""
        for seen, found in self.measured.values():
            if found.on_second_pass <= DIFFERS:
                continue
            yield self.finding(
                f"Two passes of {seen.network.kind} over the same items differ by up to"
                f" {format_percent(found.on_second_pass)} of the largest value, in evaluation mode:"
                " its own code draws random numbers whatever the mode",
                place=seen.place,
                module=seen.network.kind,
                severity="warning" if seen.trained else None,
                confidence=0.9,
                evidence={"change_on_second_pass": found.on_second_pass, "rows": seen.rows},
                fix="F.dropout(x, p, training=self.training)  # noise only if self.training",
            )


__all__ = ["RowsDiffer"]
