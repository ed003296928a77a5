"""The sweep: every head on every cut, chosen inside the training split, tested once."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import Backbone
from headstart.commands.baselines import majority_baseline
from headstart.commands.embedding import (
    Embedded,
    complete_up_to,
    embed,
    fewer_labels,
    open_call,
    with_table_columns,
)
from headstart.commands.invocation import Call
from headstart.commands.loggers import log_outcome, require_loggers
from headstart.commands.references import columns_baseline, constant_reference
from headstart.commands.run import Run
from headstart.commands.run_logs import candidate_table, log_run
from headstart.commands.run_place import holds_folder, prepare_folder, publishing_run
from headstart.commands.run_record import new_run
from headstart.commands.run_report import write_run
from headstart.commands.scoring import AnyEvaluation, evaluated, outputs_of, tested_figures
from headstart.commands.session import Session
from headstart.commands.settings import BackboneLike, BackboneSpec, ReadOptions, RunOptions
from headstart.commands.sweep.features import check_features, read_features
from headstart.commands.sweep.options import SWEEP, SweepConfig, refuse_for_task
from headstart.commands.sweep.page import sweep_page, write_features_sweep
from headstart.commands.sweep.task_page import task_sweep_page
from headstart.commands.torn_groups import torn_group_notes
from headstart.core.cards import Card, Cell, Grid, Shown
from headstart.core.errors import ConfigError
from headstart.core.progress import Reporter
from headstart.core.records import Baseline, Reference, to_plain
from headstart.core.settings import Fault, recorded
from headstart.core.wording import format_number, format_percent
from headstart.data import Split
from headstart.evaluation import evaluate as score
from headstart.evaluation.tasks import CLASSIFICATION
from headstart.heads import DINO_GRID, Candidate, Sweep
from headstart.heads import sweep as sweep_heads
from headstart.heads.features import as_rows
from headstart.heads.registry import Trained, TrainingRows, head_kind
from headstart.heads.task_sweeps import TaskCandidate, TaskSweep, sweep_task
from headstart.heads.thresholds import with_thresholds


@dataclass(frozen=True, eq=False, repr=False)
class SweepResult(Shown):
    """The outcome of a sweep.

    Attributes:
        sweep: the table, the curves and the winner.
        evaluation: of the winner on the test split; None if the features have none.
        run: the winner as a run, which ``predict`` takes; None for a sweep over bare features.
        folder: where it was written; None if it was not, as for bare features without ``out``.
    """

    sweep: Sweep | TaskSweep
    evaluation: AnyEvaluation | None
    run: Run | None
    folder: Path | None = None

    def card(self) -> Card:
        """Return what there is to see: the candidates, the best first, and the winner's scores."""
        found = self.sweep.candidates
        rows = tuple((one.view, one.head, *_scored(one)) for one in found[:24])
        header = ("features", "head", "held out", "options")
        facts: tuple[tuple[str, Cell], ...] = (
            ("chosen", f"{self.sweep.winner.head} on {self.sweep.winner.view}"),
        )
        if self.run is not None:
            facts = (*facts, *self.run.card().facts)
        return Card("Sweep", "", facts, (Grid(header, rows, "", len(found)),), self.sweep.notes)


def _scored(one: Candidate | TaskCandidate) -> tuple[str, str]:
    """Return the held-out score of a candidate, and its options, in words."""
    options = ", ".join(f"{name}={_short(value)}" for name, value in one.options.items())
    if isinstance(one, Candidate):
        return format_percent(one.accuracy.value), options
    return format_number(one.figures[0].score.value), options


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


