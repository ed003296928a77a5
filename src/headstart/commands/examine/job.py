"""Examining data by its features: what more labels would bring, leaks, doubtful labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.backbones import Backbone
from headstart.cache import FeatureCache
from headstart.commands.backbone_spec import BackboneSpec, resolve_backbone
from headstart.commands.embedding import Embedded, embed
from headstart.commands.environment import describe_environment
from headstart.commands.fit.job import tell
from headstart.commands.run_folder import prepare_folder
from headstart.commands.sources import DataOptions, open_dataset
from headstart.commands.thumbnails import thumbnail
from headstart.core.errors import ConfigError
from headstart.core.files import write_json
from headstart.core.progress import Reporter, console_reporter
from headstart.core.records import to_plain
from headstart.core.seeds import seed_faults
from headstart.data.reading import OnBad
from headstart.extraction import Extraction
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
        item: where it stands.
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
    backbone: str | Path | BackboneSpec | Backbone = "headstart/glyphs",
    *,
    repetitions: int = 5,
    threshold: float = 0.98,
    seed: int = 0,
    extraction: Extraction | None = None,
    on_bad: OnBad = "raise",
    out: Path | str | None = None,
    write: bool = True,
    cache: Path | str | FeatureCache | None = None,
    data_options: DataOptions | None = None,
    reporter: Reporter | None = None,
) -> Examination:
    """Look for leaks and doubtful labels, and measure what more labels would bring.

    Only the leak check looks at the images of the test split; of its labels, only classes that no
    training item has are said.

    Args:
        data, backbone, on_bad, cache, data_options, reporter: as for :func:`headstart.fit`.
        out: the folder of ``report.html`` and ``examination.json``; None makes
            ``runs/TIME-NAME-examine``.
        write: whether to write them at all.
        repetitions: of the learning curve.
        threshold: cosine of centred features from which two images are near copies.
        seed: of folds and draws.
        extraction: batch size, precision, device.

    Raises:
        ConfigError: an impossible threshold, seed or number of repetitions, before any work.
        DataError, BadFilesError, BackboneError, StoreError, HeadError: as for
            :func:`headstart.fit`.
    """
    _check(repetitions, threshold, seed)
    reporter = reporter or console_reporter()
    store = cache if isinstance(cache, FeatureCache) else FeatureCache(cache)
    network = resolve_backbone(backbone)
    dataset, said = open_dataset(data, data_options or DataOptions(), seed, store, reporter)
    folder = prepare_folder(out, f"{dataset.name}-examine") if write else None
    notes = tell((*said, *network.notes), reporter)
    settings = extraction or Extraction()
    embedded = embed((network,), dataset, store, settings, on_bad, reporter)
    notes += tell(embedded.unseen_note(), reporter)
    x, labels, classes = embedded.train_rows(), embedded.train.labels, dataset.classes
    choice = choose_linear(x, labels, len(classes), seed=seed, names=classes, reporter=reporter)
    notes += tell(choice.notes, reporter)
    doubtful = (
        ()
        if choice.held_out_probabilities is None
        else doubtful_labels(labels, choice.held_out_probabilities)
    )
    budget = learning_curve(
        x, labels, len(classes), repetitions=repetitions, seed=seed, reporter=reporter
    )
    tell(budget.notes, reporter)  # they stand beside the curve
    leaks = find_leaks(x, embedded.test_rows(), threshold=threshold)
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
        notes,
        folder,
    )
    if folder is not None:
        configuration = {
            "data": dataset.name,
            "backbone": to_plain(BackboneSpec.of(network)),
            "repetitions": repetitions,
            "threshold": threshold,
            "seed": seed,
        }
        pairs = tuple((leak.test, leak.train) for leak in leaks)
        _write(found, folder, embedded, pairs, tuple(d.row for d in doubtful), configuration)
    return found


def _check(repetitions: int, threshold: float, seed: int) -> None:
    faults = seed_faults(seed)
    if repetitions < 1:
        faults.append(f"repetitions must be at least 1, not {repetitions}")
    if not -1 <= threshold <= 1:
        faults.append(f"threshold is a cosine, from -1 to 1, not {threshold:g}")
    if faults:
        raise ConfigError(tuple(faults))


def _write(
    found: Examination,
    folder: Path,
    embedded: Embedded,
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
            thumbnail(test.image(one), train.image(other)),
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
            thumbnail(train.image(row)),
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
