"""Both splits of a data set with their features, at one or several cuts of a network."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import AUTO, Backbone, choose, misfit
from headstart.cache import CachedFeatures
from headstart.commands.around import Around
from headstart.commands.examined import Examined
from headstart.commands.invocation import Call
from headstart.commands.kept_rows import KeptRows, joined_rows
from headstart.commands.prediction_table import Probabilities
from headstart.commands.run_facts import backbone_fingerprint, split_fingerprint
from headstart.commands.session import Session
from headstart.commands.settings import BackboneSpec, ReadOptions
from headstart.core.division import few_per_class
from headstart.core.errors import BadFilesError, ConfigError
from headstart.core.records import CacheUse
from headstart.core.wording import count as counted
from headstart.core.wording import verb
from headstart.data import Dataset, Inputs, Split
from headstart.data.remarks import remark_notes
from headstart.data.source import column_names
from headstart.data.table_columns import Encodings, encoded_columns, fitted_columns
from headstart.evaluation.tasks import TASKS
from headstart.extraction import Extraction, Extractor
from headstart.heads import Head
from headstart.heads.registry import TrainingRows
from headstart.modules.pooling import towards_rows
from headstart.store import FeatureSet


@dataclass(frozen=True, eq=False)
class Embedded:
    """Both splits with their rows; unreadable items are left out.

    Attributes:
        train, test: the readable items of each split.
        found: the rows by split; they are read on demand.
        use: rows found and computed, over both splits.
        tables: by split ``(n, w)``, columns of its table that are joined to every row.
        seconds: of reading and computing.
    """

    train: Split
    test: Split
    found: Mapping[str, CachedFeatures]
    use: CacheUse
    seconds: float
    tables: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    def train_rows(self, cut: int = 0) -> FeatureSet | NDArray[Any]:
        """Return the rows ``(n_train, d)`` at one of the cuts, unread.

        Heads and selection take them as they take arrays, and read in blocks what is too large
        for memory.
        """
        return self._rows("train", cut)

    def training_rows(self, session: Session) -> TrainingRows:
        """Return what a head of the first cut is trained on."""
        train = self.train
        return TrainingRows(
            self.train_rows(),
            train.y,
            len(train.classes),
            task=train.task,
            keys=train.ids,
            groups=train.groups,
            names=train.classes,
            seed=session.run.seed,
            reporter=session.reporter,
        )

    def test_rows(self, cut: int = 0) -> FeatureSet | NDArray[Any]:
        """Return the rows ``(n_test, d)`` at one of the cuts, unread."""
        return self._rows("test", cut)

    def _rows(self, split: str, cut: int) -> FeatureSet | NDArray[Any]:
        rows = self.found[split].sets[cut]
        return joined_rows(rows, self.tables[split]) if self.tables else rows

    def with_columns(self, encodings: Encodings) -> Embedded:
        """Return these splits with columns of their table joined to the rows."""
        tables = {
            name: encoded_columns(split, encodings)
            for name, split in (("train", self.train), ("test", self.test))
        }
        return dataclasses.replace(self, tables=tables)

    def kept(self) -> KeptRows | None:
        """Return what a run keeps of its items, so that others can join it."""
        first, second = (self.found[name].sets[0] for name in ("train", "test"))
        return KeptRows.of(self.train, first, self.test, second, self.tables)

    def around(
        self,
        head: Head,
        outputs: Probabilities,
        inputs: Inputs,
        cut: int = 0,
        found: Examined | None = None,
    ) -> Around:
        """Return the tested items as a report looks at them.

        Args:
            head: which was tested.
            outputs: ``(n_test, k)``, what it said of them.
            inputs: of the backbone.
            cut: that the head was trained on.
            found: what ``examine`` has found of the same items.
        """
        train, test = (self.found[name].sets[cut] for name in ("train", "test"))
        return Around(head, self.test, outputs, inputs, test, self.train, train, found)

    def fingerprints(self, backbone: Backbone, run: Extraction) -> dict[str, str]:
        """Return the content digests of the backbone up to a cut, and of both splits."""
        return {
            "backbone": backbone_fingerprint(backbone, run.precision, run.storage),
            "train": split_fingerprint(self.train),
            "test": split_fingerprint(self.test),
        }

    def cache_notes(self) -> tuple[str, ...]:
        """Say what the cache has saved, if anything."""
        hits, misses = self.use.hits, self.use.misses
        if misses == 0:
            return (
                f"all {counted(hits, 'feature row')} came from the cache: no forward pass was"
                " needed",
            )
        if hits:
            return (
                f"{counted(hits, 'feature row')} came from the cache, {misses:,}"
                f" {verb(misses, 'was', 'were')} computed",
            )
        return ()

    def unseen_notes(self) -> tuple[str, ...]:
        """Say that test items have classes that no training item has, if so."""
        if self.train.targets is not None:
            return ()
        trained = np.unique(self.train.labels)
        unseen = np.setdiff1d(self.test.labels, trained)
        if not len(unseen):
            return ()
        named = ", ".join(f"'{self.test.classes[i]}'" for i in unseen[:5])
        more = f" and {len(unseen) - 5} more" if len(unseen) > 5 else ""
        count = int(np.isin(self.test.labels, unseen).sum())
        return (
            f"{count:,} of {counted(len(self.test), 'test item')} {verb(count, 'has', 'have')} a"
            f" class that no training item has ({named}{more}); every head gets them wrong",
        )

    @property
    def images_per_second(self) -> float | None:
        """The rate of extraction; None if nothing was computed."""
        if not self.use.misses or not self.seconds:
            return None
        return round(self.use.misses / self.seconds, 1)


def with_table_columns(
    session: Session, embedded: Embedded, reading: ReadOptions
) -> tuple[Embedded, Encodings]:
    """Join the columns that the reading names to the rows; say what was made of which.

    Raises:
        DataError: there is no such column, or one holds no category.
    """
    if reading.columns is None:
        return embedded, ()
    encodings, told = fitted_columns(embedded.train, column_names(reading.columns))
    session.say(*told)
    return embedded.with_columns(encodings), encodings


def open_call(
    session: Session,
    call: Call,
    load: Callable[[BackboneSpec | Backbone], Backbone] | None = None,
    *,
    seed: int | None = None,
    tasks: Sequence[str] = tuple(TASKS),
) -> tuple[Call, Backbone, Dataset]:
    """Load the backbone and the data of a call; where the data choose the backbone, they are first.

    Args:
        session: says why it was chosen, or that it evidently does not fit.
        call: its settings.
        load: builds the backbone; None: as it is given.
        seed: of the split that is set aside; None: that of the run.
        tasks: those that the command is for; all, unless it says so.

    Returns:
        The call with the name of the backbone, the backbone, and the data.

    Raises:
        BackboneError, ConfigError, DataError: see the functions that load both.
    """
    load = load or load_backbone
    if isinstance(call.backbone, BackboneSpec) and call.backbone.source == AUTO:
        call.backbone.named(AUTO)  # what needs a name is said before the data are read
        dataset = session.open_dataset(call.data, call.reading, seed, tasks=tasks)
        choice = choose(dataset.train)
        session.say(choice.reason)
        call = dataclasses.replace(call, backbone=call.backbone.named(choice.name))
        return call, load(call.backbone), dataset
    network = load(call.backbone)
    dataset = session.open_dataset(
        call.data, call.reading, seed, kind=network.inputs.kind, tasks=tasks
    )
    warning = misfit(network, dataset.train)
    session.say(*([warning] if warning else []))
    inputs, measured = network.inputs.settled(dataset.train, session.reporter)
    session.say(*measured)
    if inputs != network.inputs:
        if isinstance(call.backbone, BackboneSpec):
            values = network.inputs.differences(inputs)
            call = dataclasses.replace(call, backbone=call.backbone.with_inputs(values))
        network = dataclasses.replace(network, inputs=inputs)
    return call, network, dataset


def open_parts(
    session: Session,
    data: Any,
    reading: ReadOptions,
    spec: BackboneSpec | Backbone,
    load: Callable[[BackboneSpec | Backbone], Backbone] | None = None,
    *,
    labelled: bool = False,
) -> tuple[Mapping[str, Split], Backbone]:
    """Load the splits of data and the backbone; where the data choose the backbone, they are first.

    Args:
        session: says why it was chosen, or that it evidently does not fit.
        data: its source, labelled or not.
        reading: how to read it.
        spec: how to build the backbone; one that is built already is taken unchanged.
        load: builds the backbone; None: as it is given.
        labelled: whether labels are read where there are any.
    """
    load = load or load_backbone
    if isinstance(spec, BackboneSpec) and spec.source == AUTO:
        spec.named(AUTO)  # what needs a name is said before the data are read
        splits = session.open_parts(data, reading, labelled=labelled)
        choice = choose(next(iter(splits.values())))
        session.say(choice.reason)
        return splits, load(spec.named(choice.name))
    network = load(spec)
    splits = session.open_parts(data, reading, kind=network.inputs.kind, labelled=labelled)
    warning = misfit(network, next(iter(splits.values())))
    session.say(*([warning] if warning else []))
    if "train" in splits:
        inputs, measured = network.inputs.settled(splits["train"], session.reporter)
        session.say(*measured)
        network = dataclasses.replace(network, inputs=inputs)
    return splits, network


def fewer_labels(dataset: Dataset, each: int | None, session: Session, seed: int) -> Dataset:
    """Leave all but some training items of each class out.

    Args:
        dataset: the test split stays as it is.
        each: items of a class, copies counted once; 0: none; None: all.
        session: says how many are left.
        seed: decides which.
    """
    if each is None:
        return dataset
    train = dataset.train
    rows = (
        few_per_class(train.labels, each, seed=seed, keys=train.ids, groups=train.groups)
        if each
        else np.empty(0, np.int64)
    )
    session.say(
        f"using the labels of {len(rows):,} of {counted(len(train), 'training item')}: at most"
        f" {each} per class"
        if each
        else "using no training items and no labels"
    )
    return dataclasses.replace(dataset, splits={**dataset.splits, "train": train.take(rows)})


def load_backbone(spec: BackboneSpec | Backbone) -> Backbone:
    """Build a backbone; one that is built already is taken unchanged."""
    return spec.load() if isinstance(spec, BackboneSpec) else spec


def complete_up_to(backbone: BackboneSpec | Backbone, layers: Iterable[str | None]) -> Backbone:
    """Return a built backbone that may be cut at any of these layers.

    A checkpoint of the user's own has to be complete up to the cut that it is loaded for, and what
    lies behind that cut keeps random numbers. So it is loaded for the deepest of the layers.

    Args:
        backbone: how to build it; one that is built already is taken unchanged.
        layers: where it will be cut beside its own layer; None is the output.

    Raises:
        BackboneError: a layer does not exist, or weights are missing before the deepest one.
    """
    network = load_backbone(backbone)
    if not isinstance(backbone, BackboneSpec) or backbone.weights is None:
        return network
    deepest = network.deepest([network.layer, *layers])
    if deepest == network.layer:
        return network
    whole = dataclasses.replace(backbone, layer=deepest, pooling=None).load()
    return whole.at(network.layer, network.pooling)


def embed(session: Session, cuts: Sequence[Backbone], dataset: Dataset) -> Embedded:
    """Embed both splits before complaining about either: nothing readable is left undone.

    Args:
        session: with the cache and the settings of the run.
        cuts: one network at one or several cuts; each gives one row per item.
        dataset: with the splits ``train`` and ``test``.

    Raises:
        ConfigError: a cut gives more than one row per item.
        BadFilesError: items of either split cannot be read; all are listed.
    """
    for cut in cuts:
        shape = cut.feature_shape()
        if len(shape) != 1:
            raise ConfigError(
                (f"a head needs one row per item, and these features have shape {shape} per item",),
                hint=towards_rows(shape),
            )
    found: dict[str, CachedFeatures] = {}
    unreadable: list[tuple[str, str]] = []
    hint = None
    splits = [dataset.splits[name] for name in ("train", "test")]
    settings = session.settle_precision(cuts, splits)
    with Extractor(cuts, settings, session.cache.plans()) as extractor:
        session.cache.help(extractor, splits, reporter=session.reporter)
        # Of no training items there are rows once the test items have some.
        for name in ("train", "test") if len(dataset.train) else ("test", "train"):
            try:
                found[name] = session.cache.features(
                    extractor,
                    dataset.splits[name],
                    on_bad=session.run.on_bad,
                    reporter=session.reporter,
                )
            except BadFilesError as error:
                unreadable += error.files
                hint = error.hint
        if extractor.done:
            session.throughput = extractor.throughput()
    if unreadable:
        raise BadFilesError(tuple(dict(unreadable).items()), hint=hint)
    train, test = found["train"], found["test"]
    embedded = Embedded(
        dataset.train.take(train.kept),
        dataset.test.take(test.kept),
        found,
        train.use + test.use,
        train.seconds + test.seconds,
    )
    _record_remarks(session, cuts[0], embedded)
    return embedded


def _record_remarks(session: Session, cut: Backbone, embedded: Embedded) -> None:
    """Record what is left out of items; it is said here where no item had to be read."""
    found: dict[str, list[str]] = {}
    for split in (embedded.train, embedded.test):
        for what, origins in cut.inputs.remarks(split).items():
            found.setdefault(what, []).extend(origins)
    notes = remark_notes(found, cut.inputs.unit)
    if embedded.use.misses:
        session.notes += notes
    else:
        session.say(*notes)