@holds_folder
def sweep(
    data: Any,
    backbone: BackboneLike = "auto",
    *,
    config: SweepConfig | None = None,
    run: RunOptions | None = None,
    reading: ReadOptions | None = None,
    **overrides: Any,
) -> SweepResult:
    """Try every head on every cut; choose by cross-validation inside the training split.

    The backbone runs once per item for all layers together. The test split is used once, for the
    winner. Heads are also solved on the run's device, if that is the CPU or CUDA (``auto``: if
    the features are large enough for it to pay off).

    Args:
        data: as for :func:`headstart.fit`; or bare features: an ``.npz`` or a folder of ``.npy``
            with ``x_train (n, d)``, ``y_train (n,)`` and, if there is one, ``x_test``, ``y_test``.
        backbone, run, reading, **overrides: as for :func:`headstart.fit`; settings of the
            backbone have no effect on bare features.
        config: what to try.

    Raises:
        ConfigError: nothing to try, features that are not rows, or poolings without a layer.
        BackboneError: weights are missing before the deepest of the layers.
        DataError: the data cannot be read, or a class occurs only in the test split.
        HeadError: nothing can be held out, or features are not finite.
    """
    call = Call(SWEEP, data, *SWEEP.settle(overrides, config, run, reading, backbone))
    config, run = call.config, call.run
    if config.backbones:
        raise ConfigError(("sweep tries heads on one backbone",), hint="call headstart.rank")
    if config.backbone_options is not None:
        raise ConfigError((Fault("backbone_options", "requires backbones"),))
    bare = read_features(data)
    if bare is not None and config.labels_per_class is not None:
        said = "is for data with items: for bare features, give fewer rows"
        raise ConfigError((Fault("labels_per_class", said),))
    require_loggers(config.loggers, run.write and (bare is None or run.out is not None))
    if bare is not None and call.reading.columns is not None:
        raise ConfigError((Fault("columns", "are of a table of items, not of bare features"),))
    if bare is not None:
        return _sweep_features(bare, call)
    session = Session(run)
    with session.clock("load"):
        call, network, dataset = open_call(
            session,
            call,
            lambda spec: complete_up_to(_cut_somewhere(spec, config.layers), config.layers),
            seed=config.seeds[0],
        )
        refuse_for_task(config, dataset.task)
        dataset = fewer_labels(dataset, config.labels_per_class, session, config.seeds[0])
        cuts = _cuts(network, config)
    folder = session.folder(f"{dataset.name}-sweep")
    session.say(*network.notes)
    with session.clock("extract"):
        embedded = embed(session, tuple(cuts.values()), dataset)
    embedded, encodings = with_table_columns(session, embedded, call.reading)
    session.say(*embedded.unseen_notes())
    session.say(*torn_group_notes(embedded, config.seeds[0]))
    views = {name: embedded.train_rows(i) for i, name in enumerate(cuts)}
    with session.clock("fit"):
        found: Sweep | TaskSweep
        if embedded.train.targets is not None:
            found = _run_task(views, embedded.train, config, session.reporter)
        else:
            found = _run(
                views,
                embedded.train.labels,
                dataset.classes,
                config,
                run,
                session.reporter,
                embedded.train.ids,
                embedded.train.groups,
            )
    if isinstance(found, Sweep):
        found = _thresholded(found, embedded.train.labels, dataset.classes, config)
    session.say(*found.notes)
    winner = found.winner
    cut = cuts[winner.view]
    with session.clock("evaluate"):
        rows = embedded.test_rows(list(cuts).index(winner.view))
        probabilities = outputs_of(found.head, rows)
        evaluation = evaluated(found.head, embedded.test, probabilities)
    made = new_run(
        session,
        embedded,
        call,
        head=found.head,
        evaluation=evaluation,
        baselines=_figures_to_beat(embedded, config.seeds[0]),
        curves=found.curves if isinstance(found, Sweep) else found.trained.curves,
        configuration={
            "head": winner.head,
            "data": dataset.name,
            "task": dataset.task,
            "chosen": {"view": winner.view, "head": winner.head, **winner.options},
            "candidates": to_plain(found.candidates[:50]),
        },
        fingerprints=embedded.fingerprints(cut, session.run),
        spec=cut,
        backbone=cut,
        folder=folder,
        around=embedded.around(
            found.head, probabilities, cut.inputs, list(cuts).index(winner.view)
        ),
        columns=encodings,
        commands=(_fit_winner(call, winner, cut),),
    )
    if folder is not None:
        page = (
            sweep_page(found, made, embedded.test, probabilities)
            if isinstance(found, Sweep)
            else task_sweep_page(found, made, embedded.test, probabilities)
        )
        with publishing_run(folder) as place:
            write_run(made, place, embedded.test, probabilities, page)
    log_run(made, config.loggers, session.reporter, candidate_table(found.candidates))
    return SweepResult(found, evaluation, made, folder)


def _run_task(
    views: Mapping[str, Any], train: Split, config: SweepConfig, reporter: Reporter
) -> TaskSweep:
    return sweep_task(
        views,
        train.y,
        train.classes,
        train.task,
        heads=config.heads,
        standardise=config.standardise,
        folds=config.folds,
        seeds=config.seeds,
        keys=train.ids,
        groups=train.groups,
        threshold=config.threshold,
        class_weight=config.class_weight,
        reporter=reporter,
    )


def _fit_winner(call: Call, winner: Candidate | TaskCandidate, cut: Backbone) -> str:
    """Return the call of ``fit`` that trains what was chosen."""
    spec = call.backbone
    if isinstance(spec, BackboneSpec):
        spec = dataclasses.replace(spec, layer=cut.layer, pooling=cut.layer and cut.pooling)
    else:
        spec = cut
    config = call.config
    more: dict[str, Any] = {"head_options": dict(winner.options)}
    same: dict[str, Any] = {"head": winner.head, "folds": config.folds, "seed": config.seeds[0]}
    same["threshold"] = config.threshold
    own = "class_weight" in head_kind(winner.head).option_names
    if config.class_weight and own and "class_weight" not in winner.options:
        same["class_weight"] = config.class_weight
    try:
        return call.then("fit", backbone=spec, **same, **more)
    except ConfigError:  # a registered head may try what its training has no option for
        return call.then("fit", backbone=spec, **same)


