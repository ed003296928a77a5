"""The model calls ``base(x, training=False)``, but ``fit`` runs the base in training mode."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from headstart.audit.check import Check
from headstart.audit.records import Finding
from headstart.audit.scene import Scene
from headstart.core.wording import quoted


class KerasTrainingOverridden(Check):
    """The model calls ``base(x, training=False)``, but ``fit`` runs the base in training mode."""

    code: ClassVar[str] = "keras-training-overridden"
    severity = "error"
    cost: ClassVar[str] = "accuracy: the moving statistics of pre-training are lost"

    def finish(self, scene: Scene) -> Iterator[Finding]:
        """Yield one finding for every ``fit`` that did so."""
        for run in scene.keras.jobs("fit"):
            moved = [n for n in run.norms() if n.asked is False and True in n.modes and n.moved > 0]
            if moved:
                worst = max(moved, key=lambda norm: norm.moved)
                yield self.finding(
                    f"The graph calls {quoted([n.path for n in moved], 3)} with training=False, and"
                    " fit ran it with training=True all the same (Keras overrides it); moving"
                    f" means shifted by up to {worst.moved:.2g} standard deviations.",
                    place=run.place,
                    module=worst.path,
                    evidence={
                        "moved, in standard deviations": {n.path: round(n.moved, 4) for n in moved}
                    },
                    fix='headstart.freeze(model, {base: "trainable-fixed-norm"}); model.compile(…)',
                )


__all__ = ["KerasTrainingOverridden"]
