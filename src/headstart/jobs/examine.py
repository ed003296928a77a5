"""Examining data by its features: what more labels would bring, leaks, doubtful labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.backbones import Backbone
from headstart.cache import FeatureCache
from headstart.data.reading import OnBad
from headstart.extraction import Extraction
from headstart.jobs.embedding import embed
from headstart.jobs.sources import DataOptions, open_dataset
from headstart.jobs.spec import BackboneSpec, resolve_backbone
from headstart.progress import Reporter, console_reporter
from headstart.selection import (
    LabelBudget,
    choose_linear,
    doubtful_labels,
    find_leaks,
    learning_curve,
)


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
    """

    budget: LabelBudget
    near_copies: tuple[NearCopy, ...]
    doubts: tuple[Doubt, ...]
    n_train: int
    n_test: int


def examine(
    data: Any,
    backbone: str | Path | BackboneSpec | Backbone = "headstart/glyphs",
    *,
    repetitions: int = 5,
    threshold: float = 0.98,
    seed: int = 0,
    extraction: Extraction | None = None,
    on_bad: OnBad = "raise",
    cache: Path | str | FeatureCache | None = None,
    data_options: DataOptions | None = None,
    reporter: Reporter | None = None,
) -> Examination:
    """Look for leaks and doubtful labels, and measure what more labels would bring.

    Only the leak check looks at the test split, and only at its images.

    Args:
        data, backbone, on_bad, cache, data_options, reporter: as for :func:`headstart.fit`.
        repetitions: of the learning curve.
        threshold: cosine of centred features from which two images are near copies.
        seed: of folds and draws.
        extraction: batch size, precision, device.
    """
    reporter = reporter or console_reporter()
    store = cache if isinstance(cache, FeatureCache) else FeatureCache(cache)
    network = resolve_backbone(backbone)
    dataset, said = open_dataset(data, data_options or DataOptions(), seed, store, reporter)
    for note in (*said, *network.notes):
        reporter.note(note)
    settings = extraction or Extraction()
    embedded = embed((network,), dataset, store, settings, on_bad, reporter)
    x, labels, classes = embedded.train_rows(), embedded.train.labels, dataset.classes
    choice = choose_linear(x, labels, len(classes), seed=seed, names=classes, reporter=reporter)
    doubts = (
        ()
        if choice.held_out_probabilities is None
        else doubtful_labels(labels, choice.held_out_probabilities)
    )
    budget = learning_curve(
        x, labels, len(classes), repetitions=repetitions, seed=seed, reporter=reporter
    )
    leaks = find_leaks(x, embedded.test_rows(), threshold=threshold)
    train, test = embedded.train.origins, embedded.test.origins
    return Examination(
        budget,
        tuple(NearCopy(test[leak.test], train[leak.train], leak.similarity) for leak in leaks),
        tuple(
            Doubt(train[d.row], classes[d.label], classes[d.suggested], d.probability)
            for d in doubts
        ),
        len(train),
        len(test),
    )