def _figures_to_beat(embedded: Embedded, seed: int) -> tuple[Baseline | Reference, ...]:
    """Return what needs no features: the majority or the mean, and joined columns alone."""
    train, test, tables = embedded.train, embedded.test, embedded.tables
    constant: Baseline | Reference
    if train.targets is None:
        constant = majority_baseline(train.labels, test)
    else:
        constant = constant_reference(train, test)
    if not tables:
        return (constant,)
    return constant, columns_baseline(train, test, tables["train"], tables["test"], seed)


def _thresholded(
    found: Sweep, labels: NDArray[np.int64], classes: Sequence[str], config: SweepConfig
) -> Sweep:
    """Return a sweep whose winner has the thresholds that were asked for."""
    rows = TrainingRows(np.empty((len(labels), 0)), labels, len(classes))
    made = with_thresholds(Trained(found.head), rows, config.threshold)
    return dataclasses.replace(found, head=made.head, notes=(*found.notes, *made.notes))


def _cut_somewhere(
    spec: BackboneSpec | Backbone, layers: tuple[str | None, ...]
) -> BackboneSpec | Backbone:
    """Cut at one of the layers, so that weights need not be complete behind the deepest one."""
    if not isinstance(spec, BackboneSpec) or spec.layer is not None:
        return spec
    return spec if None in layers or not layers else dataclasses.replace(spec, layer=layers[-1])


def _cuts(network: Backbone, config: SweepConfig) -> dict[str, Backbone]:
    if not config.layers and not config.poolings:
        cuts = [network]
    else:
        layers = config.layers or (network.layer,)
        if config.poolings and set(layers) == {None}:
            named = ", ".join(config.poolings)
            raise ConfigError(
                (
                    f"poolings ({named}) apply to layers, and none is named: the network's own"
                    " output is already pooled",
                ),
                hint="name layers, such as layers=('layer3', 'layer4')",
            )
        cuts = [
            network.at(layer, pooling)
            for layer in layers
            for pooling in (config.poolings if layer is not None else ()) or (None,)
        ]
    return {"output" if cut.layer is None else f"{cut.layer} {cut.pooling}": cut for cut in cuts}


def _run(
    views: Mapping[str, Any],
    labels: NDArray[np.int64],
    classes: Sequence[str],
    config: SweepConfig,
    run: RunOptions,
    reporter: Reporter,
    keys: Sequence[str] | None = None,
    groups: NDArray[np.str_] | None = None,
) -> Sweep:
    return sweep_heads(
        views,
        labels,
        len(classes),
        heads=config.heads,
        grid=DINO_GRID if config.grid is None else config.grid,
        standardise=config.standardise,
        folds=config.folds,
        seeds=config.seeds,
        keys=keys,
        groups=groups,
        class_weight=config.class_weight,
        names=classes,
        device=_head_device(run.device),
        reporter=reporter,
    )


def _head_device(device: str) -> str:
    """Return where heads are solved; a device that only networks run on leaves it to the CPU.

    Of several devices the first solves them.
    """
    first = device.replace("cuda:all", "cuda").partition(",")[0].strip()
    return first if first == "auto" or first.startswith(("cpu", "cuda")) else "cpu"


def _sweep_features(arrays: Mapping[str, NDArray[Any]], call: Call) -> SweepResult:
    config, run = call.config, call.run
    reporter = run.open_reporter()
    folder = prepare_folder(run.out, "sweep") if run.out is not None and run.write else None
    tested = "x_test" in arrays and "y_test" in arrays
    check_features(arrays, tested)
    # Before the sweep, not after it: bad test rows would throw its work away.
    x_test = as_rows(arrays["x_test"], name="features of x_test") if tested else None
    classes, labels = np.unique(arrays["y_train"], return_inverse=True)
    names = tuple(str(value) for value in classes)
    views = {"features": arrays["x_train"]}
    refuse_for_task(config, CLASSIFICATION.name)
    labels = labels.astype(np.int64)
    found = _run(views, labels, names, config, run, reporter)
    found = _thresholded(found, labels, names, config)
    for note in found.notes:
        reporter.note(note)
    scored = None
    if x_test is not None:
        truth = np.searchsorted(classes, arrays["y_test"]).astype(np.int64)
        probabilities = found.head.likelihoods(x_test)
        scored = score(truth, probabilities, names), truth, probabilities
    if folder is not None:
        data = Path(call.data).name
        configuration = {"data": data, **to_plain({**recorded(config), "device": run.device})}
        with publishing_run(folder) as place:
            write_features_sweep(place, found, scored, names, configuration, call.again())
        figures = {} if scored is None else tested_figures(scored[0])
        tables = candidate_table(found.candidates)
        log_outcome(config.loggers, folder, configuration, reporter, figures, tables)
    return SweepResult(found, None if scored is None else scored[0], None, folder)


__all__ = ["SweepConfig", "SweepResult", "sweep"]
