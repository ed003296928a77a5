"""Batch norm moves in a part whose weights are all frozen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from headstart.audit.check import Check
from headstart.audit.keras_watch import KerasLayer, KerasRun
from headstart.audit.records import Finding
from headstart.audit.scene import Scene
from headstart.core.wording import quoted


class KerasBatchNormMoved(Check):
    """Batch norm moves in a part whose weights are all frozen."""

    code: ClassVar[str] = "keras-batch-norm-moved"
    severity = "error"
    cost: ClassVar[str] = "accuracy: the moving statistics of pre-training are lost"

    def finish(self, scene: Scene) -> Iterator[Finding]:
        """Yield one finding for every ``fit`` that moved such statistics."""
        for run in scene.keras.jobs("fit"):
            moved = [n for n in run.norms() if n.moved > 0 and _frozen_around(run, n)]
            if moved:
                worst = max(moved, key=lambda norm: norm.moved)
                yield self.finding(
                    f"Every other weight around {quoted([n.path for n in moved], 3)} is frozen, and"
                    f" its moving mean shifted by {worst.moved:.2g} standard deviations:"
                    " its own trainable is still True.",
                    place=run.place,
                    module=worst.path,
                    evidence={
                        "moved, in standard deviations": {n.path: round(n.moved, 4) for n in moved}
                    },
                    fix="base.trainable = False  # the whole base, before compile",
                )


def _frozen_around(run: KerasRun, norm: KerasLayer) -> bool:
    """Whether the part around a norm has weights, all of them frozen."""
    around = norm.path.rpartition("/")[0]
    if not around:
        return False
    others = [
        layer
        for layer in run.layers.values()
        if layer is not norm and layer.path.startswith(f"{around}/") and layer.weights
    ]
    alike = [layer for layer in others if layer.statistics is None]
    return bool(alike) and not any(layer.trainable for layer in alike)


__all__ = ["KerasBatchNormMoved"]
