"""Opening the items of a run, or of data, with their features.

A run says by which backbone its features were computed, which items trained it, and where its data
lay. The contents of items, for thumbnails, come from there; where the data have moved, everything
but the thumbnails is there all the same if the run has kept its rows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import Backbone
from headstart.commands.collection import Collection
from headstart.commands.embedding import open_parts
from headstart.commands.examined import Examined, examined
from headstart.commands.kept_rows import KeptItems, KeptRows, KeptSplit
from headstart.commands.recall import recalled_backbone
from headstart.commands.run import Run
from headstart.commands.run_description import read_description
from headstart.commands.run_place import RUN, whole_run
from headstart.commands.saved_run import SavedRun, open_run
from headstart.commands.session import Session
from headstart.commands.settings import BackboneSpec, ReadOptions
from headstart.core.errors import ConfigError, DataError
from headstart.core.settings import options_of
from headstart.core.wording import count, verb
from headstart.data import Dataset, Split
from headstart.data.table_columns import Encodings
from headstart.evaluation.tasks import TASKS
from headstart.extraction import Extraction
from headstart.heads import Head
from headstart.heads.base import ARRAYS_FILE, OPTIONS_FILE


def is_run(source: Any) -> bool:
    """Return whether a source is a run, or the folder of one."""
    if isinstance(source, Run | SavedRun):
        return True
    if not isinstance(source, str | Path) or not str(source):
        return False
    try:
        return (whole_run(Path(source).expanduser()) / RUN).is_file()
    except (OSError, ValueError, RuntimeError):
        return False


def open_collection(
    session: Session,
    source: Any,
    reading: ReadOptions,
    spec: BackboneSpec | Backbone,
    *,
    data: Any = None,
    trust_code: bool = False,
) -> Collection:
    """Open the items of a run, or of data, with their features; what is missing is computed.

    Args:
        session: the cache and the settings of the call.
        source: a run, its folder, or data.
        reading: how to read data; a run has its own.
        spec: the backbone of data; a run has its own, which may have to be named.
        data: where the data of the run lie, where that is not where they lay.
        trust_code: run the file of code that a run was made with.

    Raises:
        ConfigError: settings that have no meaning for the source.
        DataError, BackboneError, StoreError: it cannot be opened.
    """
    if is_run(source):
        return _of_run(session, source, reading, spec, data, trust_code)
    if data is not None:
        raise ConfigError(
            ("data says where the data of a run are, and this is not a run",), hint="omit data"
        )
    return _of_data(session, source, reading, spec)


def _of_data(
    session: Session, source: Any, reading: ReadOptions, spec: BackboneSpec | Backbone
) -> Collection:
    splits, network = open_parts(
        session,
        source,
        reading,
        spec,
        lambda each: recalled_backbone(each, session.cache.store),
        labelled=True,
    )
    session.say(*network.notes)
    splits = {name: split for name, split in splits.items() if len(split)}
    if not splits:
        raise DataError("the data hold no items")
    settings = session.settle_precision((network,), list(splits.values()))
    name = Path(source).name if isinstance(source, str | Path) else "data"
    name = source.name if isinstance(source, Dataset) else name
    splits, features = _embedded(session, network, splits, settings)
    space = session.cache.space(network, settings).key
    return Collection(name, splits, features, network, settings, space)


def _embedded(
    session: Session, network: Backbone, splits: Mapping[str, Split], settings: Extraction
) -> tuple[dict[str, Split], dict[str, Any]]:
    """Return the readable items of every split, and their features."""
    shape = network.feature_shape()
    if len(shape) != 1:
        raise ConfigError(
            (
                "items are compared by one row each, and these features have shape"
                f" {shape} per item",
            ),
            hint="use pooling='avg'",
        )
    kept, features = {}, {}
    with session.clock("extract"):
        for name, split in splits.items():
            found = session.cache.features(
                network,
                split,
                settings=settings,
                on_bad=session.run.on_bad,
                reporter=session.reporter,
            )
            kept[name], features[name] = split.take(found.kept), found.sets[0]
    return kept, features


# -- runs ----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Made:
    """What is needed of a run, be it in memory or in a folder."""

    head: Head
    classes: tuple[str, ...]
    backbone: Backbone
    settings: Extraction
    configuration: Mapping[str, Any]
    kept: KeptRows | None
    trained_on: Mapping[str, Sequence[str]] | None
    columns: Encodings
    folder: Path | None
    space: str
    fingerprints: Mapping[str, Any]
    head_digest: str | None = None


def _opened(
    session: Session, source: Any, spec: BackboneSpec | Backbone, trust_code: bool
) -> _Made:
    if isinstance(source, Run):
        made = source.configuration
        settings = dataclasses.replace(
            session.run.extraction(), precision=made["precision"], storage=made["storage"]
        )
        return _Made(
            source.head, source.classes, source.backbone, settings, made, source.rows,
            source.trained_on, source.columns, source.folder,
            session.cache.space(source.backbone, settings).key, source.fingerprints,
        )  # fmt: skip
    saved = source if isinstance(source, SavedRun) else open_run(source, trust_code=trust_code)
    session.say(*saved.notes)
    place = whole_run(saved.folder)
    values = read_description(place, saved.folder).values
    configuration = values["configuration"]
    kept = saved.kept_rows()
    given, weights = _named(spec)
    network = saved.load_backbone(
        given,
        weights=weights,
        trust_code=trust_code,
        load=lambda each: recalled_backbone(each, session.cache.store),
    )
    settings = dataclasses.replace(
        session.run.extraction(), precision=saved.precision, storage=saved.storage
    )
    return _Made(
        saved.head, saved.classes, network, settings, configuration, kept, saved.trained_on,
        saved.columns, saved.folder, saved.fingerprint, values["fingerprints"],
        _head_digest(saved),
    )  # fmt: skip


def _named(spec: BackboneSpec | Backbone) -> tuple[Any, str | None]:
    """Return the backbone and the weights that are named for a run, where they have moved.

    Raises:
        ConfigError: more is given, which a run has of its own.
    """
    if not isinstance(spec, BackboneSpec):
        return spec, None
    plain = BackboneSpec(source=spec.source, weights=spec.weights)
    more = [o.name for o in options_of(spec) if getattr(spec, o.name) != getattr(plain, o.name)]
    if more:
        raise ConfigError(tuple(f"{name} comes from the run: omit it" for name in more))
    return None if spec.source == BackboneSpec().source else spec.source, spec.weights


def _of_run(
    session: Session,
    source: Any,
    reading: ReadOptions,
    spec: BackboneSpec | Backbone,
    data: Any,
    trust_code: bool,
) -> Collection:
    made = _opened(session, source, spec, trust_code)
    whole = made.kept is not None and made.kept.train.rows is not None
    dataset = _data_of(session, made, reading, data, needed=not whole)
    name = str(made.configuration.get("data", "data"))
    tables: dict[str, NDArray[np.float64]] = {}
    if made.kept is None:
        assert dataset is not None
        splits = _used(session, made, dataset)
        splits, features = _embedded(session, made.backbone, splits, made.settings)
    else:
        kept = {"train": made.kept.train, "test": made.kept.test}
        kept = {each: part for each, part in kept.items() if len(part.ids)}
        splits = {each: _found(session, part, made, dataset) for each, part in kept.items()}
        if made.kept.train.rows is not None:
            features = {each: part.rows for each, part in kept.items()}
            tables = {each: part.table for each, part in kept.items() if part.table is not None}
        else:
            splits, features = _embedded(session, made.backbone, splits, made.settings)
    return Collection(
        name, splits, features, made.backbone, made.settings, made.space, made.head, made.columns,
        made.folder, _examined(session, made), made.head_digest, tables,
    )  # fmt: skip


def _head_digest(saved: SavedRun) -> str | None:
    """Return a digest of the files of a head; None where the run has kept none."""
    files = [saved.files.get(name) for name in (ARRAYS_FILE, OPTIONS_FILE)]
    return None if None in files else "-".join(map(str, files))


def _examined(session: Session, made: _Made) -> Examined | None:
    """Return what ``examine`` has found of the items of a run; None: it was not asked."""
    if not {"backbone", "train", "test"} <= set(made.fingerprints):
        return None
    return examined(session.cache.store, made.fingerprints)


def _data_of(
    session: Session, made: _Made, reading: ReadOptions, data: Any, *, needed: bool
) -> Dataset | None:
    """Open the data of a run again; None where they are not there and not needed."""
    source = made.configuration.get("source") if data is None else data
    if source is None:
        if not needed:
            return None
        raise DataError(
            "the run does not record where its data are, and did not keep its features",
            hint="name its data with data=DATA",
        )
    try:
        return session.open_dataset(
            source,
            _reading_of(made.configuration, reading),
            int(made.configuration.get("seed", 0)),
            kind=made.backbone.inputs.kind,
            tasks=tuple(TASKS),
        )
    except DataError as error:
        if data is not None or needed:
            raise DataError(
                f"the data of the run cannot be opened: {error.message}",
                hint="name them with data=DATA" if data is None else error.hint,
            ) from error
        session.say(
            f"the data of the run cannot be opened ({error.message}), so items are shown only by"
            " name; say where the data are with data=DATA"
        )
        return None


def _reading_of(configuration: Mapping[str, Any], given: ReadOptions) -> ReadOptions:
    """Return how the data of a run were read; what is given now wins."""
    values: dict[str, Any] = {}
    for each in options_of(ReadOptions):
        now = getattr(given, each.name)
        was = configuration.get(each.name, each.default)
        was = tuple(was) if isinstance(was, list) else was
        values[each.name] = was if now == each.default else now
    return ReadOptions(**values)


def _used(session: Session, made: _Made, dataset: Dataset) -> dict[str, Split]:
    """Return the items of a data set that trained and tested a run."""
    train, test = dataset.train.aligned_to(made.classes), dataset.test.aligned_to(made.classes)
    splits = {"train": train}
    if made.trained_on is not None:
        ids = set().union(*made.trained_on.values())
        trained = np.array([key in ids for key in train.ids], dtype=bool)
        if not trained.all():
            left = int((~trained).sum())
            session.say(
                f"{count(left, 'item')} of the training split were not used to train the run:"
                " shown as 'other'"
            )
            splits = {"train": train.take(trained), "other": train.take(~trained)}
    splits["test"] = test
    return {name: split for name, split in splits.items() if len(split)}


def _found(session: Session, kept: KeptSplit, made: _Made, dataset: Dataset | None) -> Split:
    """Return kept items as those of the data that they are, where these are there."""
    lost = 0
    for split in () if dataset is None else dataset.splits.values():
        known = {key: i for i, key in reversed(list(enumerate(split.ids)))}
        where = [known.get(key) for key in kept.ids]
        missing = sum(at is None for at in where)
        if not missing:
            found = split.take(np.array(where, dtype=np.int64))
            return dataclasses.replace(
                found,
                labels=kept.labels,
                classes=made.classes,
                targets=kept.targets,
                task=made.head.task,
            )
        lost = missing if not lost else min(lost, missing)
    if lost:
        session.say(
            f"{lost:,} of {count(len(kept.ids), 'item')} of the run {verb(lost)} no longer in"
            " its data: shown only by name"
        )
    return KeptItems.split(kept, made.classes, made.head.task)


__all__ = ["is_run", "open_collection"]
