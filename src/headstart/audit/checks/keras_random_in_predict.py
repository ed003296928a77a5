"""Augmentation or dropout is active in ``predict`` or ``evaluate``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from headstart.audit.check import Check
from headstart.audit.records import Finding
from headstart.audit.scene import Scene
from headstart.core.wording import quoted


class KerasRandomInPredict(Check):
    """Augmentation or dropout is active in ``predict`` or ``evaluate``."""

    code: ClassVar[str] = "keras-random-in-predict"
    cost: ClassVar[str] = "predictions change from call to call"

    def finish(self, scene: Scene) -> Iterator[Finding]:
        """Yield one finding for every job with a random layer in training mode."""
        told = set()
        for run in (*scene.keras.jobs("predict"), *scene.keras.jobs("evaluate")):
            active = [n for n in run.layers.values() if n.random and True in n.modes]
            if active and run.place not in told:
                told.add(run.place)
                paths = [each.path for each in active]
                yield self.finding(
                    f"{run.job} ran {quoted(paths, 3)} with training=True, so that what it returns"
                    " is random.",
                    place=run.place,
                    module=paths[0],
                    evidence={"layers": paths},
                    fix="pass training on: layer(x, training=training), not training=True",
                )


__all__ = ["KerasRandomInPredict"]
