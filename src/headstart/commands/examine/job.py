"""Examining data by its features: what more labels would bring, leaks, doubtful labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.commands.embedding import embed, open_call
from headstart.commands.examine.examination import EXAMPLES, Doubt, Examination, NearCopy
from headstart.commands.examine.options import EXAMINE, ExamineConfig
from headstart.commands.examined import keep_examination
from headstart.commands.invocation import Call, Commands
from headstart.commands.run_folder import describe_environment
from headstart.commands.run_place import holds_folder, publishing_run
from headstart.commands.run_report import write_tested
from headstart.commands.session import Session
from headstart.commands.settings import BackboneLike, BackboneSpec, ReadOptions, RunOptions
from headstart.core.files import write_json
from headstart.core.records import Excerpt, to_plain
from headstart.core.settings import recorded
from headstart.heads import (
    DoubtfulLabel,
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
    """Look for leaks and doubtful labels, and measure what more labels would bring.

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
    session.say(*embedded.unseen_notes())
    x, labels, classes = embedded.train_rows(), embedded.train.labels, dataset.classes
    seed, reporter = run.seed, session.reporter
    together = keep_together(labels, x, keys=embedded.train.ids, names=classes)
    keys, groups = together.keys, embedded.train.groups
    doubtful, held_out, notes = _doubts(
        TrainingRows(
            x,
            labels,
            len(classes),
            keys=keys,
            groups=groups,
            names=classes,
            seed=seed,
            reporter=reporter,
        )
    )
    session.say(*together.notes, *notes)
    budget = learning_curve(
        x,
        labels,
        len(classes),
        repetitions=config.repetitions,
        seed=seed,
        keys=keys,
        groups=groups,
        reporter=reporter,
    )
    for note in budget.notes:  # the record has them beside the curve
        reporter.note(note)
    leaks = find_leaks(x, embedded.test_rows(), threshold=config.threshold)
    keep_examination(
        session.cache.store,
        embedded.fingerprints(network, session.run),
        (embedded.train, embedded.test),
        leaks,
        doubtful,
    )
    train, test = embedded.train.origins, embedded.test.origins
    found = Examination(
        budget,
        tuple(NearCopy(test[leak.test], train[leak.train], leak.similarity) for leak in leaks),
        tuple(
            Doubt(train[d.row], classes[d.label], classes[d.suggested], d.probability)
            for d in doubtful
        ),
        len(train),
        len(test),
        tuple(session.notes),
        folder,
        Commands(call.again(), (call.then("fit"),)),
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
            [inputs.excerpt(first.content(d.row)) for d in doubtful[:EXAMPLES]],
        )
        with publishing_run(folder) as place:
            if held_out is not None:  # by a head that did not see the item
                write_tested(place, classes, embedded.train, held_out, split="train, held out")
            _write(found, place, excerpts, configuration)
    return found


def _doubts(
    rows: TrainingRows,
) -> tuple[tuple[DoubtfulLabel, ...], NDArray[np.float64] | None, tuple[str, ...]]:
    """Return doubtful labels, the held-out probabilities where they are kept, and notes."""
    x, labels, k = as_rows(rows.x), np.asarray(rows.y), rows.n_classes
    if search_takes_too_long(x.shape, k):
        found, notes = doubtful_labels_of_many_classes(x, labels, k, keys=rows.keys, seed=rows.seed)
        return found, None, notes
    choice = choose_linear(
        x, labels, k, seed=rows.seed, keys=rows.keys, names=rows.names, reporter=rows.reporter
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
