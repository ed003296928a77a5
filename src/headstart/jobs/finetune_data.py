"""The parts of the data that a fine-tuning uses: one trains, one chooses, one is scored."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from headstart.data import BadItem, Dataset, Preprocessing, Split, stratified_split
from headstart.data.reading import OnBad, settle_bad_items
from headstart.errors import DataError
from headstart.progress import Reporter
from headstart.training.opening import unreadable


def divide(dataset: Dataset, fraction: float, seed: int) -> tuple[Split, Split, str]:
    """Return the part that trains, the part that chooses the best epoch, and a note about it.

    Args:
        dataset: its validation split chooses, where it has one; else a part of the training split.
        fraction: share of the training split that is held out.
        seed: decides which items; equal items stay together.

    Raises:
        DataError: fewer than two classes, or nothing to hold out.
    """
    whole = _labelled(dataset.train)
    if len(np.unique(whole.labels)) < 2:
        raise DataError(
            "the training split holds fewer than two classes",
            hint="a classifier needs items of two classes or more",
        )
    if "validation" in dataset.splits:
        validation = _labelled(dataset.splits["validation"])
        return whole, validation, f"the data's own {len(validation):,} items choose the best epoch"
    first, second = stratified_split(whole.labels, fraction, seed=seed, groups=whole.ids)
    if not len(second):
        raise DataError(
            "no item can be held out to choose the best epoch",
            hint="a class needs at least two different items",
        )
    note = (
        f"{len(second):,} of {len(whole):,} training items choose the best epoch and train nothing;"
        " the test split chooses nothing"
    )
    return whole.take(first), whole.take(second), note


def readable(
    parts: Sequence[Split],
    preprocessing: Preprocessing,
    stored: Callable[[Split], set[str]],
    workers: int | None,
    on_bad: OnBad,
    reporter: Reporter,
) -> list[Split]:
    """Return the parts without items that cannot be decoded, all of which are told at once.

    Args:
        parts: the parts.
        preprocessing: of the backbone.
        stored: returns the ids of a split of which features are stored: they were decoded once.
        workers: threads that decode.
        on_bad: ``raise`` or ``skip``.
        reporter: shown progress, and what is left out.

    Raises:
        BadFilesError: items cannot be read (``on_bad="raise"``).
    """
    found: list[list[BadItem]] = []
    for part in parts:
        known = stored(part)
        where = [i for i, key in enumerate(part.ids) if key not in known]
        bad = unreadable(part.take(where), preprocessing, workers, reporter) if where else ()
        found.append([dataclasses.replace(item, index=where[item.index]) for item in bad])
    settle_bad_items([item for items in found for item in items], on_bad, reporter)
    kept = []
    for part, items in zip(parts, found, strict=True):
        lost = {item.index for item in items}
        kept.append(part.take([i for i in range(len(part)) if i not in lost]))
    return kept


def _labelled(split: Split) -> Split:
    return split if (split.labels >= 0).all() else split.take(split.labels >= 0)


__all__ = ["divide", "readable"]
