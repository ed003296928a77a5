"""A base gets inputs in another range than in pre-training: the rescaling is missing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from headstart.audit.check import Check
from headstart.audit.keras_watch import KerasInputs
from headstart.audit.records import Finding
from headstart.audit.scene import Scene
from headstart.freezing.agreement import clear_improvement
from headstart.freezing.drifts import drift_between
from headstart.freezing.moments import Moments


class KerasInputMismatch(Check):
    """A base gets inputs in another range than in pre-training: the rescaling is missing."""

    code: ClassVar[str] = "keras-input-mismatch"
    cost: ClassVar[str] = "accuracy: the base gets inputs unlike any it was trained on"

    def finish(self, scene: Scene) -> Iterator[Finding]:
        """Yield one finding for every model that a correction suits clearly better."""
        for run in scene.keras.runs:
            found = run.inputs
            if found is None or found.given is None:
                continue
            layer = found.layer
            given = _drift(found, found.given)
            trials = [_drift(found, each) for each in found.changed if each is not None]
            at = clear_improvement(given, trials)
            if at is None:
                continue
            best = found.tried[at]
            yield self.finding(
                f"The inputs do not match the pre-training: {best.name}, they lower the drift of"
                f" '{layer}' from {given:.3g} to {trials[at]:.2g} nats.",
                place=run.place,
                module=layer,
                severity="error" if given > 100 * trials[at] else "warning",
                evidence={
                    "mistake": best.mistake,
                    "correction": best.name,
                    "drift as given": round(given, 4),
                    "drift corrected": round(trials[at], 4),
                    "images": found.rows,
                },
                fix=_rescaling(best.name, best.code),
            )
            return


def _drift(inputs: KerasInputs, moments: Moments) -> float:
    mean, variance = inputs.mean, inputs.variance
    return drift_between(inputs.layer, mean, variance, moments, eps=inputs.eps).symmetric_kl


def _rescaling(name: str, code: str) -> str:
    if "mean 0.5" in name:
        return "x = keras.layers.Rescaling(1 / 127.5, offset=-1)(x)"
    if name == "divided by 255" or "with pixels of 0..1" in name:
        return "x = keras.layers.Rescaling(1 / 255)(x)"
    return code.replace("torchvision.transforms.functional.normalize", "normalise")


__all__ = ["KerasInputMismatch"]
