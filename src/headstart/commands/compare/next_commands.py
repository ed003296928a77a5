"""The commands that follow from a comparison: its advice, for the same data and network."""

from __future__ import annotations

import dataclasses
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.commands.backbone_spec import INPUTS
from headstart.commands.settings import BackboneSpec, ReadOptions, RunOptions
from headstart.core.settings import command_line
from headstart.data import Inputs
from headstart.study import Comparison, Outcome


@dataclass(frozen=True)
class Asked:
    """What the user wants, as far as a command has to repeat it.

    Attributes:
        data: the source; anything but text or a path is called DATA.
        reading: how the data is read.
        spec: how the backbone is built.
        run: the shared settings.
        inputs: the backbone's own, before any configuration changed it.
        epochs: of the study.
    """

    data: Any
    reading: ReadOptions
    spec: BackboneSpec
    run: RunOptions
    inputs: Inputs
    epochs: int | None


def next_commands(asked: Asked, comparison: Comparison) -> tuple[str, ...]:
    """Return a command for the recommendation, where one can express it, and for fine-tuning.

    Fine-tuning is named where it gains more than noise.
    """
    if asked.spec.own_module:
        return ()
    commands = [_fit(asked, comparison), _finetune(asked, comparison)]
    return tuple(shlex.join(words) for words in commands if words)


def _fit(asked: Asked, comparison: Comparison) -> list[str]:
    name = comparison.recommendation.configuration
    if name is None:
        return []
    chosen = comparison.evidence.frozen_outcome(name)
    measured = chosen.case.function.measured_statistics
    if measured or not chosen.cacheable or not _can_be_said(asked, chosen):
        return []
    words = ["headstart", "fit", *_source_and_backbone(asked, chosen)]
    precision = asked.run.precision
    words += ["--precision", precision] if precision != "float32" else []
    return words + (["--head", chosen.head.kind] if chosen.head.kind != "linear" else [])


def _finetune(asked: Asked, comparison: Comparison) -> list[str]:
    better = [o for o in comparison.evidence.tuned if o.gains and _can_be_said(asked, o)]
    if not better:
        return []
    best = max(better, key=lambda outcome: outcome.accuracy.value)
    words = ["headstart", "finetune", *_source_and_backbone(asked, best)]
    words += ["--recipe", str(best.case.configuration.recipe)]
    return words + ([] if asked.epochs is None else ["--epochs", str(asked.epochs)])


def _can_be_said(asked: Asked, outcome: Outcome) -> bool:
    wanted = outcome.case.function.inputs
    return set(asked.inputs.differences(wanted)) <= set(INPUTS)


def _source_and_backbone(asked: Asked, outcome: Outcome) -> list[str]:
    """Return the data and the backbone of an outcome, read and built as the study did."""
    named = isinstance(asked.data, str | Path)
    how = command_line(asked.reading, RunOptions(seed=asked.run.seed, on_bad=asked.run.on_bad))
    words = [str(asked.data), *how] if named else ["DATA"]
    spec = _spec_of(asked, outcome)
    return [
        *words,
        "--backbone",
        spec.source,
        *command_line(dataclasses.replace(spec, source=BackboneSpec().source)),
    ]


def _spec_of(asked: Asked, outcome: Outcome) -> BackboneSpec:
    """Return how to build the backbone of an outcome: as asked, but for what it changed."""
    layer, pooling = outcome.case.cut
    changed = asked.inputs.differences(outcome.case.function.inputs)
    pooled = pooling if layer and pooling != "avg" else None
    return dataclasses.replace(asked.spec.with_inputs(changed), layer=layer, pooling=pooled)


__all__ = ["Asked", "next_commands"]
