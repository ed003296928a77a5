"""``predict`` and ``evaluate``: a run's head on other data, with the same preprocessing."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from headstart.cache import CachedFeatures
from headstart.commands.around import Around
from headstart.commands.invocation import Call
from headstart.commands.kept_rows import KeptItems
from headstart.commands.predict.evaluated import Evaluated, refuse_run_folder, write_evaluation
from headstart.commands.predict.model import Judge, Model, outputs_for
from headstart.commands.predict.options import (
    EVALUATE,
    PREDICT,
    AnswerConfig,
    EvaluateConfig,
    PredictConfig,
)
from headstart.commands.predict.predictions import Predictions
from headstart.commands.prediction_table import Probabilities, checked_file
from headstart.commands.predictor import RunPredictor
from headstart.commands.run import Run
from headstart.commands.run_place import holds_folder, publishing_run
from headstart.commands.saved_run import SavedRun
from headstart.commands.scoring import AnyEvaluation, evaluated, outputs_of
from headstart.commands.session import Session
from headstart.commands.settings import ReadOptions, RunOptions
from headstart.commands.training_items import near_copies_note, new_items
from headstart.commands.unlike import unlike_line
from headstart.core.ambient import plainly
from headstart.core.errors import DataError
from headstart.core.records import CacheUse
from headstart.data import Split


@plainly()
def predict(
    data: Any,
    trained: Run | SavedRun | Path | str,
    *,
    config: PredictConfig | None = None,
    run: RunOptions | None = None,
    reading: ReadOptions | None = None,
    **overrides: Any,
) -> Predictions:
    """Predict classes, labels or numbers for items, labelled or not.

    Args:
        data: an image, a folder of images, a table, arrays, a list of paths, PIL images or
            arrays (which may be empty), a :class:`~headstart.data.Split`, or anything
            :func:`headstart.load_data` takes.
        trained: a run, or its folder.
        config: the settings of ``predict``.
        run: batch size, device, cache; precision and storage come from the run.
        reading: columns of a table, where they are not obvious.
        **overrides: single fields of these, such as ``batch_size=16``, or ``backbone=…`` for a
            run that was made with a module of your own.

    Returns:
        Probabilities in the order of the input.

    Raises:
        DataError: not a run folder, or data that cannot be read.
        BadFilesError: items cannot be read (``on_bad="raise"``).
    """
    config, run, reading, _ = PREDICT.settle(overrides, config, run, reading)
    if config.table is not None:
        checked_file(config.table)
    session = Session(run)
    with session.clock("load"):
        model = Model.of(trained, config, session)
        kind = model.predictor.backbone.inputs.kind
        split = session.open_items(data, model.predictor.reading(reading, session), kind=kind)
    said = _predictions(model, split, session, config)
    if config.table is not None:
        said.write(config.table, config.top)
    return said


@holds_folder
def evaluate(
    data: Any,
    trained: Run | SavedRun | Path | str,
    *,
    config: EvaluateConfig | None = None,
    run: RunOptions | None = None,
    reading: ReadOptions | None = None,
    **overrides: Any,
) -> AnyEvaluation:
    """Score a run's head on labelled data: its test split where it has one, else all of it.

    Items that the run was trained on, recognised by content, are skipped, and a note says how
    many; another says how many of the scored items are near copies of training items.

    Args:
        data: labelled data, as :func:`headstart.load_data` takes it, or a labelled split.
        trained: a run, or its folder.
        config, run, reading, **overrides: as for :func:`predict`.

    Returns:
        Scores with 95 % intervals. With ``out`` also a folder with ``report.html``,
        ``evaluation.json`` and the predictions for all items.

    Raises:
        DataError: the data has a class that the head does not know, or no labels; or every item
            trained the run.
    """
    call = Call(EVALUATE, data, *EVALUATE.settle(overrides, config, run, reading))
    config, run, reading = call.config, call.run, call.reading
    session = Session(run)
    refuse_run_folder(run.out)
    folder = None if run.out is None else session.folder("evaluate")
    model = Model.of(trained, config, session)
    if isinstance(data, Split):
        split, name = data, "a split"
    else:
        dataset = model.labelled_data(data, reading, session)
        session.say(*(note for note in dataset.notes if not note.startswith("Task: ")))
        split, name = dataset.test, dataset.name
    split = split.aligned_to(model.classes)
    if len(split) == 0 or (split.labels < 0).any():
        raise DataError("the data has items without labels", hint="use predict for unlabelled data")
    scored, note = new_items(split, model.predictor.trained_on, include=config.include_training)
    session.say(*([note] if note else []))
    split = split.take(scored)
    said = _predictions(model, split, session, config)
    left_out = {item.index for item in said.bad}
    kept = np.array([i for i in range(len(split)) if i not in left_out], dtype=np.int64)
    tested = split.take(kept)
    near = near_copies_note(
        session.cache,
        model.predictor.backbone,
        model.predictor.settings(session),
        tested,
        model.predictor.trained_on,
    )
    session.say(*([near] if near else []))
    evaluation = evaluated(model.head, tested, said.probabilities)
    if said.sets is not None:
        measured = said.sets.measured(tested.y, tested.classes, tested.groups)
        evaluation = dataclasses.replace(evaluation, sets=(measured,))
    if said.strange is not None:
        evaluation = dataclasses.replace(evaluation, unlike=said.strange.record)
    if folder is not None:
        made = trained if isinstance(trained, str | Path) else trained.folder
        source = None if made is None else Path(made)
        found = Evaluated(
            evaluation,
            tested,
            said.probabilities,
            name,
            model.predictor.backbone,
            model.head,
            source,
            call.of_run(source),
            _around(model.predictor, tested, said, model.source, session),
            said.sets,
            said.strange,
        )
        with publishing_run(folder) as place:
            write_evaluation(found, place, session)
    return evaluation


def _around(
    model: RunPredictor,
    tested: Split,
    said: Predictions,
    trained: Run | SavedRun,
    session: Session,
) -> Around:
    """Return scored items with their features, and those that trained where they are kept."""
    rows = session.cache.features(model.backbone, tested, settings=model.settings(session))
    more: tuple[Any, Any] = (None, None)
    if isinstance(trained, Run):
        if trained.around is not None:
            more = trained.around.train, trained.around.train_rows
    else:
        kept = trained.kept_rows()
        if kept is not None and kept.train.rows is not None:
            more = KeptItems.split(kept.train, model.classes, model.head.task), kept.train.rows
    inputs = model.backbone.inputs
    return Around(model.head, tested, said.probabilities, inputs, rows.sets[0], *more)


def predicted(model: RunPredictor, split: Split, session: Session) -> Predictions:
    """Return what a run predicts for items, as features of the cache."""
    if not len(split):
        nothing = np.empty((0, len(model.classes)))
        return Predictions((), model.classes, nothing, (), CacheUse(0, 0), model.head)
    found, _, outputs = outputs_for(model, split, session)
    return _made(model, outputs, found, split, session)


def predictions_of(
    judge: Judge, views: Sequence[Any], origins: tuple[str, ...], ids: Sequence[str]
) -> Predictions:
    """Return what a run says of features.

    Args:
        judge: the run, and what was asked for.
        views: features ``(n, d)`` at the cut of the run and, behind them, at the layers of the
            judge.
        origins: where each item is found.
        ids: n content ids.
    """
    model, rows = judge.model, views[0]
    outputs = outputs_of(model.head, rows)
    sets, strange = judge.judged(views, rows, outputs, ids)
    return Predictions(
        origins=origins,
        classes=model.classes,
        probabilities=outputs,
        bad=(),
        cache=CacheUse(0, 0),
        head=model.head,
        sets=sets,
        strange=strange,
    )


def _predictions(model: Model, split: Split, session: Session, config: AnswerConfig) -> Predictions:
    if not len(split):
        nothing, rows = np.empty((0, len(model.classes))), np.empty((0, model.head.n_features))
        sets, strange = model.judge(session, config.asked, config.wanted).of_nothing(rows, nothing)
        return Predictions(
            (), model.classes, nothing, (), CacheUse(0, 0), model.head, sets=sets, strange=strange
        )
    said = model.say(split, session, config.asked, config.wanted)
    if said.strange is not None:
        session.say(unlike_line(said.strange.record))
    made = _made(model.predictor, said.outputs, said.found, split, session)
    return dataclasses.replace(made, sets=said.sets, strange=said.strange)


def _made(
    model: RunPredictor,
    outputs: Probabilities,
    found: CachedFeatures,
    split: Split,
    session: Session,
) -> Predictions:
    return Predictions(
        origins=tuple(split.origins[i] for i in found.kept),
        classes=model.classes,
        probabilities=outputs,
        bad=found.bad,
        cache=found.use,
        head=model.head,
        seconds=session.clock.seconds(),
    )


__all__ = [
    "EvaluateConfig",
    "PredictConfig",
    "Predictions",
    "evaluate",
    "predict",
    "predictions_of",
]
