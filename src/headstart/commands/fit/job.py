"""The main job: embed once, train a head, evaluate once, and leave a run folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from headstart.commands.baselines import majority_baseline, plain_baseline
from headstart.commands.embedding import Embedded, embed, open_call
from headstart.commands.fit.options import FIT, FitConfig
from headstart.commands.invocation import Call
from headstart.commands.recall import recalled_backbone
from headstart.commands.results import among, baselines_once, trained_once
from headstart.commands.run_folder import Run
from headstart.commands.run_place import holds_folder, publishing_run
from headstart.commands.run_report import new_run, write_run
from headstart.commands.session import Session
from headstart.commands.settings import BackboneLike, ReadOptions, RunOptions
from headstart.commands.torn_groups import torn_group_notes
from headstart.core.errors import DataError
from headstart.core.records import Baseline
from headstart.data import Inputs
from headstart.evaluation import evaluate as score
from headstart.heads.registry import Trained, TrainingRows, head_for


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

    The backbone runs once per item, in evaluation mode; its features are kept in the cache, so
    that another head, another split or added images cost only what is new.

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
        DataError: the data cannot be read or has one class only.
        BadFilesError: items cannot be read; everything readable has been embedded and kept.
        BackboneError, StoreError, HeadError, ConfigError: see the rooms they come from.
    """
    call = Call(FIT, data, *FIT.settle(overrides, config, run, reading, backbone))
    config, run = call.config, call.run
    session = Session(run)
    with session.clock("load"):
        call, network, dataset = open_call(
            session, call, lambda spec: recalled_backbone(spec, session.cache.store)
        )
    folder = session.folder(f"{dataset.name}-{config.head}")
    session.say(*network.notes, f"preprocessing: {network.inputs}")
    with session.clock("extract"):
        embedded = embed(session, (network,), dataset)
    session.say_what_binds(network.inputs.unit)
    session.say(*embedded.cache_notes(), *embedded.unseen_notes())
    session.say(*torn_group_notes(embedded, run.seed))
    fingerprints = embedded.fingerprints(network, session.run)
    with session.clock("fit"):
        trained, found = _trained(fingerprints, embedded, config, session)
    session.say(*trained.notes)
    if found:
        session.say("this head was trained before on the same rows: taken unchanged")
    with session.clock("evaluate"):
        probabilities = trained.head.likelihoods(embedded.test_rows())
        evaluation = score(
            embedded.test.labels, probabilities, dataset.classes, groups=embedded.test.groups
        )
        baselines = (
            _baselines(fingerprints, embedded, network.inputs, session) if config.baselines else ()
        )
    made = new_run(
        session,
        embedded,
        call,
        head=trained.head,
        evaluation=evaluation,
        baselines=baselines,
        curves=trained.curves,
        configuration={"data": dataset.name, "chosen": dict(trained.chosen)},
        fingerprints=fingerprints,
        backbone=network,
        folder=folder,
        rows=None if folder is None else embedded.kept(),
        commands=(_compared(call, trained),),
    )
    if folder is not None:
        with publishing_run(folder) as place:
            write_run(made, place, embedded.test, probabilities)
    return made


def _trained(
    fingerprints: Mapping[str, str],
    embedded: Embedded,
    config: FitConfig,
    session: Session,
) -> tuple[Trained, bool]:
    """Train the head, or find it: it is a function of rows, labels and these settings."""
    present = np.unique(embedded.train.labels)
    if len(present) < 2:
        raise DataError(
            f"the training split holds one class only ('{embedded.train.classes[present[0]]}')",
            hint="a classifier needs items of two classes or more",
        )
    key = {
        "backbone": fingerprints["backbone"],
        "train": fingerprints["train"],
        "head": head_for(config.head, config.head_options).name,
        "options": config.head_options,
        "folds": config.folds,
        "seed": session.run.seed,
        "divided": "by content",
        **among(head_for(config.head, config.head_options).name),
    }
    return trained_once(session.cache.store, key, lambda: _train(embedded, config, session))


def _compared(call: Call, trained: Trained) -> str:
    """Return the call of ``compare`` with this head, or with the one that was chosen."""
    config = call.config
    kind = head_for(config.head, config.head_options)
    if kind.name == "auto":
        return call.then("compare", head=str(trained.chosen["head"]))
    return call.then("compare", head=kind.name, head_options=config.head_options)


def _train(embedded: Embedded, config: FitConfig, session: Session) -> Trained:
    kind = head_for(config.head, config.head_options)
    rows = TrainingRows(
        embedded.train_rows(),
        embedded.train.labels,
        len(embedded.train.classes),
        keys=embedded.train.ids,
        groups=embedded.train.groups,
        names=embedded.train.classes,
        seed=session.run.seed,
        reporter=session.reporter,
    )
    return kind.fit(rows, kind.settings(config.head_options, folds=config.folds))


def _baselines(
    fingerprints: Mapping[str, str], embedded: Embedded, inputs: Inputs, session: Session
) -> tuple[Baseline, ...]:
    train, test, seed = embedded.train, embedded.test, session.run.seed

    def compute() -> tuple[Baseline, ...]:
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
    return baselines_once(session.cache.store, key, compute)


__all__ = ["FitConfig", "fit"]
