"""A pre-trained network gets images that differ from what it was trained on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from headstart.audit import replay
from headstart.audit.check import Check
from headstart.audit.checks.input_resolution import recorded
from headstart.audit.events import Pass
from headstart.audit.facts import Part
from headstart.audit.images import Images
from headstart.audit.records import Finding, Place, Severity
from headstart.audit.scene import Scene
from headstart.data.corrections import (
    NORMALISATIONS,
    SLIPS,
    Correction,
    Normalisation,
    code_for,
    corrections,
    could_have_made,
    triple,
)
from headstart.freezing.agreement import EARLY, clear_improvement, early_drift
from headstart.freezing.drifts import drift_between
from headstart.freezing.moments import Moments

ROWS = 48
"""Images of a network that are looked at."""
PER_PASS = 16
"""Images of one pass."""
FEW = 16
"""With fewer images only a correction that lowers the drift by :data:`MUCH` counts."""
MUCH = 4.0
LEAST = 8
"""Images that tell whether they are like the recorded ones."""
DARK = 90.0
"""The darkest of all pixels of several pictures is darker than this, in 0..255."""
WRONG = 100.0
"""Inputs whose drift a correction lowers so much make results wrong, not only worse."""


@dataclass
class _Trials:
    """What the early norms of a network were given, as it came and after each correction."""

    norms: tuple[Part, ...]
    place: Place
    tried: list[Correction]
    given: dict[int, Moments] = field(default_factory=dict)
    changed: list[dict[int, Moments]] = field(default_factory=list)
    rows: int = 0
    mean: float = 0.0
    low: float = float("inf")
    high: float = float("-inf")


class InputMismatch(Check):
    """Scale, normalisation, channel order or layout of the images differs from pre-training."""

    code: ClassVar[str] = "input-mismatch"
    cost: ClassVar[str] = "accuracy: the frozen layers get inputs unlike any they were trained on"

    def __init__(self) -> None:
        self.trials: dict[int, _Trials | None] = {}
        self.recorded: dict[int, tuple[Normalisation, Images]] = {}

    def on_pass(self, seen: Pass, scene: Scene) -> None:
        """Try the corrections on the first images of every network."""
        number = seen.network.number
        trials = self.trials.get(number)
        if seen.failed or (number in self.trials and (trials is None or trials.rows >= ROWS)):
            return
        images = replay.images_of(seen)
        if images is None or images.shape[1] not in (1, 3) or min(images.shape[2:]) < 8:
            return
        if trials is None:
            norms = replay.early_norms(seen, EARLY)
            if not norms:
                self._record(seen, images)
                return
            tried = list(corrections(images.detach()[:PER_PASS].float()))
            trials = _Trials(norms, seen.place, tried, changed=[{} for _ in tried])
            self.trials[number] = trials
        few = images.detach()[: min(PER_PASS, ROWS - trials.rows)]
        self._measure(seen, images, few, trials)

    def _record(self, seen: Pass, images: Tensor) -> None:
        """Measure the images of a network that says how its own were normalised."""
        module, number = seen.network.module, seen.network.number
        config = None if module is None else recorded(module)
        learnt = module is not None and any(not p.requires_grad for p in module.parameters())
        if config is None or images.shape[1] != 3 or not (learnt or not seen.training):
            self.trials[number] = None
            return
        before = self.recorded.get(number)
        measured = Images.of(seen, images[:PER_PASS])
        if before is not None:
            measured = before[1].merge(measured)
        mean, std = (tuple(float(v) for v in config[key]) for key in ("mean", "std"))
        name = "the recorded mean and standard deviation"
        self.recorded[number] = Normalisation(name, 1 / 255, triple(mean), triple(std)), measured
        if measured.rows >= ROWS:
            self.trials[number] = None

    def _unlike_recorded(self, scene: Scene) -> Iterator[Finding]:
        for number, (wanted, images) in self.recorded.items():
            pixels = wanted.undo(images.extremes())
            fits = could_have_made(wanted, images.extremes())
            if images.rows < LEAST or (fits and float(pixels.amin()) < DARK):
                continue
            # What made them instead: whatever gives pixels that reach down to the dark.
            was = next(
                (
                    each
                    for each in (*NORMALISATIONS, *SLIPS)
                    if could_have_made(each, images.extremes())
                    and float(each.undo(images.extremes()).amin()) < DARK
                ),
                None,
            )
            if was is None:
                continue
            kind = scene.networks[number].kind
            low, high = float(images.low.min()), float(images.high.max())
            yield self.finding(
                f"{kind} records mean {_short(wanted.mean)} and standard deviation"
                f" {_short(wanted.std)}, and gets {was.name}: {low:.3g} to {high:.3g}.",
                place=images.first.place,
                confidence=0.85,
                severity="error" if not 0.02 < was.scale / wanted.scale < 50 else "warning",
                evidence={
                    "recorded mean": list(wanted.mean),
                    "recorded std": list(wanted.std),
                    "given as": was.name,
                    "range": [low, high],
                    "images": images.rows,
                },
                fix=code_for(wanted),
            )

    def _measure(self, seen: Pass, images: Tensor, few: Tensor, trials: _Trials) -> None:
        modules = {str(i): m for i, p in enumerate(trials.norms) if (m := p.ref()) is not None}
        if len(modules) < len(trials.norms):
            return

        def run(changed: Tensor, into: dict[int, Moments]) -> None:
            reached: set[str] = set()

            def take(name: str, args: tuple[Any, ...], _kwargs: dict[str, Any]) -> bool:
                moments = Moments.of(args[0])
                at = int(name)
                into[at] = into[at].merge(moments) if at in into else moments
                reached.add(name)
                return len(reached) == len(modules)

            replay.run(
                seen,
                modules,
                take,
                evaluation=True,
                instead=(images, changed),
                statistics=trials.norms,
            )

        run(few, trials.given)
        wide = few.float()
        for correction, into in zip(trials.tried, trials.changed, strict=True):
            run(correction.apply(wide).to(few.dtype), into)
        trials.rows += len(few)
        trials.low = min(trials.low, float(few.min()))
        trials.high = max(trials.high, float(few.max()))
        trials.mean += float(few.float().mean()) * len(few)
        given = _drift(trials.norms, trials.given)
        # What does not help by now is not tried again.
        kept = [i for i, m in enumerate(trials.changed) if _drift(trials.norms, m) < given / 1.2]
        trials.tried = [trials.tried[i] for i in kept]
        trials.changed = [trials.changed[i] for i in kept]
        if not kept and trials.rows >= FEW:
            trials.rows = max(trials.rows, ROWS)

    def finish(self, scene: Scene) -> Iterator[Finding]:
        """Yield one finding for every network that a correction suits clearly better."""
        yield from self._unlike_recorded(scene)
        for number, trials in self.trials.items():
            if trials is None or not trials.tried:
                continue
            given = _drift(trials.norms, trials.given)
            changed = [_drift(trials.norms, moments) for moments in trials.changed]
            at = clear_improvement(given, changed)
            if at is None:
                continue
            factor = given / max(changed[at], 1e-9)
            if trials.rows < FEW and factor < MUCH:
                continue
            best, norm = trials.tried[at], trials.norms[0]
            severity: Severity = "error" if factor >= WRONG else "warning"
            network = scene.networks[number]
            yield self.finding(
                f"The inputs of {network.kind} do not match its pre-training"
                f" ({_SAID[best.mistake]}): {best.name}, they lower the drift of the first batch"
                f" norms from {given:.3g} to {changed[at]:.2g} nats.",
                place=trials.place,
                module=norm.name,
                severity=severity,
                confidence=min(0.99, 1 - 0.5 / factor),
                evidence={
                    "mistake": best.mistake,
                    "correction": best.name,
                    "drift as given": round(given, 4),
                    "drift by correction": {
                        each.name: round(drift, 4)
                        for each, drift in zip(trials.tried, changed, strict=True)
                    },
                    "layers": [part.name for part in trials.norms],
                    "images": trials.rows,
                    "range": [trials.low, trials.high],
                },
                fix=best.code,
            )


_SAID = {
    "scale": "different scale",
    "normalisation": "different mean and standard deviation",
    "channel-order": "different channel order",
    "layout": "different order of axes",
}


def _short(values: tuple[float, ...]) -> str:
    return f"{values[0]:g}" if len(set(values)) == 1 else f"{tuple(values)}"


def _drift(norms: tuple[Part, ...], moments: dict[int, Moments]) -> float:
    found = []
    for at, part in enumerate(norms):
        if at in moments:
            norm = part.ref()
            eps = float(getattr(norm, "eps", 1e-5))
            mean, var = part.first["running_mean"], part.first["running_var"]
            found.append(drift_between(part.name, mean, var, moments[at], eps=eps, worst=1))
    return early_drift(found) if found else 0.0


__all__ = ["InputMismatch"]
