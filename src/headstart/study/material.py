"""The items of a study, divided anew for every repetition, and their pixels."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray

from headstart.core.division import stratified_split
from headstart.core.errors import ConfigError, DataError
from headstart.core.fingerprints import fingerprint
from headstart.core.progress import Reporter
from headstart.data import Dataset, Preprocessing, Split, read_batches
from headstart.data.reading import OnBad

Ints = NDArray[np.int64]
VALIDATION = 0.2
MEMORY = 2**30
"""Decoded pixels are kept in memory up to this many bytes a split, else decoded for every pass."""


@dataclass(frozen=True)
class Seeds:
    """The independent seeds of one repetition.

    Attributes:
        split: of the test split; None where the data has its own.
        validation: of the training items that configurations are chosen by.
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
class Division:
    """The items of one repetition; positions refer to ``Material``'s parts.

    Attributes:
        repetition: from 0.
        seeds: what it was drawn with.
        train, test: ``(n,) int64``, positions in the training and in the test part.
        validation: ``(v,) int64``, positions in ``train`` that are held out for choosing.
    """

    repetition: int
    seeds: Seeds
    train: Ints
    test: Ints
    validation: Ints


@dataclass(frozen=True, eq=False)
class Material:
    """Training and test items; one and the same part where the data has no test split of its own.

    Attributes:
        train, test: the parts.
        redrawn: whether every repetition draws its own test split.
        divisions: one a repetition.
        classes: class names.
        name: of the data.
    """

    train: Split
    test: Split
    redrawn: bool
    divisions: tuple[Division, ...]
    classes: tuple[str, ...]
    name: str

    @property
    def parts(self) -> tuple[Split, ...]:
        """The different parts."""
        return (self.train,) if self.redrawn else (self.train, self.test)

    @property
    def n_train(self) -> int:
        """Training items a repetition."""
        return len(self.divisions[0].train)

    @property
    def n_test(self) -> int:
        """Test items a repetition."""
        return len(self.divisions[0].test)


def divide(
    dataset: Dataset,
    *,
    repeats: int,
    seed: int,
    redraw: bool | None = None,
    train_items: int | None = None,
    test_items: int | None = None,
) -> Material:
    """Draw the divisions of all repetitions.

    Args:
        dataset: with a training and a test split.
        repeats: how many.
        seed: of everything.
        redraw: whether each repetition draws its own test split. None: yes where the data came
            without one. The first repetition keeps the split as it is.
        train_items, test_items: use at most so many, drawn in proportion to the classes.

    Raises:
        DataError: fewer than two classes, or no test item.
        ConfigError: impossible numbers.
    """
    _check(dataset, repeats, train_items, test_items)
    train = _some(dataset.train, train_items, seed)
    test = _some(dataset.test, test_items, seed)
    if redraw is None:
        redraw = dataset.test_drawn
    if redraw and dataset.train.items is not dataset.test.items:
        raise ConfigError(
            ("the test split is a source of its own, so repetitions cannot draw another one",),
            hint="leave redraw out",
        )
    if redraw:
        whole = Split(
            train.items,
            np.concatenate([train.rows, test.rows]),
            np.concatenate([train.labels, test.labels]),
            train.classes,
            train.reporter,
        )
        fixed = np.arange(len(train)), len(train) + np.arange(len(test))
        fraction = len(test) / len(whole)
        divisions = tuple(_redrawn(whole, fixed, fraction, r, seed) for r in range(repeats))
        return Material(whole, whole, True, divisions, dataset.classes, dataset.name)
    fixed = np.arange(len(train)), np.arange(len(test))
    divisions = tuple(
        _division(train, *fixed, r, dataclasses.replace(seeds_of(seed, r), split=None))
        for r in range(repeats)
    )
    return Material(train, test, False, divisions, dataset.classes, dataset.name)


