"""Rows depend on their batch, and no known layer explains it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from headstart.audit.records import Finding
from headstart.audit.rows_measured import DIFFERS, RowsMeasured
from headstart.core.wording import format_percent

if TYPE_CHECKING:
    from headstart.audit.scene import Scene

_DEPENDS = 1e-3
"""Kernels that work on other batch sizes change float32 rows by 1e-6; half precision by less."""


class RowsDependOnBatch(RowsMeasured):
    """The same item gets a different row in a different batch."""

    code = "rows-depend-on-batch"
    severity = "error"
    cost = "features and predictions depend on which items share a batch, so none can be cached"

    def finish(self, scene: Scene) -> Iterator[Finding]:
        """Yield one finding for each network."""
        for seen, found in self.measured.values():
            if found.in_another_batch < _DEPENDS or found.on_second_pass > DIFFERS:
                continue
            yield self.finding(
                f"Without the other half of its batch, a row of {seen.network.kind} changes by up"
                f" to {format_percent(found.in_another_batch)} of the largest value, in evaluation"
                " mode; no batch norm explains it, so its own code mixes items",
                place=seen.place,
                module=seen.network.kind,
                severity="warning" if seen.trained else None,
                confidence=0.85,
                evidence={"change_in_another_batch": found.in_another_batch, "rows": seen.rows},
                fix="normalise over the features of an item: x.mean(dim=1), not x.mean(dim=0)",
            )


__all__ = ["RowsDependOnBatch"]
