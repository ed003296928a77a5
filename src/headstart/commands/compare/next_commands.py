"""The commands that follow from a comparison: its advice, for the same data and network."""

from __future__ import annotations

import dataclasses
from typing import Any

from headstart.commands.backbone_spec import INPUTS
from headstart.commands.invocation import Call
from headstart.commands.settings import BackboneSpec
from headstart.data import Inputs
from headstart.study import Comparison, Outcome


def next_commands(
    call: Call, spec: BackboneSpec, inputs: Inputs, comparison: Comparison
) -> tuple[str, ...]:
    """Return a command for the recommendation, where one can express it, and for fine-tuning.

    Fine-tuning is named where it gains more than noise.

    Args:
        call: that was made.
        spec: how its backbone is built.
        inputs: the backbone's own, before any configuration changed it.
        comparison: what came of it.
    """
    if spec.own_module:
        return ()
    said = _Said(call, spec, inputs)
    return (*said.fit(comparison), *said.finetune(comparison))


@dataclasses.dataclass(frozen=True)
class _Said:
    call: Call
    spec: BackboneSpec
    inputs: Inputs

    def fit(self, comparison: Comparison) -> tuple[str, ...]:
        name = comparison.recommendation.configuration
        if name is None:
            return ()
        chosen = comparison.evidence.frozen_outcome(name)
        measured = chosen.case.function.measured_statistics
        if measured or not chosen.cacheable or not self._can_be_said(chosen):
            return ()
        head: dict[str, Any] = {"head": chosen.head.kind, "head_options": dict(chosen.head.options)}
        return (self.call.then("fit", backbone=self._spec_of(chosen), **head),)

    def finetune(self, comparison: Comparison) -> tuple[str, ...]:
        better = [o for o in comparison.evidence.tuned if o.gains and self._can_be_said(o)]
        if not better:
            return ()
        best = max(better, key=lambda outcome: outcome.accuracy.value)
        command = self.call.then(
            "finetune",
            backbone=self._spec_of(best),
            recipe=str(best.case.configuration.recipe),
            epochs=self.call.config.epochs,
        )
        return (command,)

    def _can_be_said(self, outcome: Outcome) -> bool:
        wanted = outcome.case.function.inputs
        return set(self.inputs.differences(wanted)) <= set(INPUTS)

    def _spec_of(self, outcome: Outcome) -> BackboneSpec:
        """Return how to build the backbone of an outcome: as asked, but for what it changed."""
        layer, pooling = outcome.case.cut
        changed = self.inputs.differences(outcome.case.function.inputs)
        pooled = pooling if layer and pooling != "avg" else None
        return dataclasses.replace(self.spec.with_inputs(changed), layer=layer, pooling=pooled)


__all__ = ["next_commands"]
