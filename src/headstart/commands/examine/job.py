"""Examining data by its features: what more labels would bring, leaks, doubtful labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.commands.embedding import Embedded, embed, open_call, with_table_columns
from headstart.commands.examine.examination import EXAMPLES, Doubt, Examination, NearCopy
from headstart.commands.examine.options import EXAMINE, ExamineConfig
from headstart.commands.examined import keep_examination
from headstart.commands.invocation import Call, Commands
from headstart.commands.run_facts import describe_environment
from headstart.commands.run_place import holds_folder, publishing_run
from headstart.commands.run_report import write_tested
from headstart.commands.session import Session
from headstart.commands.settings import BackboneLike, BackboneSpec, ReadOptions, RunOptions
from headstart.commands.task_report import write_task_tested
from headstart.core.files import write_json
from headstart.core.records import Excerpt, to_plain
from headstart.core.settings import recorded
from headstart.data import Split
from headstart.evaluation.tasks import MULTI_LABEL
from headstart.heads import (
    DoubtfulLabel,
    Head,
    LabelBudget,
    TrainingRows,
    choose_linear,
    doubtful_labels,
    doubtful_labels_of_many_classes,
    find_leaks,
    keep_together,
    learning_curve,
    search_takes_too_long,
)
from headstart.heads.features import as_rows
from headstart.heads.task_checks import (
    DoubtfulMembership,
    DoubtfulValue,
    ItemBudget,
    described,
    doubtful_memberships,
    doubtful_values,
    held_out_outputs,
    item_curve,
)


@holds_folder
def examine(
    data: Any,
    backbone: BackboneLike = "auto",
    *,
    config: ExamineConfig | None = None,
    run: RunOptions | None = None,
    reading: ReadOptions | None = None,
    **overrides: Any,
) -> Examination:
    """Look for leaks and doubtful labels, and measure what more labels would gain.

    Only the leak check looks at the items of the test split; of its labels, only classes that no
    training item has are named. With a run folder (``runs/TIME-NAME-examine`` by default) it leaves
    ``report.html``, ``examination.json`` and the held-out predictions for the training items.

    Args:
        data, backbone, run, reading, **overrides: as for :func:`headstart.fit`.
        config: repetitions of the learning curve, and what counts as a near copy.

    Raises:
        ConfigError: impossible settings, before any work.
        DataError, BadFilesError, BackboneError, StoreError, HeadError: as for
            :func:`headstart.fit`.
    """
    call = Call(EXAMINE, data, *EXAMINE.settle(overrides, config, run, reading, backbone))
    config, run, reading = call.config, call.run, call.reading
    session = Session(run)
    call, network, dataset = open_call(session, call)
    folder = session.folder(f"{dataset.name}-examine")
    session.say(*network.notes)
    embedded = embed(session, (network,), dataset)
    # Near copies are those of the items, whatever a table says of them.
    leaks = find_leaks(embedded.train_rows(), embedded.test_rows(), threshold=config.threshold)
    embedded, _ = with_table_columns(session, embedded, reading)
    session.say(*embedded.unseen_notes())
    seen = (_classes if embedded.train.targets is None else _task)(embedded, config, session)
    session.say(*seen.notes)
    for note in seen.budget.notes:  # the record has them beside the curve
        session.reporter.note(note)
    keep_examination(
        session.cache.store,
        embedded.fingerprints(network, session.run),
        (embedded.train, embedded.test),
        leaks,
        seen.labels,
    )
    train, test = embedded.train.origins, embedded.test.origins
    found = Examination(
        seen.budget,
        tuple(NearCopy(test[leak.test], train[leak.train], leak.similarity) for leak in leaks),
        seen.doubts,
        len(train),
        len(test),
        tuple(session.notes),
        folder,
        Commands(call.again(), (call.then("fit"),)),
        dataset.task,
    )
    if folder is not None:
        configuration = {
            "data": dataset.name,
            "backbone": BackboneSpec.of(network).plain(),
            **to_plain({**recorded(config), **recorded(session.run), **recorded(reading)}),
        }
        inputs, first, second = network.inputs, embedded.train, embedded.test
        excerpts = (
            [
                inputs.excerpt(second.content(leak.test), first.content(leak.train))
                for leak in leaks[:EXAMPLES]
            ],
            [inputs.excerpt(first.content(row)) for row in seen.rows[:EXAMPLES]],
        )
        with publishing_run(folder) as place:
            seen.write(place, first)
            _write(found, place, excerpts, configuration)
    return found


@dataclass(frozen=True, eq=False)
class _Seen:
    """What was found out of the labels.

    Attributes:
        budget: the learning curve.
        doubts: the labels to look at.
        rows: which training item each is about.
        outputs: ``(n, k)``, what heads that did not see an item say of it; None: not known.
        head: with the thresholds of several labels; None for classes.
        notes: what was decided on the user's behalf.
        labels: the doubts about classes.
    """

    budget: LabelBudget | ItemBudget
    doubts: tuple[Doubt, ...]
    rows: tuple[int, ...]
    outputs: NDArray[np.float64] | None
    head: Head | None
    notes: tuple[str, ...]
    labels: tuple[DoubtfulLabel, ...] = ()

    def write(self, place: Path, train: Split) -> None:
        """Write what was said of each training item by a head that did not see it."""
        if self.outputs is None:
            return
        split = "train, held out"
        if self.head is None:
            write_tested(place, train.classes, train, self.outputs, split=split)
        else:
            write_task_tested(place, self.head, train, self.outputs, split=split)


def _classes(embedded: Embedded, config: ExamineConfig, session: Session) -> _Seen:
    """Examine one class an item."""
    x, labels, classes = embedded.train_rows(), embedded.train.labels, embedded.train.classes
    together = keep_together(labels, x, keys=embedded.train.ids, names=classes)
    shared: dict[str, Any] = {
        "keys": together.keys,
        "groups": embedded.train.groups,
        "seed": session.run.seed,
        "reporter": session.reporter,
    }
    rows = TrainingRows(x, labels, len(classes), names=classes, **shared)
    doubtful, held_out, notes = _doubts(rows)
    budget = learning_curve(x, labels, len(classes), repetitions=config.repetitions, **shared)
    doubts = tuple(
        Doubt(
            embedded.train.origins[d.row],
            classes[d.label],
            classes[d.suggested],
            d.probability,
            f"{d.probability:.0%}",
        )
        for d in doubtful
    )
    where = tuple(d.row for d in doubtful)
    return _Seen(budget, doubts, where, held_out, None, (*together.notes, *notes), doubtful)


def _task(embedded: Embedded, config: ExamineConfig, session: Session) -> _Seen:
    """Examine several labels an item, or numbers."""
    train = embedded.train
    rows = embedded.training_rows(session)
    held = held_out_outputs(rows)
    found: tuple[DoubtfulMembership | DoubtfulValue, ...] = ()
    if held.outputs is not None and train.task == MULTI_LABEL.name:
        found = doubtful_memberships(train.y, held.outputs)
    elif held.outputs is not None:
        found = doubtful_values(train.y, held.outputs)
    doubts = tuple(
        Doubt(
            train.origins[one.row],
            str(told["given"]),
            str(told["expected"]),
            one.probability if isinstance(one, DoubtfulMembership) else math.nan,
            str(told["sure"]),
        )
        for one, told in zip(found, described(found, train.classes), strict=True)
    )
    budget = item_curve(rows, repetitions=config.repetitions, reporter=session.reporter)
    where = tuple(one.row for one in found)
    return _Seen(budget, doubts, where, held.outputs, held.head, held.notes)


def _doubts(
    rows: TrainingRows,
) -> tuple[tuple[DoubtfulLabel, ...], NDArray[np.float64] | None, tuple[str, ...]]:
    """Return doubtful labels, the held-out probabilities where they are kept, and notes."""
    x, labels, k = as_rows(rows.x), np.asarray(rows.y), rows.n_classes
    if search_takes_too_long(x.shape, k):
        found, notes = doubtful_labels_of_many_classes(
            x, labels, k, keys=rows.keys, groups=rows.groups, seed=rows.seed
        )
        return found, None, notes
    choice = choose_linear(
        x,
        labels,
        k,
        seed=rows.seed,
        keys=rows.keys,
        groups=rows.groups,
        names=rows.names,
        reporter=rows.reporter,
    )
    held_out = choice.held_out_probabilities
    found = () if held_out is None else doubtful_labels(labels, held_out)
    return found, held_out, choice.notes


def _write(
    found: Examination,
    folder: Path,
    excerpts: tuple[Sequence[Excerpt], Sequence[Excerpt]],
    configuration: dict[str, Any],
) -> None:
    """Write ``report.html`` and ``examination.json``."""
    from headstart.commands.examine.page import examine_page
    from headstart.report import write_page

    write_page(examine_page(found, *excerpts, configuration), folder / "report.html")
    write_json(
        folder / "examination.json",
        {
            **found.plain(),
            "command": found.commands.made,
            "configuration": configuration,
            "environment": describe_environment(),
        },
    )


__all__ = ["Doubt", "Examination", "ExamineConfig", "NearCopy", "examine"]
