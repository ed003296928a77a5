"""Fine-tuning within a study: a fresh copy of the backbone in every repetition.

Training is a room beside this one, so the study is given a :class:`Tuner`, and knows no more of
it: ``headstart.commands.compare.job`` brings the real one.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from headstart.backbones import Backbone
from headstart.core.errors import ConfigError, DataError
from headstart.core.progress import Reporter
from headstart.core.progress import Task as ProgressTask
from headstart.data import Dataset, Preprocessing
from headstart.study import network
from headstart.study.configuration import Configuration
from headstart.study.functions import Cut, Facts, function_of
from headstart.study.heads import Fitted, HeadSpec
from headstart.study.judge import Series, keep, kept
from headstart.study.material import Division, Ints, Material, digest_of
from headstart.study.plan import Key, PlannedTuning, Task, Tuning
from headstart.study.rows import RowMaker


class Tuner(Protocol):
    """Trains backbones by recipes."""

    def plan(self, backbone: Backbone, recipe: str, n_classes: int, epochs: int | None) -> Tuning:
        """Find a recipe, and whether it fits the network.

        Args:
            backbone: the network at its cut; left as it is.
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
            folder: for the state of an unfinished run, which the same call takes up again.
            reporter: told of the epochs, in tasks that count ``items``.
        """


def plan_tunings(
    configurations: Sequence[Configuration],
    cuts: Sequence[Cut],
    backbone: Backbone,
    n_classes: int,
    tuner: Tuner | None,
    epochs: int | None,
) -> dict[str, Tuning]:
    """Find the recipes of all configurations that fine-tune; all faults are reported together.

    Raises:
        ConfigError: recipes that are not there or do not fit, or no tuner.
    """
    faults: list[str] = []
    hints: list[str] = []
    found: dict[str, Tuning] = {}
    for configuration, cut in zip(configurations, cuts, strict=True):
        if configuration.recipe is None:
            continue
        if tuner is None:
            faults.append(f"'{configuration.name}': this study was given nothing that trains")
            hints.append("call headstart.commands.compare.job.compare, or pass tuner= to run_study")
            continue
        at = network.at_cuts(backbone, [cut])[0]
        try:
            found[configuration.name] = tuner.plan(at, configuration.recipe, n_classes, epochs)
        except ConfigError as error:
            faults += [f"'{configuration.name}': {fault}" for fault in error.faults]
            hints += [error.hint] if error.hint else []
    if faults:
        raise ConfigError(tuple(faults), hint=hints[0] if hints else None)
    return found


def tuned_tasks(
    configurations: Sequence[Configuration],
    cuts: Sequence[Cut],
    tunings: Mapping[str, Tuning],
    backbone: Backbone,
    facts: Facts,
) -> list[Task]:
    """Return the configurations that fine-tune as tasks; their function is that of the test."""
    return [
        Task(c, function_of(c, backbone, facts, 0), cut, tunings[c.name])
        for c, cut in zip(configurations, cuts, strict=True)
        if c.name in tunings
    ]


def check_tunable(material: Material) -> None:
    """Refuse data where no item can be held out to choose the epoch.

    Raises:
        DataError: it is so in some repetition.
    """
    if any(not len(division.validation) for division in material.divisions):
        raise DataError(
            "no training item can be held out to choose the best epoch of a fine-tuning",
            hint="a class needs at least two different items",
        )


def fine_tune(
    tasks: Sequence[Task],
    planned: Sequence[PlannedTuning],
    maker: RowMaker,
    tuner: Tuner,
    reporter: Reporter,
) -> dict[Key, Series]:
    """Train a fresh copy for every distinct configuration and repetition.

    A finished run is kept until the study is; an unfinished one goes on after its last epoch.

    Args:
        tasks: the configurations that fine-tune.
        planned: their part of the plan.
        maker: gives the items and the folder of the study's state.
        tuner: trains.
        reporter: shown progress over all runs, and every epoch.
    """
    first = {task.key(HeadSpec()): task for task in reversed(tasks)}
    series = {task.key(HeadSpec()): Series() for task in tasks}
    divisions = maker.material.divisions
    total = sum(one.steps for one in planned)
    with reporter.task("fine-tuning", total, "images") as progress:
        for division in divisions:
            for key, one in series.items():
                task = first[key]
                assert task.tuning is not None
                name = digest_of("fine-tuning 1", maker.run_key(task, division), key[2])
                fitted = kept(maker.workspace, name)
                resumed = fitted is not None
                within = _Within(
                    reporter,
                    progress,
                    f"{task.name}, repetition {division.repetition + 1} of {len(divisions)}",
                )
                if fitted is None:
                    fitted = _run(task, task.tuning, name, maker, tuner, division, within)
                one.add(fitted, maker, division, resumed=resumed)
                items = maker.material.n_train - len(divisions[0].validation)
                within.finish(items * task.tuning.epochs)
    return series


def seconds_per_run(
    tasks: Sequence[Task],
    series: Mapping[Key, Series],
    rates: Mapping[str, float],
    maker: RowMaker,
    head: HeadSpec,
    sample: Ints,
) -> dict[str, float]:
    """Return what one repetition takes on its own, where something is fine-tuned.

    Args:
        tasks: all configurations.
        series: their runs, with the time of every training.
        rates: seconds an image of the forward pass, by configuration with a frozen backbone.
        maker: gives the items.
        head: of configurations without their own.
        sample: positions of training items that decoding is measured on.
    """
    if all(task.tuning is None for task in tasks):
        return {}
    found: dict[str, float] = {}
    decoding: dict[Preprocessing, float] = {}
    for task in tasks:
        trained = series[task.key(head)].seconds
        found[task.name] = sum(trained) / len(trained)
        if task.tuning is None:
            given, train = task.function.preprocessing, maker.material.train
            if given not in decoding:
                decoding[given] = maker.images.decode_seconds(train, sample, given)
            found[task.name] += maker.material.n_train * (decoding[given] + rates[task.name])
    return found


def _run(
    task: Task,
    tuning: Tuning,
    name: str,
    maker: RowMaker,
    tuner: Tuner,
    division: Division,
    reporter: Reporter,
) -> Fitted:
    copy = network.copied(maker.backbone)
    copy = dataclasses.replace(copy, preprocessing=task.function.preprocessing)
    folder = maker.workspace.subfolder(name)
    fitted = tuner.run(
        network.at_cuts(copy, [task.cut])[0],
        tuning,
        _dataset(maker.material, division),
        seed=division.seeds.head % 2**31,
        folder=folder,
        reporter=reporter,
    )
    keep(maker.workspace, name, fitted)
    maker.workspace.remove_subfolder(name)
    return fitted


def _dataset(material: Material, division: Division) -> Dataset:
    """Return the items of one repetition, with those that choose the epoch as a split."""
    held = np.zeros(len(division.train), dtype=bool)
    held[division.validation] = True
    splits = {
        "train": material.train.take(division.train[~held]),
        # In the order of the division, since predictions are judged in it.
        "validation": material.train.take(division.train[division.validation]),
        "test": material.test.take(division.test),
    }
    return Dataset(material.name, material.classes, splits)


class _Within:
    """A reporter that counts the images of training in the task that is shown, and tells epochs."""

    def __init__(self, outer: Reporter, shown: ProgressTask, name: str) -> None:
        self._outer, self._shown, self._name = outer, shown, name
        self._training = False
        self._done = 0

    def note(self, text: str) -> None:
        """Tell what is said while training; the rest repeats what the study has told."""
        if self._training:
            self._outer.note(f"{self._name}: {text}")

    @contextlib.contextmanager
    def task(self, name: str, total: int, unit: str) -> Iterator[ProgressTask]:  # noqa: ARG002
        """Count what trains; other units are steps before and after it."""
        self._training = unit == "items"
        try:
            yield self if self._training else _Nothing()
        finally:
            self._training = False

    def advance(self, count: int = 1) -> None:
        """Count images that were trained on."""
        self._done += count
        self._shown.advance(count)

    def finish(self, total: int) -> None:
        """Count what early stopping, or an interrupted run, has spared."""
        self.advance(max(0, total - self._done))


class _Nothing:
    def advance(self, count: int = 1) -> None:
        pass


__all__ = [
    "Tuner",
    "check_tunable",
    "fine_tune",
    "plan_tunings",
    "seconds_per_run",
    "tuned_tasks",
]
