"""Layers are unfrozen after ``compile``, so the optimizer does not know their weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from headstart.audit.check import Check
from headstart.audit.records import Finding
from headstart.audit.scene import Scene
from headstart.core.wording import quoted


class KerasTrainableAfterCompile(Check):
    """Layers are unfrozen after ``compile``, so the optimizer does not know their weights."""

    code: ClassVar[str] = "keras-trainable-after-compile"
    severity = "error"
    cost: ClassVar[str] = "the change has no effect, or fit stops with 'Unknown variable'"

    def finish(self, scene: Scene) -> Iterator[Finding]:
        """Yield one finding for every ``fit`` after such a change."""
        for run in scene.keras.jobs("fit"):
            if run.unknown:
                named = [path or run.kind for path in run.unknown]
                yield self.finding(
                    f"{quoted(named, 3)} became trainable after compile, and the optimizer does not"
                    " know the weights.",
                    place=run.place,
                    module=run.unknown[0],
                    evidence={"layers": list(named)},
                    fix="model.compile(keras.optimizers.Adam(1e-5), loss)  # after the change",
                )


__all__ = ["KerasTrainableAfterCompile"]
