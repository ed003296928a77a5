"""The items of a study: which of them train and test in each repetition, decoded."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from headstart.core.arguments import Arguments
from headstart.core.division import stratified_split
from headstart.core.errors import ConfigError, DataError
from headstart.core.progress import Reporter
from headstart.core.row_keys import content_order
from headstart.core.wording import count as counted
from headstart.core.wording import verb
from headstart.data import Dataset, Inputs, Split, read_batches, unreadable
from headstart.data.reading import OnBad
from headstart.study.settings import CompareConfig

Ints = NDArray[np.int64]

HELD_OUT = 0.2
"""Share of the training items that configurations are chosen by."""

SAMPLE = 64
"""Training items that inputs and causes are measured on."""

MEMORY = 2**30
"""Decoded items are kept in memory up to this many bytes a split, else decoded in every pass."""


@dataclass(frozen=True)
class Seeds:
    """The independent seeds of one repetition.

    Attributes:
        split: of the test split; None where the data has its own.
        validation: of the training items that are held out.
        order: of the batches.
        chance: of dropout.
        head: of folds, initial weights and mini-batches.
    """

    split: int | None
    validation: int
    order: int
    chance: int
    head: int


@dataclass(frozen=True, eq=False)
class Repetition:
    """The items of one repetition.

    Attributes:
        number: from 0.
        seeds: what it was drawn with.
        train, test: ``(n,) int64``, positions in ``StudyData.train`` and ``StudyData.test``.
        held_out: ``(v,) int64``, positions in ``train`` of the items that choose.
    """

    number: int
    seeds: Seeds
    train: Ints
    test: Ints
    held_out: Ints


@dataclass(frozen=True, eq=False)
class StudyData:
    """Training and test items; one and the same split where the data has no test split of its own.

    Attributes:
        train, test: the splits that positions refer to.
        redrawn: whether every repetition draws its own test items.
        repetitions: at least one.
        sample: a few training items of the first repetition, which causes are measured on.
        classes: class names.
        name: of the data.
        samples: the decoded items.
    """

    train: Split
    test: Split
    redrawn: bool
    repetitions: tuple[Repetition, ...]
    sample: Split
    classes: tuple[str, ...]
    name: str
    samples: Samples

    @property
    def splits(self) -> tuple[Split, ...]:
        """The distinct splits."""
        return (self.train,) if self.redrawn else (self.train, self.test)

    @property
    def n_train(self) -> int:
        """Training items in a repetition."""
        return len(self.repetitions[0].train)

    @property
    def n_test(self) -> int:
        """Test items in a repetition."""
        return len(self.repetitions[0].test)

    @property
    def n_held_out(self) -> int:
        """Training items in a repetition that are held out to choose by."""
        return len(self.repetitions[0].held_out)

    def items(self, repetition: Repetition, part: str) -> tuple[Split, Ints]:
        """Return where the items of a part (``train``, ``validation`` or ``test``) are."""
        if part == "test":
            return self.test, repetition.test
        chosen = repetition.train if part == "train" else repetition.train[repetition.held_out]
        return self.train, chosen

    @property
    def task(self) -> str:
        """What the labels mean."""
        return self.train.task

    def labels(self, repetition: Repetition, part: str) -> NDArray[Any]:
        """Return the classes of the items of a part ``(n,)``, or their targets ``(n, k)``."""
        split, positions = self.items(repetition, part)
        return np.asarray(split.y[positions])

    def groups(self, repetition: Repetition, part: str) -> NDArray[np.str_] | None:
        """Return what the items of a part belong to; None where nothing says so."""
        split, positions = self.items(repetition, part)
        return None if split.groups is None else split.groups[positions]

    def batches(
        self, split: Split, positions: Ints, inputs: Inputs, size: int, device: torch.device
    ) -> Iterator[tuple[Ints, Arguments]]:
        """Yield ``(where in positions, arguments of the network)``, batch after batch.

        A last batch of one item joins the one before it: a batch norm cannot take statistics of
        one value.

        Raises:
            BadFilesError: items cannot be read.
        """
        for where, items in self.samples.batches(split, positions, inputs, size):
            yield where, inputs.finish(items.to(device))

    def look(self, inputs: Inputs, device: torch.device) -> Arguments:
        """Return the sample as the network takes it."""
        every = np.arange(len(self.sample))
        ((_, found),) = self.batches(self.sample, every, inputs, len(every), device)
        return found

    def dataset(self, repetition: Repetition) -> Dataset:
        """Return one repetition as a data set whose validation split is what is held out."""
        held = np.zeros(len(repetition.train), dtype=bool)
        held[repetition.held_out] = True
        splits = {
            "train": self.train.take(repetition.train[~held]),
            # In the order of the repetition, since predictions are judged in it.
            "validation": self.train.take(repetition.train[repetition.held_out]),
            "test": self.test.take(repetition.test),
        }
        return Dataset(self.name, self.classes, splits)


def divide(
    dataset: Dataset, config: CompareConfig, *, seed: int = 0, workers: int | None = None
) -> StudyData:
    """Draw the items of all repetitions.

    Where every repetition draws its own test items, the first one keeps the split of the data set.

    Args:
        dataset: with a training and a test split.
        config: how many repetitions, and of how many items.
        seed: of everything that is drawn.
        workers: threads that decode.

    Raises:
        DataError: fewer than two classes, or no test item.
        ConfigError: repetitions cannot draw another test split.
    """
    if dataset.train.targets is None and len(np.unique(dataset.train.labels)) < 2:
        raise DataError(
            "the training split holds only one class",
            hint="a comparison by accuracy needs items of two classes or more",
        )
    if not len(dataset.test):
        raise DataError("the test split is empty", hint="a comparison needs items to test on")
    train = _some(_by_content(dataset.train), config.train_items, seed)
    test = _some(_by_content(dataset.test), config.test_items, seed)
    redrawn = dataset.test_drawn if config.redraw is None else config.redraw
    own = np.arange(len(train)), np.arange(len(test))
    if redrawn:
        if dataset.train.items is not dataset.test.items:
            raise ConfigError(
                ("the test split is a separate source, so repetitions cannot draw another one",),
                hint="omit redraw",
            )
        rows, labels = np.r_[train.rows, test.rows], np.r_[train.labels, test.labels]
        own = own[0], len(train) + own[1]
        groups = None
        if train.groups is not None and test.groups is not None:
            groups = np.r_[train.groups, test.groups]
        targets = None
        if train.targets is not None and test.targets is not None:
            targets = np.concatenate([train.targets, test.targets])
        train = test = dataclasses.replace(
            train, rows=rows, labels=labels, groups=groups, targets=targets
        )
    repetitions = tuple(
        _repetition(train, own, number, seed, drawn=redrawn and number > 0)
        for number in range(config.repeats)
    )
    shuffled = np.random.default_rng([seed, 7]).permutation(repetitions[0].train)
    return StudyData(
        train=train,
        test=test,
        redrawn=redrawn,
        repetitions=repetitions,
        sample=train.take(np.sort(shuffled[:SAMPLE])),
        classes=dataset.classes,
        name=dataset.name,
        samples=Samples(workers),
    )


def _some(split: Split, most: int | None, seed: int) -> Split:
    if most is None or most >= len(split):
        return split
    _, chosen = stratified_split(split.labels, most / len(split), seed=seed, keys=split.ids)
    return split.take(chosen)


def _by_content(split: Split) -> Split:
    """Return a split in the order of its content: how files are named orders no batch."""
    return split.take(content_order(split.ids, split.labels))


def _repetition(
    split: Split, own: tuple[Ints, Ints], number: int, seed: int, *, drawn: bool
) -> Repetition:
    """Return a repetition with the split that the data has, or with one drawn from all of it."""
    state = np.random.SeedSequence([seed, number]).generate_state(5)
    seeds = Seeds(*(int(value) for value in state))
    train, test = own
    if drawn:
        assert seeds.split is not None
        fraction = len(test) / len(split)
        train, test = stratified_split(
            split.labels, fraction, seed=seeds.split, keys=split.ids, groups=split.groups
        )
    else:
        seeds = dataclasses.replace(seeds, split=None)
    ids = [split.ids[i] for i in train]
    groups = None if split.groups is None else split.groups[train]
    _, held = stratified_split(
        split.labels[train], HELD_OUT, seed=seeds.validation, keys=ids, groups=groups
    )
    return Repetition(number, seeds, train, test, held)


def drop_unreadable(dataset: Dataset, inputs: Inputs, on_bad: OnBad, reporter: Reporter) -> Dataset:
    """Return the data set without items that cannot be decoded, if they are to be skipped."""
    if on_bad == "raise":
        return dataset
    kept = {}
    for name, split in dataset.splits.items():
        bad = unreadable(split, inputs, reporter=reporter)
        if bad:
            shown = ", ".join(f"{item.origin} ({item.reason})" for item in bad[:5])
            reporter.note(
                f"{counted(len(bad), 'unreadable item')} of {name} {verb(len(bad))} skipped:"
                f" {shown}"
            )
        kept[name] = split.take(~np.isin(np.arange(len(split)), [item.index for item in bad]))
    return dataclasses.replace(dataset, splits=kept)


def loader_order(labels: Ints, order: str, seed: int) -> Ints:
    """Return the order of a loader: shuffled with ``seed``, or one class after the other.

    Within a class the items are shuffled too, so that repetitions differ.
    """
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    if order == "shuffled":
        return shuffled
    return shuffled[np.argsort(labels[shuffled], kind="stable")]


def class_order(labels: Ints) -> tuple[float, float]:
    """Return the share of neighbours with the same class, and what is expected at random."""
    if len(labels) < 2:
        return 0.0, 0.0
    counts = np.bincount(labels[labels >= 0])
    n = int(counts.sum())
    at_random = float((counts * (counts - 1)).sum() / (n * (n - 1))) if n > 1 else 0.0
    return float((labels[1:] == labels[:-1]).mean()), at_random


class Samples:
    """Decoded items of some splits, kept in memory where they fit.

    Args:
        workers: threads that decode.
        limit: bytes for each split and way of decoding.
    """

    def __init__(self, workers: int | None = None, limit: int = MEMORY) -> None:
        self.workers, self.limit = workers, limit
        self._kept: dict[tuple[int, Hashable], list[Any] | None] = {}
        self._splits: list[Split] = []  # keeps the identity of the splits alive

    def batches(
        self, split: Split, positions: Ints, inputs: Inputs, size: int
    ) -> Iterator[tuple[Ints, Arguments]]:
        """Yield ``(where in positions, collated items)``; see :meth:`StudyData.batches`."""
        bounds = batch_bounds(len(positions), size)
        samples = self._all(split, inputs)
        if samples is None:
            found = self._decoded(split, positions, inputs, bounds[0][1])
        else:
            found = (samples[i] for i in positions.tolist())
        for start, end in bounds:
            yield np.arange(start, end), inputs.collate(list(islice(found, end - start)))

    def _all(self, split: Split, inputs: Inputs) -> list[Any] | None:
        """Return the samples of a split, or None where they are too large to keep."""
        key = (id(split), inputs.decoding)
        if key not in self._kept:
            self._splits.append(split)
            few = list(self._decoded(split, np.arange(min(8, len(split))), inputs))
            fits = inputs.collate(few).nbytes / len(few) * len(split) <= self.limit
            self._kept[key] = list(self._decoded(split, None, inputs)) if fits else None
        return self._kept[key]

    def _decoded(
        self, split: Split, positions: Ints | None, inputs: Inputs, size: int = 64
    ) -> Iterator[Any]:
        reader = read_batches(split, positions, inputs, batch_size=size, workers=self.workers)
        return (sample for batch in reader for sample in batch.samples)


def batch_bounds(count: int, size: int) -> list[tuple[int, int]]:
    """Return (start, end) of every batch; a last one of a single item joins the one before."""
    starts = list(range(0, count, size))
    if len(starts) > 1 and count - starts[-1] == 1:
        starts.pop()
    return [(s, e) for s, e in zip(starts, [*starts[1:], count], strict=True)]


__all__ = ["Repetition", "Samples", "Seeds", "StudyData", "batch_bounds", "class_order", "divide",
           "drop_unreadable", "loader_order"]  # fmt: skip
