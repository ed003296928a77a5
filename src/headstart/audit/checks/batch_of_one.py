"""Batch norm gets a batch of one item in training mode."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from headstart.audit.check import Check
from headstart.audit.events import Pass
from headstart.audit.records import Finding
from headstart.core.wording import count

if TYPE_CHECKING:
    from headstart.audit.scene import Scene


class BatchOfOne(Check):
    """The statistics are those of a single item; without positions there are none at all."""

    code = "batch-of-one"
    cost = (
        "every item is normalised by itself: statistics are noise, and layers without"
        " positions fail"
    )

    def finish(self, scene: Scene) -> Iterator[Finding]:
        """Yield one finding for each network."""
        for network in scene.networks:
            passes = [p for p in scene.passes if p.network is network and (p.trained or p.failed)]
            single = [p for p in passes if p.rows == 1 and self._norms(p)]
            if not single:
                continue
            first = single[0]
            names = self._norms(first)
            some = len(single) < len(passes) / 2
            yield self.finding(
                f"{count(len(single), 'observed training pass', 'observed training passes')} of"
                f" {len(passes)} had a single item, and {count(len(names), 'batch norm')} of"
                f" {network.kind} took their statistics from it"
                + ("; torch refuses that" if first.failed else ""),
                place=first.place,
                module=names[0],
                severity="error" if first.failed else None,
                confidence=0.99 if first.failed else 0.85,
                evidence={"passes": len(single), "of": len(passes), "layers": names},
                fix="DataLoader(..., drop_last=True)"
                if some
                else "batches of 16 and more, GroupNorm, or norms in evaluation mode: norm.eval()",
            )

    def _norms(self, seen: Pass) -> list[str]:
        calls = seen.calls
        return [
            c.part.name
            for c in calls
            if c.training and c.part.normalises and c.shape is not None and c.shape[0] == 1
        ]


__all__ = ["BatchOfOne"]
