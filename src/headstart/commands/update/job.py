"""New items and new classes join a run: its head is fitted anew to old and new features."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import Backbone
from headstart.commands.abstaining import with_sets
from headstart.commands.around import Around
from headstart.commands.baselines import majority_baseline
from headstart.commands.invocation import Call
from headstart.commands.kept_rows import (
    ROWS_FILE,
    KeptItems,
    KeptRows,
    KeptSplit,
    features_of,
)
from headstart.commands.recall import recalled_backbone
from headstart.commands.references import constant_reference
from headstart.commands.run import Run
from headstart.commands.run_description import read_description
from headstart.commands.run_facts import split_fingerprint
from headstart.commands.run_place import holds_folder, publishing_run, whole_run
from headstart.commands.run_report import new_run, write_run
from headstart.commands.saved_run import SavedRun, open_run
from headstart.commands.scoring import evaluated, outputs_of
from headstart.commands.session import Session
from headstart.commands.settings import ReadOptions, RunOptions
from headstart.commands.starting import STARTS, starting_head
from headstart.commands.unlike import OWN, Strangeness, unlike_line
from headstart.commands.update.options import UPDATE, UpdateConfig
from headstart.core.errors import ConfigError, DataError
from headstart.core.records import Baseline, CacheUse, Reference
from headstart.core.wording import count, quoted, verb
from headstart.data import Split
from headstart.data.names import composed, look_alikes
from headstart.data.table_columns import encoded_columns
from headstart.evaluation.tasks import CLASSIFICATION, REGRESSION, task_named
from headstart.extraction import Extraction
from headstart.heads import find_leaks
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
    """Let new items, and new classes, join a run of ``fit``.

    The head is fitted to the features of the old items, which the run folder keeps, and of the
    new ones, with the options of the run: it is the head that ``fit`` would train on all of them.
    No old image is read. All new items train, and the test split stays that of the run. Items that
    are in it, or in the training items already, are left out, and a note says how many.

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
            from one of the run in spelling alone; or a run that cannot be updated.
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
        old = _Old.of(folder, call.config, session)
        fresh = _joining(old, data, call.reading, session)
    with session.clock("extract"):
        items = _Joined.of(old, fresh, session)
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


@dataclass(frozen=True, eq=False)
class _Old:
    """A run that items are to join.

    Attributes:
        saved: the run.
        kept: its items with their features.
        configuration: how it was made.
        backbone: of the run.
    """

    saved: SavedRun
    kept: KeptRows
    configuration: Mapping[str, Any]
    backbone: Backbone

    @classmethod
    def of(cls, folder: Path, config: UpdateConfig, session: Session) -> _Old:
        saved = open_run(folder)
        session.say(*saved.notes)
        if saved.tuned is not None:
            raise DataError(
                f"'{folder}' was fine-tuned, and its backbone has seen the old items alone",
                hint="fine-tune again on all items; update is for runs of fit",
            )
        place = whole_run(folder)
        configuration = read_description(place, folder).values["configuration"]
        if configuration.get("ood_layers"):
            raise DataError(
                f"'{folder}' tells strange items by the layers"
                f" {', '.join(configuration['ood_layers'])}, and the features of old items there"
                " are not kept",
                hint="fit once more on the old items and the new ones",
            )
        kept = saved.kept_rows()
        if kept is None:
            raise DataError(
                f"'{folder}' has no {ROWS_FILE}, so that nothing can join it: an older version"
                " wrote it, or another command than fit",
                hint="fit once more on the old items",
            )
        grouped = [n for n in ("group_column", "group_pattern") if configuration.get(n)]
        if grouped and kept.train.groups is None:
            raise DataError(
                f"'{folder}' was made with {grouped[0]}='{configuration[grouped[0]]}', and its kept"
                " rows do not say what they belong to: groups would be torn apart",
                hint="fit once more on the old items and the new ones",
            )
        network = saved.load_backbone(
            config.backbone,
            weights=config.weights,
            trust_code=config.trust_code,
            load=lambda spec: recalled_backbone(spec, session.cache.store),
        )
        return cls(saved, kept, configuration, network)

    def reading(self, given: ReadOptions) -> ReadOptions:
        """Return how new items are read: as those of the run, unless something else is given.

        Raises:
            ConfigError: another task is asked for, or groups that the run does not know.
        """
        saved, made = self.saved, self.configuration
        if given.task not in ("auto", saved.head.task):
            raise ConfigError(
                (f"task='{given.task}' is not that of the run, which is {saved.head.task}",),
                hint="leave it out",
            )
        asked = given.group_column or given.group_pattern
        if asked and self.kept.train.groups is None:
            raise ConfigError(
                ("the run knows no groups of its items, so that new ones cannot join them",),
                hint="fit once more on the old items and the new ones",
            )
        changed: dict[str, Any] = {"task": saved.head.task}
        if saved.value_range is not None and given.value_range is None:
            changed["value_range"] = saved.value_range
        if saved.head.task != CLASSIFICATION.name:
            changed["label_column"] = given.label_column or saved.label_column
        if saved.columns:
            changed["columns"] = ",".join(column.name for column in saved.columns)
        if self.kept.train.groups is not None and not asked:
            changed |= {n: made.get(n) for n in ("group_column", "group_pattern")}
        return dataclasses.replace(given, **changed)

    def settings(self, session: Session) -> Extraction:
        return dataclasses.replace(
            session.run.extraction(), precision=self.saved.precision, storage=self.saved.storage
        )

    def rows(self, split: KeptSplit, session: Session) -> NDArray[Any]:
        """Return the features of old items: those that were kept, or those of the cache."""
        return features_of(split, session.cache, self.backbone, self.settings(session))


