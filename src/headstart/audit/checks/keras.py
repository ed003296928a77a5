"""Keras: modes that are overridden, statistics that move, inputs and augmentation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from headstart.audit.check import Check
from headstart.audit.keras_watch import KerasInputs, KerasLayer, KerasRun
from headstart.audit.records import Finding
from headstart.audit.scene import Scene
from headstart.core.wording import quoted
from headstart.freezing.agreement import clear_improvement
from headstart.freezing.moments import Moments
from headstart.freezing.norm import drift_between


class KerasTrainingOverridden(Check):
    """``base(x, training=False)`` in a model's graph, and ``fit`` runs it in training mode."""

    code: ClassVar[str] = "keras-training-overridden"
    severity = "error"
    cost: ClassVar[str] = "accuracy: the moving statistics of the pre-training are lost"

    def finish(self, scene: Scene) -> Iterator[Finding]:
        """Yield one finding for every ``fit`` that did so."""
        for run in _runs(scene, "fit"):
            moved = [n for n in _norms(run) if n.asked is False and True in n.modes and n.moved > 0]
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


class KerasBatchNormMoved(Check):
    """Batch norm moves in a part of which every weight is frozen."""

    code: ClassVar[str] = "keras-batch-norm-moved"
    severity = "error"
    cost: ClassVar[str] = "accuracy: the moving statistics of the pre-training are lost"

    def finish(self, scene: Scene) -> Iterator[Finding]:
        """Yield one finding for every ``fit`` that moved such statistics."""
        for run in _runs(scene, "fit"):
            moved = [n for n in _norms(run) if n.moved > 0 and _frozen_around(run, n)]
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


class KerasRandomInPredict(Check):
    """Augmentation or dropout that is active in ``predict`` or ``evaluate``."""

    code: ClassVar[str] = "keras-random-in-predict"
    cost: ClassVar[str] = "predictions change from call to call"

    def finish(self, scene: Scene) -> Iterator[Finding]:
        """Yield one finding for every job with a random layer in training mode."""
        told = set()
        for run in (*_runs(scene, "predict"), *_runs(scene, "evaluate")):
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


class KerasInputMismatch(Check):
    """A base is given other numbers than in pre-training: the rescaling is missing."""

    code: ClassVar[str] = "keras-input-mismatch"
    cost: ClassVar[str] = "accuracy: the features answer to inputs they have never seen"

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


class KerasTrainableAfterCompile(Check):
    """Layers are unfrozen after ``compile``, whose optimizer does not know their weights."""

    code: ClassVar[str] = "keras-trainable-after-compile"
    severity = "error"
    cost: ClassVar[str] = "the change has no effect, or fit stops with 'Unknown variable'"

    def finish(self, scene: Scene) -> Iterator[Finding]:
        """Yield one finding for every ``fit`` after such a change."""
        for run in _runs(scene, "fit"):
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


def _runs(scene: Scene, job: str) -> Iterator[KerasRun]:
    return (run for run in scene.keras.runs if run.job == job)


def _norms(run: KerasRun) -> list[KerasLayer]:
    return [layer for layer in run.layers.values() if layer.statistics is not None]


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


def _drift(inputs: KerasInputs, moments: Moments) -> float:
    mean, variance = inputs.mean, inputs.variance
    return drift_between(inputs.layer, mean, variance, moments, eps=inputs.eps).symmetric_kl


def _rescaling(name: str, code: str) -> str:
    if "mean 0.5" in name:
        return "x = keras.layers.Rescaling(1 / 127.5, offset=-1)(x)"
    if name == "divided by 255" or "with pixels of 0..1" in name:
        return "x = keras.layers.Rescaling(1 / 255)(x)"
    return code.replace("torchvision.transforms.functional.normalize", "normalise")


__all__ = [
    "KerasBatchNormMoved",
    "KerasInputMismatch",
    "KerasRandomInPredict",
    "KerasTrainableAfterCompile",
    "KerasTrainingOverridden",
]