def seeds_of(seed: int, repetition: int) -> Seeds:
    """Return independent seeds for one repetition."""
    state = np.random.SeedSequence([seed, repetition]).generate_state(5)
    split, validation, order, chance, head = (int(value) for value in state)
    return Seeds(split, validation, order, chance, head)


def _check(dataset: Dataset, repeats: int, train: int | None, test: int | None) -> None:
    faults = [f"repeats must be at least 1, not {repeats}"] if repeats < 1 else []
    for name, value in (("train_items", train), ("test_items", test)):
        if value is not None and value < 2:
            faults.append(f"{name} must be at least 2, not {value}")
    if faults:
        raise ConfigError(tuple(faults))
    if len(np.unique(dataset.train.labels)) < 2:
        raise DataError(
            "the training split holds one class only",
            hint="a comparison by accuracy needs items of two classes or more",
        )
    if not len(dataset.test):
        raise DataError("the test split is empty", hint="a comparison needs items to test on")


def _some(split: Split, most: int | None, seed: int) -> Split:
    if most is None or most >= len(split):
        return split
    _, chosen = stratified_split(split.labels, most / len(split), seed=seed, groups=None)
    return split.take(chosen)


def _redrawn(
    whole: Split, own: tuple[Ints, Ints], fraction: float, repetition: int, seed: int
) -> Division:
    seeds = seeds_of(seed, repetition)
    if repetition == 0:
        return _division(whole, *own, 0, dataclasses.replace(seeds, split=None))
    assert seeds.split is not None
    train, test = stratified_split(whole.labels, fraction, seed=seeds.split, keys=whole.ids)
    return _division(whole, train, test, repetition, seeds)


def _division(part: Split, train: Ints, test: Ints, repetition: int, seeds: Seeds) -> Division:
    ids = [part.ids[i] for i in train]
    _, held = stratified_split(part.labels[train], VALIDATION, seed=seeds.validation, keys=ids)
    return Division(repetition, seeds, train, test, held)


def drop_unreadable(dataset: Dataset, on_bad: OnBad, reporter: Reporter) -> Dataset:
    """Return the data set without items that cannot be decoded, if they are to be skipped."""
    if on_bad == "raise":
        return dataset
    tiny = Preprocessing(size=(8, 8), mean=(0.0,) * 3, std=(1.0,) * 3, resize="squash")
    kept = {}
    for name, split in dataset.splits.items():
        with reporter.task(f"look for unreadable items ({name})", len(split), "images") as task:
            reader = read_batches(split, None, tiny, batch_size=64, on_bad="skip")
            good = []
            for batch in reader:
                good.append(batch.indices)
                task.advance(len(batch))
        if reader.bad:
            shown = ", ".join(f"{item.origin} ({item.reason})" for item in reader.bad[:5])
            reporter.note(f"{len(reader.bad)} unreadable items of {name} are left out: {shown}")
        kept[name] = split.take(np.concatenate(good)) if good else split.take([])
    return dataclasses.replace(dataset, splits=kept)


def visiting_order(labels: Ints, order: str, seed: int) -> Ints:
    """Return the order of a loader: shuffled with ``seed``, or one class after the other.

    Within a class the items are shuffled too, so that repetitions differ.
    """
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    if order == "shuffled":
        return shuffled
    return shuffled[np.argsort(labels[shuffled], kind="stable")]


def class_order(labels: Ints) -> tuple[float, float]:
    """Return the share of neighbours with the same class, and what chance would give."""
    if len(labels) < 2:
        return 0.0, 0.0
    counts = np.bincount(labels[labels >= 0])
    n = int(counts.sum())
    by_chance = float((counts * (counts - 1)).sum() / (n * (n - 1))) if n > 1 else 0.0
    return float((labels[1:] == labels[:-1]).mean()), by_chance