def _joining(old: _Old, data: Any, reading: ReadOptions, session: Session) -> Split:
    """Return the items that are new, with labels that index the classes of both."""
    reading = old.reading(reading)
    found = session.open_training_data(data, reading, kind=old.backbone.inputs.kind)
    session.say(*found.notes)
    split, classes = _named_alike(found.train, old.saved.classes)
    before, given = _alike(old.kept.train, classes), split.y.tolist()
    trained = dict(zip(old.kept.train.ids, before.tolist(), strict=True))
    tested, apart = set(old.kept.test.ids), _tested_groups(old, split)
    first: dict[str, int] = {}
    keep, again, leaking, other, torn = [], 0, [], [], []
    for i, (key, label) in enumerate(zip(split.ids, given, strict=True)):
        if key in tested:
            leaking.append(i)
        elif split.groups is not None and split.groups[i] in apart:
            torn.append(i)
        elif key in trained:
            again += 1
            other += [i] if trained[key] != label else []
        elif key in first:
            again += 1
            if given[first[key]] != label:
                raise DataError(
                    f"{split.origins[first[key]]} and {split.origins[i]} have the same content and"
                    " different labels",
                    hint="correct one of them",
                )
        else:
            first[key] = i
            keep.append(i)
    if other:
        was = trained[split.ids[other[0]]]
        there = f", there '{classes[was]}'" if isinstance(was, int) else ""
        raise DataError(
            f"{count(len(other), 'item')} trained this run under another label (such as"
            f" {split.origins[other[0]]}{there})",
            hint="leave them out, or correct the labels and fit again",
        )
    if again:
        session.say(
            f"{count(again, 'item')} {verb(again)} in the training items already, or given twice:"
            " left out"
        )
    if leaking:
        session.say(
            f"{count(len(leaking), 'item')} {verb(len(leaking))} in the test split of the run (such"
            f" as {split.origins[leaking[0]]}): left out, so that the figures stay honest"
        )
    if torn:
        assert split.groups is not None
        named = quoted(sorted({str(split.groups[i]) for i in torn}), 3)
        session.say(
            f"{count(len(torn), 'item')} {verb(len(torn))} of groups that the test split of the run"
            f" has ({named}): left out, so that no group is torn apart"
        )
    if not keep:
        raise DataError(
            f"none of {count(len(split), 'item')} is new to the run", hint="give other items"
        )
    return split.take(np.array(keep))


def _tested_groups(old: _Old, split: Split) -> set[str]:
    """Return the groups that the test split of the run has."""
    kept = old.kept.test.groups
    return set() if kept is None or split.groups is None else set(kept.tolist())


def _alike(kept: KeptSplit, classes: tuple[str, ...]) -> NDArray[Any]:
    """Return what old items are labelled with; a label that is new to the run, no old one has."""
    if kept.targets is None:
        return kept.labels
    more = len(classes) - kept.targets.shape[1]
    return np.pad(kept.targets, ((0, 0), (0, more)))


def _named_alike(split: Split, old: tuple[str, ...]) -> tuple[Split, tuple[str, ...]]:
    """Return a split whose labels index the old classes and, behind them, its new ones."""
    if split.task == REGRESSION.name:
        return split.aligned_to(old), old
    known = {composed(name) for name in old}
    present = sorted(set(split.labels.tolist()))
    if split.targets is not None:
        present = np.flatnonzero(split.targets.any(axis=0)).tolist()
    new = tuple(split.classes[i] for i in present if composed(split.classes[i]) not in known)
    alike = [group for group in look_alikes([*old, *new]) if set(group) & set(new)]
    if alike:
        raise DataError(
            f"the classes {quoted(alike[0])} differ only in their spelling",
            hint="give them one name",
        )
    classes = (*old, *new)
    return split.aligned_to(classes), classes


