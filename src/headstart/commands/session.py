"""What every job opens first: the cache, the data, the run folder; and what is said on the way."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.commands.run_place import prepare_folder
from headstart.commands.settings import ReadOptions, RunOptions
from headstart.core.errors import DataError
from headstart.core.progress import Clock
from headstart.core.records import INT8
from headstart.core.stages import Throughput
from headstart.core.wording import any_of, clean
from headstart.data import (
    Dataset,
    Split,
    load_data,
    load_items,
    load_parts,
    load_test_data,
    load_training_data,
)
from headstart.evaluation.tasks import TASKS

if TYPE_CHECKING:
    from torch import Tensor

    from headstart.backbones import Backbone
    from headstart.extraction import Extraction

_DIFFERENTLY = {
    "classification": "under more than one class",
    "multi-label": "with different labels",
    "regression": "with different values",
}
_LONG = 10.0
"""Seconds over all stages from which it is said which one binds."""


class Session:
    """One call of a command.

    Args:
        run: the shared settings of the call.

    Attributes:
        run: these settings.
        cache: the feature cache, open.
        reporter: where notes and progress go.
        clock: takes the time of the steps.
        notes: what has been said so far: decisions made on the user's behalf.
        throughput: what the stages of the extraction could do; None where nothing was computed.
    """

    def __init__(self, run: RunOptions) -> None:
        self.run = run
        self.cache = run.open_cache()
        self.reporter = run.open_reporter()
        self.clock = Clock()
        self.notes: list[str] = []
        self.throughput: Throughput | None = None
        self._data: Any = None

    def say(self, *notes: str) -> None:
        """Report notes, and keep them for the record of the run."""
        for note in notes:
            self.reporter.note(note)
        self.notes += notes

    def settle_precision(self, cuts: Sequence[Backbone], splits: Sequence[Split]) -> Extraction:
        """Settle ``precision='auto'`` for the run, and return how it extracts.

        From then on ``run`` has the precision that rows are computed in.
        """
        settings = self.cache.settled(self.run.extraction(), cuts, splits, self.reporter)
        self.run = dataclasses.replace(self.run, precision=settings.precision)
        return settings

    def calibrated(self, network: Backbone, train: Split) -> tuple[Backbone, Mapping[str, Tensor]]:
        """Return a network in the precision of the run, and what a run keeps of it for int8.

        Args:
            network: as it was loaded.
            train: training items, which alone decide the ranges of int8.

        Raises:
            MissingExtraError, BackboneError: it cannot run in int8.
        """
        if self.run.precision != INT8:
            return network, {}
        from headstart.cache.calibrated import calibrated_once

        found = calibrated_once(self.cache.store, network, train)
        self.say(str(found))
        return found.backbone, found.tensors()

    def say_what_binds(self, unit: str) -> None:
        """Say which stage of a long extraction was the slowest.

        Args:
            unit: what several items are called ("images").
        """
        found = self.throughput
        if found is not None and sum(found.seconds.values()) >= _LONG:
            self.say(found.verdict(unit))

    def open_dataset(
        self,
        source: Any,
        reading: ReadOptions,
        seed: int | None = None,
        *,
        kind: str | None = None,
        tasks: Sequence[str] = tuple(TASKS),
    ) -> Dataset:
        """Load a source, or take a data set unchanged, and say what is remarkable about it.

        Digests of files are looked up in the cache's memo: an unchanged file is not read again.

        Args:
            source: a :class:`~headstart.data.Dataset`, or what :func:`headstart.load_data` takes.
            reading: how to read it.
            seed: of the split that is set aside; None: the seed of the run.
            kind: of the inputs of the backbone, where that is known.
            tasks: those that the command is for; all, unless it says so.

        Raises:
            DataError: the data cannot be read, or are for another task.
        """
        self._data = source
        with self.cache.memo() as memo:
            dataset = (
                source
                if isinstance(source, Dataset)
                else load_data(
                    source,
                    **reading.where(),
                    kind=kind,
                    **reading.grouping(),
                    train=reading.train,
                    test=reading.test,
                    splits=reading.splits,
                    task=reading.task,
                    test_fraction=reading.test_fraction,
                    seed=self.run.seed if seed is None else seed,
                    digest_memo=memo,
                    reporter=self.reporter,
                )
            )
            self._require_task(dataset, tasks)
            leaks = dataset.leaks()
            contradictions = () if dataset.test_drawn else dataset.contradictions()
        self.say(*dataset.notes)
        if leaks:
            test, train = leaks[0]
            one = len(leaks) == 1
            self.say(
                f"{len(leaks):,} test {'item is' if one else 'items are'} also in the training"
                f" split (such as {test}, which is {train}): the score is too optimistic"
            )
        if contradictions:
            first, second = contradictions[0]
            one = len(contradictions) == 1
            self.say(
                f"{len(contradictions):,} {'item appears' if one else 'items appear'}"
                f" {_DIFFERENTLY[dataset.task]} (such as {first} and {second}); one of the labels"
                " must be wrong"
            )
        return dataset

    def _require_task(self, dataset: Dataset, tasks: Sequence[str]) -> None:
        """Refuse data of a task that a command is not for, after saying how it was found."""
        if dataset.task in tasks:
            return
        self.say(*(note for note in dataset.notes if note.startswith("Task: ")))
        raise DataError(
            f"this command is for {any_of(tasks)}, and the labels are for {dataset.task}",
            hint="fit, sweep, predict and evaluate take every task; task='classification' reads"
            " each label as a class",
        )

    def open_test_data(
        self, source: Any, reading: ReadOptions, *, kind: str | None = None
    ) -> Dataset:
        """Load labelled data to evaluate on."""
        self._data = source
        with self.cache.memo() as memo:
            dataset = load_test_data(
                source,
                **reading.where(),
                kind=kind,
                **reading.grouping(),
                test=reading.test,
                splits=reading.splits,
                task=reading.task,
                digest_memo=memo,
                reporter=self.reporter,
            )
            _ = dataset.test.ids
        return dataset

    def open_training_data(
        self, source: Any, reading: ReadOptions, *, kind: str | None = None
    ) -> Dataset:
        """Load labelled data, all of which trains."""
        self._data = source
        with self.cache.memo() as memo:
            dataset = load_training_data(
                source,
                **reading.where(),
                kind=kind,
                **reading.grouping(),
                train=reading.train,
                splits=reading.splits,
                task=reading.task,
                digest_memo=memo,
                reporter=self.reporter,
            )
            _ = dataset.train.ids
        return dataset

    def open_items(self, source: Any, reading: ReadOptions, *, kind: str | None = None) -> Split:
        """Load items to predict for, or take a split unchanged."""
        if isinstance(source, Split):
            return source
        with self.cache.memo() as memo:
            split = load_items(
                source,
                **reading.where(),
                kind=kind,
                digest_memo=memo,
                reporter=self.reporter,
            )
            _ = split.ids
        return split

    def open_parts(
        self,
        source: Any,
        reading: ReadOptions,
        *,
        kind: str | None = None,
        labelled: bool = False,
    ) -> Mapping[str, Split]:
        """Load the items of all splits of a source, labelled or not.

        Args:
            source: a split, a data set, or what :func:`headstart.load_items` takes.
            reading: how to read it.
            kind: of the inputs of the backbone, where that is known.
            labelled: whether labels are read where there are any.
        """
        if isinstance(source, Split):
            return {"all": source}
        if isinstance(source, Dataset):
            return source.splits
        with self.cache.memo() as memo:
            splits = load_parts(
                source,
                **reading.where(),
                kind=kind,
                labelled=labelled,
                task=reading.task,
                digest_memo=memo,
                reporter=self.reporter,
            )
            for split in splits.values():
                if not split.items.far:
                    _ = split.ids
        return splits

    def folder(self, name: str) -> Path | None:
        """Create the run folder before any work is done, and say where it is.

        None where nothing is to be written.

        A job that :func:`~headstart.commands.run_place.holds_folder` decorates keeps others out.

        Args:
            name: for the default folder ``runs/TIME-NAME``; made safe as a path.
        """
        if not self.run.write:
            return None
        folder = prepare_folder(self.run.out, name, self._data)
        self.reporter.note(f"run folder: {clean(folder)}")
        return folder


__all__ = ["Session"]