class Images:
    """Decoded images of some splits, in memory where they fit.

    Args:
        workers: threads that decode.
        limit: bytes a split and geometry.
    """

    def __init__(self, workers: int | None = None, limit: int = MEMORY) -> None:
        self.workers, self.limit = workers, limit
        self._kept: dict[tuple[int, tuple[object, ...]], torch.Tensor] = {}
        self._splits: list[Split] = []  # keeps the identity of the splits alive

    def batches(
        self, split: Split, indices: Ints, preprocessing: Preprocessing, size: int
    ) -> Iterator[tuple[Ints, torch.Tensor]]:
        """Yield ``(positions in indices, pixels (m, 3, h, w) uint8)``, batch after batch.

        A last batch of one item joins the one before it: a batch norm cannot take statistics of
        one value.

        Raises:
            BadFilesError: items cannot be read.
        """
        bounds = batch_bounds(len(indices), size)
        height, width = preprocessing.size
        if 3 * height * width * len(split) <= self.limit:
            pixels = self._all(split, preprocessing)
            for start, end in bounds:
                yield np.arange(start, end), pixels[torch.from_numpy(indices[start:end])]
            return
        yield from self._decoded(split, indices, preprocessing, bounds)

    def some(self, split: Split, indices: Ints, preprocessing: Preprocessing) -> torch.Tensor:
        """Return the pixels of a few items, ``(m, 3, h, w) uint8``."""
        found = [p for _, p in self.batches(split, indices, preprocessing, len(indices))]
        return torch.cat(found)

    def decode_seconds(self, split: Split, indices: Ints, preprocessing: Preprocessing) -> float:
        """Measure reading and decoding, in seconds an image."""
        begun = time.perf_counter()
        reader = read_batches(split, indices, preprocessing, batch_size=16, workers=self.workers)
        for _ in reader:
            pass
        return (time.perf_counter() - begun) / len(indices)

    def _all(self, split: Split, preprocessing: Preprocessing) -> torch.Tensor:
        key = (id(split), _geometry(preprocessing))
        if key not in self._kept:
            self._splits.append(split)
            pixels = torch.empty((len(split), 3, *preprocessing.size), dtype=torch.uint8)
            reader = read_batches(split, None, preprocessing, batch_size=64, workers=self.workers)
            for batch in reader:
                pixels[torch.from_numpy(batch.indices)] = batch.pixels
            self._kept[key] = pixels
        return self._kept[key]

    def _decoded(
        self,
        split: Split,
        indices: Ints,
        preprocessing: Preprocessing,
        bounds: Sequence[tuple[int, int]],
    ) -> Iterator[tuple[Ints, torch.Tensor]]:
        size = bounds[0][1]
        reader = read_batches(
            split, indices[: bounds[-1][1]], preprocessing, batch_size=size, workers=self.workers
        )
        waiting: list[torch.Tensor] = []
        where = iter(bounds)
        start, end = next(where)
        for batch in reader:
            waiting.append(batch.pixels)
            if sum(map(len, waiting)) < end - start:
                continue
            yield np.arange(start, end), torch.cat(waiting)
            waiting = []
            start, end = next(where, (end, end))


def batch_bounds(count: int, size: int) -> list[tuple[int, int]]:
    """Return (start, end) of every batch; a last one of a single item joins the one before."""
    starts = list(range(0, count, size))
    if len(starts) > 1 and count - starts[-1] == 1:
        starts.pop()
    return [(s, e) for s, e in zip(starts, [*starts[1:], count], strict=True)]


def digest_of(*parts: object) -> str:
    """Return a content digest of arrays and texts."""
    ended = ((p.tobytes() if isinstance(p, np.ndarray) else str(p), b"\0") for p in parts)
    return fingerprint(*chain.from_iterable(ended))


def _geometry(p: Preprocessing) -> tuple[object, ...]:
    return (p.size, p.crop_fraction, p.resize, p.interpolation)


__all__ = [
    "Division",
    "Images",
    "Material",
    "Seeds",
    "batch_bounds",
    "class_order",
    "digest_of",
    "divide",
    "drop_unreadable",
    "seeds_of",
    "visiting_order",
]
