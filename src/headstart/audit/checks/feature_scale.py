"""A linear head gets features whose scales are far apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from headstart.audit import replay
from headstart.audit.check import Check
from headstart.audit.estimators import as_rows
from headstart.audit.events import Call, Fit, Pass
from headstart.audit.records import Finding
from headstart.audit.rows import ledger_of
from headstart.audit.scene import Scene
from headstart.core.devices import doubled
from headstart.freezing.moments import Moments

PASSES = 8
"""Passes whose features are measured."""
ROWS = 16
APART = 100.0
"""Standard deviations of the 90th and the 10th percentile that lie so far apart are wild."""
LARGE = 30.0
"""So is a typical standard deviation larger than this, or smaller than its reciprocal."""


SENSITIVE = (
    "LogisticRegression",
    "LogisticRegressionCV",
    "SGDClassifier",
    "LinearSVC",
    "SVC",
    "KNeighborsClassifier",
    "MLPClassifier",
)
"""Estimators of scikit-learn whose result depends on the scale of each feature."""


@dataclass
class _Head:
    layer: str
    passes: list[tuple[Pass, Moments]]


class FeatureScale(Check):
    """Unnormalised features of very different scales reach a linear layer that is trained."""

    code: ClassVar[str] = "wild-feature-scale"
    cost: ClassVar[str] = "accuracy and time: no learning rate suits all features"

    def __init__(self) -> None:
        self.heads: dict[int, _Head] = {}
        self.fits: dict[str, tuple[Fit, Tensor]] = {}

    def on_pass(self, seen: Pass, scene: Scene) -> None:
        """Measure what the first trained layer gets, if frozen features come before it."""
        ledger = ledger_of(scene)
        if seen.grad and not seen.failed:
            head = self.heads.get(seen.network.number)
            if head is None or len(head.passes) < PASSES:
                self._measure(seen, scene)
        ledger.note(seen)

    def _measure(self, seen: Pass, scene: Scene) -> None:
        found = first_trained(seen)
        if found is None or not isinstance(found[1], nn.Linear):
            return
        call, module, after_frozen = found
        rows = replay.rows_of(seen)
        if after_frozen:
            rows = replay.inputs_inside(seen, {"head": module}).get("head")
        elif rows is None or (
            ledger_of(scene).source(rows.detach()) is None and not _cached(scene)
        ):
            return
        if rows is None or rows.ndim != 2 or not rows.is_floating_point():
            return
        head = self.heads.setdefault(seen.network.number, _Head(call.part.name, []))
        head.passes.append((seen, Moments.of(rows.detach())))

    def on_fit(self, seen: Fit, scene: Scene) -> None:
        """Measure what a linear model of scikit-learn is fitted to, if a network put it out."""
        rows = as_rows(seen.x) if seen.kind in SENSITIVE and seen.kind not in self.fits else None
        if rows is not None and len(rows) >= ROWS and ledger_of(scene).source(rows) is not None:
            self.fits[seen.kind] = (seen, doubled(rows).var(0).sqrt())

    def finish(self, scene: Scene) -> Iterator[Finding]:
        """Yield one finding for every head."""
        for kind, (fit, deviation) in self.fits.items():
            found = _wild(deviation)
            if found is not None:
                yield self.finding(
                    f"The features that {kind} is fitted to are not normalised: {found[0]}.",
                    place=fit.place,
                    module=kind,
                    confidence=0.8,
                    evidence=found[1],
                    fix=f"sklearn.pipeline.make_pipeline(StandardScaler(), {kind}())",
                )
        for head in self.heads.values():
            passes = [(seen, m) for seen, m in head.passes if seen.purpose == "training"]
            if not passes:
                continue
            moments = passes[0][1]
            for _, more in passes[1:]:
                moments = moments.merge(more)
            if moments.count < ROWS:
                continue
            said = _wild(moments.variance.sqrt())
            if said is None:
                continue
            what, evidence = said
            seen = passes[0][0]
            yield self.finding(
                f"The head's features are not normalised: {what}.",
                place=seen.place,
                module=head.layer,
                confidence=0.8,
                evidence=evidence,
                fix="head = torch.nn.Sequential(torch.nn.BatchNorm1d(width, affine=False), head)",
            )


def first_trained(seen: Pass) -> tuple[Call, nn.Module, bool] | None:
    """Return the first module with trainable parameters of its own, and whether frozen ones, or
    ones that ran without autograd, come before it.
    """
    frozen = False
    for call in seen.calls:
        module = call.part.ref()
        if module is None or not call.part.own:
            continue
        if call.grad and any(p.requires_grad for p in module.parameters(recurse=False)):
            return call, module, frozen
        frozen = True
    return None


def _cached(scene: Scene) -> bool:
    """Whether features were extracted before, by a network that nothing trains."""
    return any(True for _ in scene.passes_for("extraction"))


def _wild(deviation: Tensor) -> tuple[str, dict[str, float]] | None:
    varying = deviation[deviation > 1e-6 * deviation.max().clamp_min(1e-12)]
    if len(varying) < 4:
        return None
    points = torch.tensor([0.1, 0.5, 0.9], dtype=varying.dtype)
    low, median, high = (float(v) for v in torch.quantile(varying, points))
    evidence = {"10th percentile": low, "median": median, "90th percentile": high}
    if high > APART * low:
        return f"their standard deviations lie a factor of {high / low:,.0f} apart", evidence
    if median > LARGE or median < 1 / LARGE / 10:
        return f"their standard deviation is {median:.3g}", evidence
    return None


__all__ = ["FeatureScale", "first_trained"]
