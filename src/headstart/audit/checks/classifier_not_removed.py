"""The backbone still has its last layer, the old classifier."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from headstart.audit import replay
from headstart.audit.check import Check
from headstart.audit.checks.feature_scale import first_trained
from headstart.audit.estimators import as_rows
from headstart.audit.events import Call, Fit, Pass
from headstart.audit.records import Finding
from headstart.audit.rows import ledger_of
from headstart.audit.scene import Scene

CLASSES = (10, 100, 200, 365, 1000, 1001, 8142, 10450, 11221, 11821, 18291, 21841, 21843)
"""Numbers of classes of the data sets that backbones are pre-trained on."""


@dataclass(frozen=True)
class _Old:
    used: Pass | None
    run: Pass
    layer: str
    width: int
    features: int
    softmax: bool


class ClassifierNotRemoved(Check):
    """The head learns from the class scores of pre-training instead of from features."""

    code: ClassVar[str] = "classifier-not-removed"
    cost: ClassVar[str] = (
        "accuracy: scores of the old classes carry less information than the features"
    )

    def __init__(self) -> None:
        self.found: dict[int, _Old] = {}
        self.looked: dict[int, int] = {}

    def on_pass(self, seen: Pass, scene: Scene) -> None:
        """Look where the inputs of a trained layer come from."""
        number = seen.network.number
        self.looked[number] = self.looked.get(number, 0) + 1
        if seen.grad and not seen.failed and number not in self.found and self.looked[number] <= 8:
            self._look(seen, scene)
        ledger_of(scene).note(seen)

    def _look(self, seen: Pass, scene: Scene) -> None:
        trained = first_trained(seen)
        if trained is None or not isinstance(trained[1], nn.Linear):
            return
        call, module, inside = trained
        if inside:
            run, before = seen, [c for c in seen.calls[: seen.calls.index(call)] if c.part.own]
            rows = replay.inputs_inside(seen, {"head": module}).get("head")
        else:
            rows = replay.rows_of(seen)
            source = None if rows is None else ledger_of(scene).source(rows.detach())
            if source is None or source.way != "rows":
                return
            run, before = source.seen, [c for c in source.seen.calls if c.part.own]
        old = _old_classifier(before, rows)
        if old is not None and rows is not None:
            layer, features, softmax = old
            width = int(rows.shape[1])
            self.found[seen.network.number] = _Old(seen, run, layer, width, features, softmax)

    def on_fit(self, seen: Fit, scene: Scene) -> None:
        """Look where the rows come from that an estimator is fitted to."""
        rows = as_rows(seen.x)
        source = None if rows is None else ledger_of(scene).source(rows)
        if rows is None or source is None or source.way != "rows":
            return
        number = source.seen.network.number
        old = _old_classifier([c for c in source.seen.calls if c.part.own], rows)
        if old is not None:
            layer, features, softmax = old
            self.found.setdefault(
                -1 - number,
                _Old(None, source.seen, layer, int(rows.shape[1]), features, softmax),
            )

    def finish(self, scene: Scene) -> Iterator[Finding]:
        """Yield one finding for every head."""
        for old in self.found.values():
            if old.used is not None and old.used.purpose != "training":
                continue
            what = "probabilities" if old.softmax else "class scores (logits)"
            yield self.finding(
                f"The head learns from the {old.width:,} {what} of '{old.layer}', the classifier of"
                f" pre-training, instead of the {old.features:,} features before it.",
                place=old.run.place,
                module=old.layer,
                confidence=0.95 if old.softmax or old.width >= 1000 else 0.75,
                evidence={
                    "width": old.width,
                    "features before": old.features,
                    "sum to one": old.softmax,
                },
                fix=f"backbone.{old.layer or 'fc'} = torch.nn.Identity()",
            )


def _old_classifier(before: list[Call], rows: Tensor | None) -> tuple[str, int, bool] | None:
    """Return the last layer, if it is a classifier: name, width of its input, softmax or not."""
    if not before or rows is None or rows.ndim != 2:
        return None
    last = before[-1]
    layer = last.part.ref()
    if not isinstance(layer, nn.Linear) or layer.out_features != rows.shape[1]:
        return None
    values = rows.detach().float()
    softmax = bool((values >= 0).all()) and bool(((values.sum(1) - 1).abs() < 1e-2).all())
    known = layer.out_features in CLASSES and layer.bias is not None
    if not softmax and not (known and layer.in_features > layer.out_features // 4):
        return None
    if not softmax and bool((values >= 0).all()):
        return None  # an activation follows: a hidden layer
    return last.part.name, layer.in_features, softmax


__all__ = ["ClassifierNotRemoved"]
