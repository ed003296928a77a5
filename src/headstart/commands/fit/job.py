"""The main job: embed once, train a head, evaluate once, and leave a run folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from headstart.backbones import Backbone
from headstart.commands.abstaining import with_sets
from headstart.commands.baselines import majority_baseline, plain_baseline
from headstart.commands.embedding import (
    Embedded,
    embed,
    fewer_labels,
    open_call,
    with_table_columns,
)
from headstart.commands.examined import examined
from headstart.commands.fit.options import FIT, FitConfig
from headstart.commands.fit.reducing import is_reduced, reduction
from headstart.commands.invocation import Call
from headstart.commands.loggers import require_loggers
from headstart.commands.own_classifier import zero_label_baseline
from headstart.commands.recall import recalled_backbone
from headstart.commands.references import columns_baseline, references
from headstart.commands.results import among, baselines_once, outliers_once, trained_once
from headstart.commands.run import Run
from headstart.commands.run_logs import log_run
from headstart.commands.run_place import holds_folder, publishing_run
from headstart.commands.run_record import new_run
from headstart.commands.run_report import write_run
from headstart.commands.scoring import evaluated, outputs_of
from headstart.commands.session import Session
from headstart.commands.settings import (
    BackboneLike,
    ReadOptions,
    RunOptions,
    class_weight_faults,
    threshold_faults,
)
from headstart.commands.starting import STARTS, starting_head
from headstart.commands.text_start import zero_shot_baseline
from headstart.commands.torn_groups import torn_group_notes
from headstart.commands.unlike import Strangeness, named_views, unlike_line, views_of
from headstart.core.errors import ConfigError, DataError
from headstart.core.records import INT8, Baseline, Reference
from headstart.core.settings import Fault
from headstart.data import Dataset
from headstart.evaluation.tasks import CLASSIFICATION
from headstart.heads.abstaining import CALIBRATED, calibrated
from headstart.heads.outliers import Outliers, fit_outliers, require_items
from headstart.heads.registry import Trained, head_fault, head_for
from headstart.heads.started import StartedHead, fit_started
from headstart.heads.thresholds import with_thresholds

_NO_LAYERS = "must be empty: a network in int8 gives only its final features"
_NO_COLUMNS = "takes no columns: the classifier takes only features"


@holds_folder
def fit(
    data: Any,
    backbone: BackboneLike = "auto",
    *,
    config: FitConfig | None = None,
    run: RunOptions | None = None,
    reading: ReadOptions | None = None,
    **overrides: Any,
) -> Run:
    """Train a head on frozen features and evaluate it once on the test split.

    The backbone runs once per item, in evaluation mode. Its features are cached, so another head,
    another split or added images cost only what is new.

    Args:
        data: a :class:`~headstart.data.Dataset`, or anything :func:`headstart.load_data` takes.
        backbone: a name, a :class:`~headstart.backbones.Backbone`, a module of your own, or how to
            build one.
        config: the settings of ``fit``.
        run: how to run the backbone, and where results go.
        reading: how to read the data, where its columns or its splits are not obvious.
        **overrides: single fields of :class:`FitConfig`, :class:`RunOptions`,
            :class:`ReadOptions` or :class:`BackboneSpec`, such as ``head="mlp"``, ``seed=1``,
            ``label_column="species"`` or ``layer="stage2.0"``.

    Returns:
        The run: head, scores with 95 % intervals, baselines, and where it was written.

    Raises:
        DataError: the data cannot be read or has only one class.
        BadFilesError: items cannot be read; everything readable has been embedded and cached.
        BackboneError, StoreError, HeadError, ConfigError: see the rooms they come from.
    """
    call = Call(FIT, data, *FIT.settle(overrides, config, run, reading, backbone))
    config, run = call.config, call.run
    require_loggers(config.loggers, run.write)
    if config.start is not None and call.reading.columns is not None:
        raise ConfigError((Fault("start", _NO_COLUMNS),))
    if run.precision == INT8 and config.ood_layers:
        raise ConfigError((Fault("ood_layers", _NO_LAYERS),))
    session = Session(run)
    with session.clock("load"):
        call, network, dataset = open_call(
            session, call, lambda spec: recalled_backbone(spec, session.cache.store)
        )
        _require_head(config, dataset.task)
        start = _start(network, dataset, config, session)
    dataset = fewer_labels(dataset, config.labels_per_class, session, run.seed)
    if config.ood is not None:
        require_items(dataset.train.ids, dataset.train.groups, config.false_alarms)
    network, in_int8 = session.calibrated(network, dataset.train)
    folder = session.folder(f"{dataset.name}-{config.start or config.head}")
    session.say(*network.notes, f"preprocessing: {network.inputs}")
    with session.clock("extract"):
        cuts = (network, *(network.at(layer) for layer in config.ood_layers))
        embedded = embed(session, cuts, dataset)
    session.say_what_binds(network.inputs.unit)
    embedded, encodings = with_table_columns(session, embedded, call.reading)
    # A head that begins as a classifier knows classes that no training item has.
    session.say(*embedded.cache_notes(), *(() if config.start else embedded.unseen_notes()))
    session.say(*torn_group_notes(embedded, run.seed))
    fingerprints = embedded.fingerprints(network, session.run)
    with session.clock("fit"):
        trained, found = _trained(fingerprints, embedded, start, network, config, session)
    session.say(*trained.notes)
    if found:
        session.say("this head was trained before on the same rows: reused unchanged")
    with session.clock("evaluate"):
        outputs = outputs_of(trained.head, embedded.test_rows())
        evaluation = evaluated(trained.head, embedded.test, outputs)
        evaluation = with_sets(
            evaluation, trained.calibration, embedded.test, outputs, embedded.test_rows()
        )
        outliers, strange = _strange(fingerprints, embedded, config, session)
        if strange is not None:
            evaluation = dataclasses.replace(evaluation, unlike=strange.record)
            session.say(unlike_line(strange.record))
        baselines = (
            _baselines(fingerprints, embedded, network, config, session) if config.baselines else ()
        )
    made = new_run(
        session,
        embedded,
        call,
        head=trained.head,
        evaluation=evaluation,
        baselines=baselines,
        curves=trained.curves,
        configuration={
            "data": dataset.name,
            "task": dataset.task,
            "chosen": dict(trained.chosen),
        },
        fingerprints=fingerprints,
        backbone=network,
        folder=folder,
        rows=None if folder is None else embedded.kept(),
        columns=encodings,
        calibration=trained.calibration,
        uncalibrated=trained.uncalibrated,
        outliers=outliers,
        around=embedded.around(
            trained.head,
            outputs,
            network.inputs,
            found=examined(session.cache.store, fingerprints),
        ),
        commands=_compared(call, trained) if embedded.train.targets is None else (),
        tuned=in_int8,
    )
    if folder is not None:
        with publishing_run(folder) as place:
            write_run(made, place, embedded.test, outputs, strange=strange)
    log_run(made, config.loggers, session.reporter)
    return made


def _trained(
    fingerprints: Mapping[str, str],
    embedded: Embedded,
    start: StartedHead | None,
    network: Backbone,
    config: FitConfig,
    session: Session,
) -> tuple[Trained, bool]:
    """Train the head, or find it: it is a function of rows, labels and these settings."""
    if start is not None:
        return _started(fingerprints, embedded, start, config, session)
    present = np.unique(embedded.train.labels)
    if embedded.train.targets is None and len(present) < 2:
        raise DataError(
            f"the training split holds only one class ('{embedded.train.classes[present[0]]}')",
            hint="a classifier needs items of two classes or more",
        )
    reduced = is_reduced(head_for(config.head, config.head_options), config, embedded, session)
    key = {
        "backbone": fingerprints["backbone"],
        "train": fingerprints["train"],
        "head": head_for(config.head, config.head_options).name,
        "options": config.head_options,
        "folds": config.folds,
        "seed": session.run.seed,
        "divided": "by content",
        "task": embedded.train.task,
        "class_weight": config.class_weight,
        "threshold": config.threshold,
        "abstain": [config.abstain, CALIBRATED],
        **({"columns": embedded.tables["train"]} if embedded.tables else {}),
        **among(head_for(config.head, config.head_options).name),
        **({"reduced": True} if reduced else {}),
    }
    return trained_once(
        session.cache.store, key, lambda: _train(embedded, reduced, network, config, session)
    )


def _start(
    network: Backbone, dataset: Dataset, config: FitConfig, session: Session
) -> StartedHead | None:
    """Return the classifier that the head begins as, before any item is embedded for it."""
    if config.start is None:
        return None
    start, said = starting_head(
        config.start, network, dataset.classes, config.class_names, config.prompt
    )
    session.say(f"start: {said}")
    return start


def _started(
    fingerprints: Mapping[str, str],
    embedded: Embedded,
    start: StartedHead,
    config: FitConfig,
    session: Session,
) -> tuple[Trained, bool]:
    """Train the head that begins as a classifier, or find it."""
    key = {
        "backbone": fingerprints["backbone"],
        "train": fingerprints["train"],
        "start": start.pack(),
        "folds": config.folds,
        "seed": session.run.seed,
        "abstain": [config.abstain, CALIBRATED],
    }
    rows, called = embedded.training_rows(session), STARTS[str(config.start)]
    return trained_once(
        session.cache.store,
        key,
        lambda: calibrated(
            fit_started(rows, start, folds=config.folds, called=called),
            rows,
            None,
            rule=config.abstain,
        ),
    )


def _strange(
    fingerprints: Mapping[str, str], embedded: Embedded, config: FitConfig, session: Session
) -> tuple[Outliers | None, Strangeness | None]:
    """Learn what training items look like, and how far out the test items are."""
    if config.ood is None:
        return None, None
    train, test = (
        named_views(embedded.found[name].sets, config.ood_layers) for name in ("train", "test")
    )
    if not len(embedded.train):
        raise ConfigError((f"ood='{config.ood}' needs training items, and there are none",))
    key = {
        "backbone": fingerprints["backbone"],
        "train": fingerprints["train"],
        "method": config.ood,
        "layers": list(train),
        "seed": session.run.seed,
    }
    split, method = embedded.train, config.ood
    outliers = outliers_once(
        session.cache.store,
        key,
        lambda: fit_outliers(
            train,
            split.labels if split.targets is None else None,
            method=method,
            keys=split.ids,
            groups=split.groups,
            seed=session.run.seed,
        ),
    )
    return outliers, Strangeness.of(outliers, views_of(outliers, test), config.false_alarms)


def _compared(call: Call, trained: Trained) -> tuple[str, ...]:
    """Return the call of ``compare`` with this head, or with the one that was chosen."""
    config = call.config
    if config.start is not None:
        return ()
    kind = head_for(config.head, config.head_options)
    if kind.name == "auto":
        return (call.then("compare", head=str(trained.chosen["head"])),)
    return (call.then("compare", head=kind.name, head_options=config.head_options),)


def _train(
    embedded: Embedded, reduced: str, network: Backbone, config: FitConfig, session: Session
) -> Trained:
    kind = head_for(config.head, config.head_options)
    settings, rows = (
        kind.settings(config.options(), folds=config.folds),
        embedded.training_rows(session),
    )
    if reduced and kind.reduce is not None:
        with reduction(reduced, kind, embedded, network, session) as found:
            trained = kind.reduce(rows, settings, found)
    else:
        trained = kind.fit(rows, settings)
    trained = with_thresholds(trained, rows, config.threshold)
    return calibrated(trained, rows, kind, settings, folds=config.folds, rule=config.abstain)


def _require_head(config: FitConfig, task: str) -> None:
    """Refuse a head, or settings, that have no meaning for the task of the data."""
    kind = head_for(config.head, config.head_options)
    fault = head_fault(kind.name, task)
    faults = [] if fault is None else [fault]
    if task != CLASSIFICATION.name:
        named = {"start": config.start, "labels_per_class": config.labels_per_class}
        faults += [
            f"{name} does not apply to {task}: items do not have exactly one class"
            for name, value in named.items()
            if value is not None
        ]
    faults += class_weight_faults(config.class_weight, task, kind.name)
    faults += threshold_faults(config.threshold, task)
    if faults:
        raise ConfigError(tuple(faults))


def _baselines(
    fingerprints: Mapping[str, str],
    embedded: Embedded,
    network: Backbone,
    config: FitConfig,
    session: Session,
) -> tuple[Baseline | Reference, ...]:
    train, test, seed = embedded.train, embedded.test, session.run.seed
    inputs, store = network.inputs, session.cache.store
    zero: tuple[Baseline, ...] = ()
    if train.targets is None:
        zero, notes = zero_label_baseline(
            store, network, fingerprints, test, embedded.found["test"].sets[0], config.class_names
        )
        session.say(*notes)
    if config.start == "text":
        head, said = starting_head(
            config.start, network, test.classes, config.class_names, config.prompt
        )
        zero = (zero_shot_baseline(head, test, embedded.found["test"].sets[0], said),)
    if not len(train):
        return zero

    def compute() -> tuple[Baseline | Reference, ...]:
        if train.targets is not None:
            return references(train, test, inputs, seed=seed, reporter=session.reporter)
        majority = majority_baseline(train.labels, test)
        plain = plain_baseline(train, test, inputs, seed=seed, reporter=session.reporter)
        return (majority,) if plain is None else (majority, plain)

    key = {
        "train": fingerprints["train"],
        "test": fingerprints["test"],
        "inputs": inputs.kind,
        "seed": seed,
        "divided": "by content",
    }
    alone = (
        (columns_baseline(train, test, embedded.tables["train"], embedded.tables["test"], seed),)
        if embedded.tables
        else ()
    )
    return (*baselines_once(store, key, compute), *zero, *alone)


__all__ = ["FitConfig", "fit"]