@dataclass(frozen=True, eq=False)
class _Joined:
    """Old and new items together, as a run records them."""

    train: Split
    test: Split
    use: CacheUse
    images_per_second: float | None
    kept: KeptRows
    added: int
    classes: tuple[str, ...]

    @property
    def train_rows(self) -> NDArray[Any]:
        """What the head trains on, ``(n, d)``."""
        assert self.kept.train.rows is not None
        return self.kept.train.joined(self.kept.train.rows)

    @property
    def test_rows(self) -> NDArray[Any]:
        """What it is tested on."""
        assert self.kept.test.rows is not None
        return self.kept.test.joined(self.kept.test.rows)

    @classmethod
    def of(cls, old: _Old, fresh: Split, session: Session) -> _Joined:
        found = session.cache.features(
            old.backbone,
            fresh,
            settings=old.settings(session),
            on_bad=session.run.on_bad,
            reporter=session.reporter,
        )
        fresh = fresh.take(found.kept)
        if not len(fresh):
            raise DataError("none of the new items can be read", hint="give other items")
        before, tested = old.kept.train, old.kept.test
        first, test_rows = old.rows(before, session), old.rows(tested, session)
        rows = np.concatenate([first, np.asarray(found.rows).astype(first.dtype, copy=False)])
        whole = KeptSplit(
            (*before.ids, *fresh.ids),
            np.concatenate([before.labels, fresh.labels]),
            (*before.origins, *fresh.origins),
            rows,
        )
        tested = dataclasses.replace(tested, rows=test_rows)
        if fresh.targets is not None:
            both = np.concatenate([_alike(before, fresh.classes), fresh.targets])
            whole = _with_targets(whole, both, fresh.task)
            tested = _with_targets(tested, _alike(tested, fresh.classes), fresh.task)
        if before.table is not None:
            added = encoded_columns(fresh, old.saved.columns)
            whole = dataclasses.replace(whole, table=np.concatenate([before.table, added]))
        if before.groups is not None and fresh.groups is not None:
            groups = np.array([*before.groups.tolist(), *fresh.groups.tolist()], dtype=np.str_)
            whole = dataclasses.replace(whole, groups=groups)
        _say_what_joins(old, fresh, found.rows, test_rows, session)
        kept = KeptRows(whole, tested)
        return cls(
            KeptItems.split(whole, fresh.classes, fresh.task),
            KeptItems.split(tested, fresh.classes, fresh.task),
            found.use,
            None,
            kept,
            len(fresh),
            tuple(fresh.classes[len(old.saved.classes) :]),
        )

    def record(self) -> dict[str, Any]:
        """Return what ``run.json`` says of the update."""
        return {"added": self.added, "new_classes": list(self.classes)}


def _with_targets(kept: KeptSplit, targets: NDArray[np.float64], task: str) -> KeptSplit:
    """Return items with their targets, and with what divisions keep in proportion."""
    encoded = task_named(task).encode(targets, len(targets), targets.shape[1])
    return dataclasses.replace(kept, targets=targets, labels=encoded.levels)


def _say_what_joins(
    old: _Old, fresh: Split, rows: Any, test_rows: NDArray[Any], session: Session
) -> None:
    new = fresh.classes[len(old.saved.classes) :]
    before = len(old.kept.train.ids)
    classes = f", of which {quoted(new, 5)} {verb(len(new))} new to it" if new else ""
    held = f" in {count(len(set(fresh.labels.tolist())), 'class', 'classes')}"
    session.say(
        f"{count(len(fresh), 'item')}{held if fresh.targets is None else ''}{classes} join"
        f" {count(before, 'training item')}; the test split of"
        f" {count(len(old.kept.test.ids), 'item')} stays as it was"
    )
    if new:
        session.say(
            f"no test item is of {quoted(new, 5)}: the figures say nothing about"
            f" {'that class' if len(new) == 1 else 'those classes'}"
            if fresh.targets is None
            else f"{quoted(new, 5)} {verb(len(new))} new labels, and every old item counts as one"
            " without them"
        )
    leaks = find_leaks(rows, test_rows) if min(len(fresh), len(test_rows)) else ()
    if leaks:
        session.say(
            f"{count(len(leaks), 'test item')} nearly {verb(len(leaks), 'equals', 'equal')} a new"
            f" item (such as {fresh.origins[leaks[0].train]}): the score may flatter"
        )


def _strange(old: _Old, items: _Joined) -> tuple[Outliers | None, Strangeness | None]:
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


def _fit(old: _Old, items: _Joined, session: Session) -> Trained:
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
        start, _ = starting_head(
            begun, old.backbone, classes, made["class_names"], made.get("prompt")
        )
        begun_as = fit_started(rows, start, folds=made["folds"], called=STARTS[begun])
        return calibrated(begun_as, rows, None, rule=rule)
    kind, options = head_for(made["head"], made["head_options"]), dict(made["head_options"])
    if made.get("class_weight") is not None:
        options["class_weight"] = made["class_weight"]
    settings = kind.settings(options, folds=made["folds"])
    trained = with_thresholds(kind.fit(rows, settings), rows, made.get("threshold", "auto"))
    return calibrated(trained, rows, kind, settings, folds=made["folds"], rule=rule)


__all__ = ["UpdateConfig", "update"]
