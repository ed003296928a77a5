"""The parts of the data that a fine-tuning uses: one trains, one chooses, one is scored."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from headstart.core.division import stratified_split
from headstart.core.errors import DataError
from headstart.core.progress import Reporter
from headstart.data import BadItem, Dataset, Inputs, Split, unreadable
from headstart.data.reading import OnBad, settle_bad_items

Decode = Callable[[Split], Sequence[BadItem]]
"""Decodes the items of a part, and returns those that cannot be decoded."""


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
    first, second = stratified_split(whole.labels, fraction, seed=seed, keys=whole.ids)
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
    parts: Sequence[Split], decoders: Sequence[Decode], on_bad: OnBad, reporter: Reporter
) -> list[NDArray[np.int64]]:
    """Return which items of the parts can be decoded; all that cannot are told at once.

    Args:
        parts: the parts.
        decoders: for every part, what decodes its items: their features are extracted at the same
            time where they are needed anyway.
        on_bad: ``raise`` or ``skip``.
        reporter: shown what is left out.

    Returns:
        For every part the positions of its readable items, ``(m,) int64``.

    Raises:
        BadFilesError: items cannot be read (``on_bad="raise"``).
    """
    found = [decode(part) for part, decode in zip(parts, decoders, strict=True)]
    settle_bad_items([item for items in found for item in items], on_bad, reporter)
    kept = []
    for part, items in zip(parts, found, strict=True):
        lost = {part.ids[item.index] for item in items}  # equal items are decoded once
        kept.append(
            np.array([i for i, key in enumerate(part.ids) if key not in lost], dtype=np.int64)
        )
    return kept


def undecodable(
    part: Split,
    inputs: Inputs,
    known: set[str],
    workers: int | None,
    reporter: Reporter,
) -> tuple[BadItem, ...]:
    """Decode the items of a part once, and return those that cannot be decoded.

    Args:
        part: the part.
        inputs: of the backbone.
        known: ids that are left out, since they were decoded before.
        workers: threads that decode.
        reporter: shown progress.
    """
    where = [i for i, key in enumerate(part.ids) if key not in known]
    if not where:
        return ()
    bad = unreadable(part.take(where), inputs, workers=workers, reporter=reporter)
    return tuple(dataclasses.replace(item, index=where[item.index]) for item in bad)


def _labelled(split: Split) -> Split:
    return split if (split.labels >= 0).all() else split.take(split.labels >= 0)


__all__ = ["Decode", "divide", "readable", "undecodable"]
