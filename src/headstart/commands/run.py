"""The outcome of a job in memory, and what ``run.json`` and ``metrics.json`` say of it."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from headstart.backbones import Backbone
from headstart.commands.hands_on import HandsOn
from headstart.commands.invocation import Commands
from headstart.commands.kept_rows import KeptRows
from headstart.commands.run_description import FORMAT
from headstart.commands.run_facts import accuracy_of, main_score
from headstart.commands.run_methods import RunMethods, memory_facts, run_card
from headstart.commands.scoring import AnyEvaluation
from headstart.commands.settings import BackboneSpec
from headstart.commands.training_items import Ids, describe_training_items
from headstart.commands.tuned import describe_tuned
from headstart.core.cards import Card
from headstart.core.records import (
    Baseline,
    CacheUse,
    Curve,
    Evaluation,
    NamedScore,
    Reference,
    to_plain,
)
from headstart.data.table_columns import Encodings
from headstart.export.predictor import Predictor
from headstart.heads import Head
from headstart.heads.held_out import Calibration
from headstart.heads.outliers import Outliers


@dataclass(frozen=True, eq=False, repr=False)
class Run(RunMethods, HandsOn):
    """The outcome of ``fit``, ``sweep`` or ``finetune``.

    Attributes:
        head: the trained head; ``run.predict`` needs it together with ``backbone``.
        classes: class names, in the order of the head's probabilities; names of the labels or
            targets of another task.
        evaluation: scores on the test split; None if there was nothing to evaluate on.
        baselines: figures to beat, on the same test items.
        curves: how the head was chosen or trained.
        configuration: every setting, in plain values.
        environment: versions, machine, time.
        fingerprints: content digests of the data and of the backbone up to the cut.
        cache: rows found and rows computed.
        seconds: wall time by step: ``load``, ``extract``, ``fit``, ``evaluate``, ``total``.
        images_per_second: rate of extraction; None if nothing was computed.
        n_train, n_test: items used.
        notes: what was decided on the user's behalf.
        spec: how to build the backbone again.
        backbone: the backbone itself.
        folder: where the run was written; None if it was not.
        training: stages and epochs of a fine-tuning, in plain values; empty for a frozen backbone.
        tuned: the tensors of the backbone that a fine-tuning has changed, by name.
        commands: the command that made the run, and those that may follow.
        trained_on: content ids of the items that trained it (``train``) or chose its best epoch
            (``validation``).
        rows: its items with their features, so that others can join it; None: not kept.
        columns: how columns of a table join the features; empty where none do.
        extraction: seconds by stage, and what each stage could do, in plain values; empty where
            nothing was computed.
        calibration: scores of held-out training items, which sets of a coverage are made of.
        uncalibrated: why there are none.
        outliers: what tells items that are unlike the training items; None: not asked for.
        around: the tested items with their features and those that trained; None: not at hand.
    """

    head: Head
    classes: tuple[str, ...]
    evaluation: AnyEvaluation
    baselines: tuple[Baseline | Reference, ...]
    curves: tuple[Curve, ...]
    configuration: Mapping[str, Any]
    environment: Mapping[str, Any]
    fingerprints: Mapping[str, Any]
    cache: CacheUse
    seconds: Mapping[str, float]
    images_per_second: float | None
    n_train: int
    n_test: int
    notes: tuple[str, ...]
    spec: BackboneSpec
    backbone: Backbone = field(repr=False)
    folder: Path | None = None
    training: Mapping[str, Any] = field(default_factory=dict, repr=False)
    tuned: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    commands: Commands = field(default=Commands(), repr=False)
    trained_on: Ids = field(default_factory=dict, repr=False)
    rows: KeptRows | None = field(default=None, repr=False)
    columns: Encodings = ()
    extraction: Mapping[str, Any] = field(default_factory=dict, repr=False)
    calibration: Calibration | None = field(default=None, repr=False)
    uncalibrated: str = ""
    outliers: Outliers | None = field(default=None, repr=False)
    around: Any = field(default=None, repr=False)

    def card(self) -> Card:
        """Return what there is to see: scores, classes, items, where it is."""
        layer = self.backbone.layer
        name = self.backbone.name if layer is None else f"{self.backbone.name} up to {layer}"
        return run_card(self, name, self.evaluation, memory_facts(self))

    @property
    def accuracy(self) -> float:
        """Accuracy on the test split, a fraction in [0, 1].

        Raises:
            DataError: the task has none.
        """
        return accuracy_of(self.evaluation)

    @property
    def task(self) -> str:
        """What the head predicts: ``classification``, ``multi-label`` or ``regression``."""
        return self.head.task

    @property
    def score(self) -> NamedScore:
        """The figure that runs of this task are compared by, on the test split."""
        return main_score(self.evaluation)

    def predictor(self) -> Predictor:
        """Return what predicts: backbone, head, and what the features depend on."""
        made = self.configuration
        return Predictor(
            self.head,
            self.classes,
            self.backbone,
            made["precision"],
            made["storage"],
            made.get("value_range"),
            self.columns,
        )

    def show_mistakes(self, most: int = 24, **how: Any) -> Any:
        """Return the worst mistakes; see :func:`headstart.commands.mistakes.show_mistakes`."""
        # By name: it opens runs, and this module is what it opens.
        return importlib.import_module("headstart.commands.mistakes").show_mistakes(
            self, most, **how
        )

    def metrics(self) -> dict[str, Any]:
        """Return what ``metrics.json`` holds."""
        return {
            **(
                {"accuracy": self.accuracy}
                if isinstance(self.evaluation, Evaluation)
                else {
                    "task": self.task,
                    "score": self.score.score.value,
                    "score_name": self.score.name,
                }
            ),
            "n_train": self.n_train,
            "n_test": self.n_test,
            "seconds": {key: round(value, 3) for key, value in self.seconds.items()},
            "images_per_second": self.images_per_second,
            "cache": to_plain(self.cache),
            "evaluation": to_plain(self.evaluation),
            "baselines": to_plain(self.baselines),
            **({"training": to_plain(dict(self.training))} if self.training else {}),
        }

    def description(self) -> dict[str, Any]:
        """Return what ``run.json`` holds."""
        return {
            "format": FORMAT,
            "backbone": self.spec.plain(),
            "about": to_plain(self.backbone.about),
            "built_from": to_plain(self.backbone.origin.get("files", {})),
            "task": self.task,
            "items": self.backbone.inputs.kind,
            "classes": list(self.classes),
            "configuration": to_plain(dict(self.configuration)),
            "fingerprints": to_plain(dict(self.fingerprints)),
            "environment": to_plain(dict(self.environment)),
            "notes": list(self.notes),
            "training_items": describe_training_items(self.trained_on),
            "command": self.commands.made,
            **({"columns": to_plain(self.columns)} if self.columns else {}),
            **({"tuned": describe_tuned(self.tuned)} if self.tuned else {}),
            **({"extraction": to_plain(dict(self.extraction))} if self.extraction else {}),
            **({"uncalibrated": self.uncalibrated} if self.uncalibrated else {}),
        }


__all__ = [
    "Run",
]
