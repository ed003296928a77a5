"""Examining data by its features: what more labels would bring, leaks, doubtful labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.commands.embedding import Embedded, embed, load_backbone
from headstart.commands.examine.options import EXAMINE, ExamineConfig
from headstart.commands.run_folder import describe_environment
from headstart.commands.session import Session
from headstart.commands.settings import BackboneLike, BackboneSpec, ReadOptions, RunOptions
from headstart.core.files import write_json
from headstart.core.records import to_plain
from headstart.core.settings import recorded
from headstart.data import Inputs
from headstart.heads import (
    LabelBudget,
    choose_linear,
    doubtful_labels,
    find_leaks,
    learning_curve,
)

EXAMPLES = 24
"""So many near copies, and so many doubtful labels, are shown in the report; the JSON has all."""


@dataclass(frozen=True)
class NearCopy:
    """A test image that nearly equals a training image: where both stand, and their cosine."""

    test: str
    train: str
    similarity: float


@dataclass(frozen=True)
class Doubt:
    """A training image whose held-out prediction confidently disagrees with its label.

    Attributes:
        item: where it is found.
        label, suggested: class names, as given and as predicted.
        probability: held-out probability of ``suggested``.
    """

    item: str
    label: str
    suggested: str
    probability: float


@dataclass(frozen=True, eq=False)
class Examination:
    """What the features say of a data set.

    Attributes:
        budget: accuracy at 1, 2, 5, … labels a class, and the gain from twice as many.
        near_copies: test images that are nearly training images, the most similar first.
        doubts: labels to look at, the most doubtful first.
        n_train, n_test: items looked at.
        notes: what was decided on the user's behalf; ``budget`` has notes of its own.
        folder: where the report was written; None if it was not.
    """

    budget: LabelBudget
    near_copies: tuple[NearCopy, ...]
    doubts: tuple[Doubt, ...]
    n_train: int
    n_test: int
    notes: tuple[str, ...] = ()
    folder: Path | None = None

    def plain(self) -> dict[str, Any]:
        """Return everything in plain values, for ``examination.json``."""
        budget = self.budget
        return {
            "labels_per_class": list(budget.shots),
            "accuracy": to_plain(budget.scores),
            "at_twice_the_labels": to_plain(budget.extrapolated),
            "gain_from_twice_the_labels": to_plain(budget.gain),
            "near_copies": to_plain(self.near_copies),
            "doubtful_labels": to_plain(self.doubts),
            "notes": [*self.notes, *budget.notes],
        }


def examine(
    data: Any,
    backbone: BackboneLike = "headstart/glyphs",
    *,
    config: ExamineConfig | None = None,
    run: RunOptions | None = None,
    reading: ReadOptions | None = None,
    **overrides: Any,
) -> Examination:
    """Look for leaks and doubtful labels, and measure what more labels would bring.

    Only the leak check looks at the images of the test split; of its labels, only classes that no
    training item has are named. With a run folder (``runs/TIME-NAME-examine`` by default) it leaves
    ``report.html`` and ``examination.json``.

    Args:
        data, backbone, run, reading, **overrides: as for :func:`headstart.fit`.
        config: repetitions of the learning curve, and what counts as a near copy.

    Raises:
        ConfigError: impossible settings, before any work.
        DataError, BadFilesError, BackboneError, StoreError, HeadError: as for
            :func:`headstart.fit`.
    """
    config, run, reading, spec = EXAMINE.settle(overrides, config, run, reading, backbone)
    session = Session(run)
    network = load_backbone(spec)
    dataset = session.open_dataset(data, reading)
    folder = session.folder(f"{dataset.name}-examine")
    session.say(*network.notes)
    embedded = embed(session, (network,), dataset)
    session.say(*embedded.unseen_notes())
    x, labels, classes = embedded.train_rows(), embedded.train.labels, dataset.classes
    seed, reporter = run.seed, session.reporter
    choice = choose_linear(x, labels, len(classes), seed=seed, names=classes, reporter=reporter)
    session.say(*choice.notes)
    doubtful = (
        ()
        if choice.held_out_probabilities is None
        else doubtful_labels(labels, choice.held_out_probabilities)
    )
    budget = learning_curve(
        x, labels, len(classes), repetitions=config.repetitions, seed=seed, reporter=reporter
    )
    for note in budget.notes:  # the record has them beside the curve
        reporter.note(note)
    leaks = find_leaks(x, embedded.test_rows(), threshold=config.threshold)
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
    )
    if folder is not None:
        configuration = {
            "data": dataset.name,
            "backbone": BackboneSpec.of(network).plain(),
            **to_plain({**recorded(config), **recorded(run), **recorded(reading)}),
        }
        pairs = tuple((leak.test, leak.train) for leak in leaks)
        rows = tuple(d.row for d in doubtful)
        _write(found, folder, embedded, network.inputs, pairs, rows, configuration)
    return found


def _write(
    found: Examination,
    folder: Path,
    embedded: Embedded,
    inputs: Inputs,
    pairs: tuple[tuple[int, int], ...],
    doubtful: tuple[int, ...],
    configuration: dict[str, Any],
) -> None:
    """Write ``report.html`` and ``examination.json``."""
    from headstart.commands.examine.page import examine_page
    from headstart.report import Example, write_page

    train, test = embedded.train, embedded.test
    copies = [
        Example(
            copy.test,
            (("like", copy.train), ("cosine", f"{copy.similarity:.3f}")),
            inputs.excerpt(test.content(one), train.content(other)),
        )
        for copy, (one, other) in zip(found.near_copies[:EXAMPLES], pairs[:EXAMPLES], strict=True)
    ]
    doubts = [
        Example(
            doubt.item,
            (
                ("label", doubt.label),
                ("looks like", doubt.suggested),
                ("probability", f"{100 * doubt.probability:.1f} %"),
            ),
            inputs.excerpt(train.content(row)),
        )
        for doubt, row in zip(found.doubts[:EXAMPLES], doubtful[:EXAMPLES], strict=True)
    ]
    page = examine_page(
        found.budget,
        title=f"{configuration['data']}: the data, by its features",
        subtitle=f"{found.n_train:,} training and {found.n_test:,} test images",
        near_copies=copies,
        n_near_copies=len(found.near_copies),
        n_test=found.n_test,
        threshold=configuration["threshold"],
        doubts=doubts,
        n_doubts=len(found.doubts),
        n_train=found.n_train,
        notes=found.notes,
        configuration=configuration,
    )
    write_page(page, folder / "report.html")
    write_json(
        folder / "examination.json",
        {**found.plain(), "configuration": configuration, "environment": describe_environment()},
    )


__all__ = ["Doubt", "Examination", "ExamineConfig", "NearCopy", "examine"]
