"""Fine-tuning within a study: a fresh copy of the backbone in every repetition.

Training belongs to ``headstart.finetuning``, which this package does not import: a study receives
a :class:`Tuner`, and ``headstart.commands.compare`` brings the real one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from headstart.backbones import Backbone
from headstart.core.errors import ConfigError, DataError
from headstart.core.progress import Reporter
from headstart.data import Dataset, Inputs, decode_seconds
from headstart.study import network
from headstart.study.configurations import Configuration
from headstart.study.functions import Facts, cut_of, function_of
from headstart.study.heads import Fitted, HeadSpec
from headstart.study.judging import Series, train_all
from headstart.study.plan import Case, Key, PlannedTuning, Tuning
from headstart.study.repetitions import Repetition, StudyData
from headstart.study.rows import Bench, Within


class Tuner(Protocol):
    """Trains backbones by recipes."""

    def plan(self, backbone: Backbone, recipe: str, n_classes: int, epochs: int | None) -> Tuning:
        """Find a recipe, and whether it fits the network.

        Args:
            backbone: the network at its cut; not changed.
            recipe: a name, or a ``.toml`` file.
            n_classes: outputs of the head.
            epochs: of every stage, instead of the recipe's.

        Raises:
            ConfigError: no such recipe, or faults in it, all together.
        """

    def run(
        self,
        backbone: Backbone,
        tuning: Tuning,
        dataset: Dataset,
        *,
        seed: int,
        folder: Path,
        reporter: Reporter,
    ) -> Fitted:
        """Train a backbone in place, and predict with the best epoch.

        Args:
            backbone: a copy that nobody else uses.
            tuning: what :meth:`plan` returned.
            dataset: its validation split chooses the epoch; its test split is predicted once.
            seed: of the head's first weights, the order of the batches, dropout and mixing.
            folder: for the state of an unfinished run, which the same call continues.
            reporter: shown the epochs, in tasks that count ``items``.
        """


def plan_tunings(
    configurations: Sequence[Configuration],
    backbone: Backbone,
    n_classes: int,
    tuner: Tuner | None,
    epochs: int | None,
) -> dict[str, Tuning]:
    """Find the recipes of all configurations that fine-tune; all faults are reported together.

    Raises:
        ConfigError: recipes that do not exist or do not fit, or no tuner.
    """
    faults: list[str] = []
    hint: str | None = None
    found: dict[str, Tuning] = {}
    for configuration in configurations:
        if configuration.recipe is None:
            continue
        if tuner is None:
            faults.append(f"'{configuration.name}': this study was given nothing that trains")
            hint = hint or "call headstart.compare, or pass tuner= to run_study"
            continue
        (at,) = network.at_cuts(backbone, [cut_of(configuration, backbone)])
        try:
            found[configuration.name] = tuner.plan(at, configuration.recipe, n_classes, epochs)
        except ConfigError as error:
            faults += [f"'{configuration.name}': {fault}" for fault in error.faults]
            hint = hint or error.hint
    if faults:
        raise ConfigError(tuple(faults), hint=hint)
    return found


def tuned_cases(
    configurations: Sequence[Configuration],
    tunings: Mapping[str, Tuning],
    backbone: Backbone,
    facts: Facts,
    data: StudyData,
) -> list[Case]:
    """Return the configurations that fine-tune as cases; their function is that of the test.

    Raises:
        DataError: in some repetition no item can be held out to choose the epoch.
    """
    if tunings and any(not len(repetition.held_out) for repetition in data.repetitions):
        raise DataError(
            "no training item can be held out to choose the best epoch",
            hint="a class needs at least two different items",
        )
    return [
        Case(c, function_of(c, backbone, facts, 0), cut_of(c, backbone), tunings[c.name])
        for c in configurations
        if c.recipe is not None
    ]


def fine_tune(
    cases: Sequence[Case],
    planned: Sequence[PlannedTuning],
    bench: Bench,
    tuner: Tuner,
    reporter: Reporter,
) -> dict[Key, Series]:
    """Train a fresh copy for every distinct configuration in every repetition.

    A finished run is kept until the study is finished; an unfinished one goes on after its last
    epoch.

    Args:
        cases: the configurations that fine-tune.
        planned: their part of the plan.
        bench: network, items, and where runs are kept.
        tuner: trains.
        reporter: shown progress over all runs, and every epoch.
    """
    repetitions = bench.data.repetitions
    items, unit = bench.data.n_train - bench.data.n_held_out, bench.networks.backbone.inputs.unit
    with reporter.task("fine-tuning", sum(one.steps for one in planned), unit) as progress:

        def skip(case: Case) -> None:
            assert case.tuning is not None
            progress.advance(items * case.tuning.epochs)

        def train(case: Case, repetition: Repetition, name: str) -> Fitted:
            assert case.tuning is not None
            who = f"{case.name}, repetition {repetition.number + 1} of {len(repetitions)}"
            shown = Within(progress, "items", lambda text: reporter.note(f"{who}: {text}"))
            copy = dataclasses.replace(
                network.copied(bench.networks.backbone), inputs=case.function.inputs
            )
            fitted = tuner.run(
                network.at_cuts(copy, [case.cut])[0],
                case.tuning,
                bench.data.dataset(repetition),
                seed=repetition.seeds.head % 2**31,
                folder=bench.kept.folder(name),
                reporter=shown,
            )
            shown.finish(items * case.tuning.epochs)  # early stopping may have spared some
            return fitted

        return train_all(cases, bench, HeadSpec(), "fine-tuning 1", train, skip)


def seconds_per_run(
    cases: Sequence[Case],
    series: Mapping[Key, Series],
    rates: Mapping[str, float],
    data: StudyData,
    head: HeadSpec,
) -> dict[str, float]:
    """Return what one repetition takes on its own, where something is fine-tuned.

    Args:
        cases: all configurations.
        series: their trainings.
        rates: seconds per item of the forward pass, by configuration with a frozen backbone.
        data: the items, whose decoding is measured on the sample.
        head: of configurations without their own.
    """
    if all(case.tuning is None for case in cases):
        return {}
    found: dict[str, float] = {}
    decoding: dict[Inputs, float] = {}
    for case in cases:
        trained = [one.seconds for one in series[case.key(head)].fitted]
        found[case.name] = sum(trained) / len(trained)
        if case.tuning is None:
            given = case.function.inputs
            if given not in decoding:
                decoding[given] = decode_seconds(data.sample, given, workers=data.samples.workers)
            found[case.name] += data.n_train * (decoding[given] + rates[case.name])
    return found


__all__ = ["Tuner", "fine_tune", "plan_tunings", "seconds_per_run", "tuned_cases"]
