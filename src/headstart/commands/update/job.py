"""New items and new classes join a run: its head is fitted anew to old and new features."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from headstart.commands.abstaining import with_sets
from headstart.commands.around import Around
from headstart.commands.baselines import majority_baseline
from headstart.commands.invocation import Call
from headstart.commands.references import constant_reference
from headstart.commands.run import Run
from headstart.commands.run_description import read_description
from headstart.commands.run_facts import split_fingerprint
from headstart.commands.run_place import holds_folder, publishing_run, whole_run
from headstart.commands.run_record import new_run
from headstart.commands.run_report import write_run
from headstart.commands.saved_run import SavedRun
from headstart.commands.scoring import evaluated, outputs_of
from headstart.commands.session import Session
from headstart.commands.settings import ReadOptions, RunOptions
from headstart.commands.starting import STARTS, starting_head
from headstart.commands.unlike import OWN, Strangeness, unlike_line
from headstart.commands.update.joined import Joined
from headstart.commands.update.joining import joining
from headstart.commands.update.old_run import OldRun
from headstart.commands.update.options import UPDATE, UpdateConfig
from headstart.core.errors import ConfigError
from headstart.core.records import Baseline, Reference
from headstart.heads.abstaining import calibrated
from headstart.heads.outliers import Outliers, fit_outliers
from headstart.heads.registry import Trained, TrainingRows, head_for
from headstart.heads.started import fit_started
from headstart.heads.thresholds import with_thresholds


@holds_folder
def update(
    data: Any,
    trained: SavedRun | Run | Path | str,
    *,
    config: UpdateConfig | None = None,
    run: RunOptions | None = None,
    reading: ReadOptions | None = None,
    **overrides: Any,
) -> Run:
    """Add new items, and new classes, to a run of ``fit``.

    The head is fitted to the features of the old items, which the run folder stores, and of the
    new ones, with the options of the run: it is the head that ``fit`` would train on all of them.
    No old image is read. All new items are used for training, and the run keeps its test split.
    Items that are already in the training or test split are skipped, and a note says how many.

    Args:
        data: labelled items, as :func:`headstart.load_data` takes them; of divided data the
            training split.
        trained: the run, or its folder.
        config: how the run is opened.
        run: how to run the backbone, and where results go; None for ``out`` replaces the run, whole
            or not at all.
        reading: how to read the data.
        **overrides: single fields of these.

    Returns:
        The updated run.

    Raises:
        DataError: nothing new, labels that contradict one another or the run, a class that differs
            from one of the run only in spelling; or a run that cannot be updated.
    """
    call = Call(UPDATE, data, *UPDATE.settle(overrides, config, run, reading))
    folder = trained.folder if isinstance(trained, Run | SavedRun) else Path(trained).expanduser()
    if folder is None:
        raise ConfigError(("a run in memory has no folder to update",), hint="fit with out=DIR")
    target = folder if call.run.out is None else call.run.out
    session = Session(dataclasses.replace(call.run, out=target))
    read_description(whole_run(folder), folder)  # before a folder is made of a wrong name
    place = session.folder("update")
    with session.clock("load"):
        old = OldRun.of(folder, call.config, session)
        fresh = joining(old, data, call.reading, session)
    with session.clock("extract"):
        items = Joined.of(old, fresh, session)
    with session.clock("fit"):
        made = _fit(old, items, session)
    session.say(*made.notes)
    with session.clock("evaluate"):
        probabilities = outputs_of(made.head, items.test_rows)
        evaluation = with_sets(
            evaluated(made.head, items.test, probabilities),
            made.calibration,
            items.test,
            probabilities,
            items.test_rows,
        )
        outliers, strange = _strange(old, items)
        if strange is not None:
            evaluation = dataclasses.replace(evaluation, unlike=strange.record)
            session.say(unlike_line(strange.record))
        majority: Baseline | Reference
        if items.train.targets is None:
            majority = majority_baseline(items.train.labels, items.test)
        else:
            majority = constant_reference(items.train, items.test)
    configuration = {
        **old.configuration,
        "chosen": dict(made.chosen),
        "updates": [*old.configuration.get("updates", []), items.record()],
    }
    call = dataclasses.replace(call, backbone=old.saved.spec)
    result = new_run(
        session,
        items,
        call,
        head=made.head,
        evaluation=evaluation,
        baselines=(majority,),
        curves=made.curves,
        configuration=configuration,
        fingerprints={
            "backbone": old.saved.fingerprint,  # opening the run has checked that it is that
            "train": split_fingerprint(items.train),
            "test": split_fingerprint(items.test),
        },
        spec=old.saved.spec,
        backbone=old.backbone,
        folder=place,
        rows=items.kept,
        calibration=made.calibration,
        uncalibrated=made.uncalibrated,
        outliers=outliers,
        around=Around(
            made.head,
            items.test,
            probabilities,
            old.backbone.inputs,
            items.kept.test.rows,
            items.train,
            items.kept.train.rows,
        ),
        columns=old.saved.columns,
    )
    commands = dataclasses.replace(result.commands, made=call.of_run(folder))
    result = dataclasses.replace(result, commands=commands)
    if place is not None:
        with publishing_run(place) as unfinished:
            write_run(result, unfinished, items.test, probabilities, strange=strange)
    return result


def _strange(old: OldRun, items: Joined) -> tuple[Outliers | None, Strangeness | None]:
    """Learn anew what training items look like, where the run tells what is unlike them."""
    made = old.configuration
    if made.get("ood") is None:
        return None, None
    outliers = fit_outliers(
        {OWN: items.kept.train.rows},
        items.train.labels if items.train.targets is None else None,
        method=made["ood"],
        keys=items.train.ids,
        groups=items.train.groups,
        seed=made["seed"],
    )
    return outliers, Strangeness.of(outliers, [items.kept.test.rows], made["false_alarms"])


def _fit(old: OldRun, items: Joined, session: Session) -> Trained:
    """Fit the head of the run to all rows, with its options, as ``fit`` does."""
    made = old.configuration
    rule = made.get("abstain", "auto")
    rows = TrainingRows(
        items.train_rows,
        items.train.y,
        len(items.train.classes),
        task=items.train.task,
        keys=items.train.ids,
        groups=items.train.groups,
        names=items.train.classes,
        seed=made["seed"],
        reporter=session.reporter,
    )
    if made.get("start") is not None:
        begun, classes = made["start"], items.train.classes
        try:
            start, _ = starting_head(
                begun, old.backbone, classes, made["class_names"], made.get("prompt")
            )
        except ConfigError as error:  # a new class that the classifier does not know by this name
            hint = "fit again on all items, with class_names for the new classes"
            raise ConfigError(error.faults, hint=hint) from error
        begun_as = fit_started(rows, start, folds=made["folds"], called=STARTS[begun])
        return calibrated(begun_as, rows, None, rule=rule)
    kind, options = head_for(made["head"], made["head_options"]), dict(made["head_options"])
    if made.get("class_weight") is not None:
        options["class_weight"] = made["class_weight"]
    settings = kind.settings(options, folds=made["folds"])
    trained = with_thresholds(kind.fit(rows, settings), rows, made.get("threshold", "auto"))
    return calibrated(trained, rows, kind, settings, folds=made["folds"], rule=rule)


__all__ = ["UpdateConfig", "update"]
