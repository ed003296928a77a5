"""The commands that follow from a comparison: its advice, for the same data and network."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.commands.backbone_spec import BackboneSpec
from headstart.commands.sources import DataOptions
from headstart.data import Inputs
from headstart.study import Comparison, Outcome
from headstart.study.recommendation import preprocessing_options

_NAMES = {"crop_fraction": "crop"}
"""Options of the command line whose name is not that of the value."""
_UNSAID = "resize"
"""The one value of a preprocessing that no option sets."""


@dataclass(frozen=True)
class Asked:
    """What the user asked for, as far as a command has to repeat it.

    Attributes:
        data: the source; anything but text or a path is called DATA.
        options: how the data is read.
        spec: how the backbone is built.
        preprocessing: the backbone's own, before any configuration changed it.
        seed, on_bad, precision, epochs: of the study.
    """

    data: Any
    options: DataOptions
    spec: BackboneSpec
    preprocessing: Inputs
    seed: int
    on_bad: str
    precision: str
    epochs: int | None


def next_commands(asked: Asked, comparison: Comparison) -> tuple[str, ...]:
    """Return a command for the recommendation, where one can express it, and for fine-tuning.

    Fine-tuning is named where it gains more than noise.
    """
    if asked.spec.own_module:
        return ()
    commands = [_fit(asked, comparison), _finetune(asked, comparison)]
    return tuple(" ".join(words) for words in commands if words)


def _fit(asked: Asked, comparison: Comparison) -> list[str]:
    name = comparison.recommendation.configuration
    if name is None:
        return []
    chosen = comparison.evidence.frozen_outcome(name)
    measured = chosen.task.function.measured_statistics
    if measured or not chosen.cacheable or not _can_be_said(asked, chosen):
        return []
    words = ["headstart", "fit", *_source(asked), *_backbone(asked, chosen)]
    words += ["--precision", asked.precision] if asked.precision != "float32" else []
    return words + (["--head", "mlp"] if chosen.head.kind == "mlp" else [])


def _finetune(asked: Asked, comparison: Comparison) -> list[str]:
    better = [o for o in comparison.evidence.tuned if o.gains and _can_be_said(asked, o)]
    if not better:
        return []
    best = max(better, key=lambda outcome: outcome.accuracy.value)
    words = ["headstart", "finetune", *_source(asked), *_backbone(asked, best)]
    words += ["--recipe", shlex.quote(str(best.task.configuration.recipe))]
    return words + ([] if asked.epochs is None else ["--epochs", str(asked.epochs)])


def _can_be_said(asked: Asked, outcome: Outcome) -> bool:
    wanted = outcome.task.function.preprocessing
    return _UNSAID not in asked.preprocessing.differences(wanted)


def _source(asked: Asked) -> list[str]:
    """Return the data and the options that read and divide it as the study did."""
    if not isinstance(asked.data, str | Path):
        return ["DATA"]
    words, options = [shlex.quote(str(asked.data))], asked.options
    if options.image_column is not None:
        words += ["--image-column", shlex.quote(options.image_column)]
    if options.label_column is not None:
        words += ["--label-column", shlex.quote(options.label_column)]
    if options.test_fraction != DataOptions().test_fraction:
        words += ["--test-fraction", repr(options.test_fraction)]
    if asked.on_bad != "raise":
        words += ["--bad-files", asked.on_bad]
    return words + (["--seed", str(asked.seed)] if asked.seed else [])


def _backbone(asked: Asked, outcome: Outcome) -> list[str]:
    """Return the options that build the backbone of an outcome again."""
    spec = asked.spec
    words = ["--backbone", shlex.quote(spec.source)]
    if spec.weights is not None:
        words += ["--weights", shlex.quote(spec.weights)]
    if spec.model_args:
        words += ["--model-args", shlex.quote(json.dumps(dict(spec.model_args)))]
    layer, pooling = outcome.task.cut
    words += ["--layer", shlex.quote(layer)] if layer else []
    words += ["--pooling", pooling] if layer and pooling != "avg" else []
    return words + _preprocessing(asked, outcome.task.function.preprocessing)


def _preprocessing(asked: Asked, wanted: Inputs) -> list[str]:
    """Return what differs from the weights' own preprocessing, by the user or by the advice."""
    changed = preprocessing_options(asked.preprocessing, wanted)
    said = {option.split()[0] for option in changed}
    own = {
        f"--{_NAMES.get(key, key)}": value
        for key, value in asked.spec.preprocessing.items()
        if value is not None and key != _UNSAID
    }
    given = [f"{name} {_text(value)}" for name, value in own.items() if name not in said]
    return [*given, *changed]


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        parts = [str(part) for part in value]
        return parts[0] if len(set(parts)) == 1 else ",".join(parts)
    return str(value)


__all__ = ["Asked", "next_commands"]
