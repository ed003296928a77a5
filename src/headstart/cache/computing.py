"""Backbone + items → rows of a space: what the space is called, and who computes what it lacks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from headstart.backbones import Backbone
from headstart.cache.fill import Block, Compute, Filled, fill, missing_rows
from headstart.core.progress import Reporter
from headstart.data import BadItem, NumberedView, Split
from headstart.extraction import Extractor, Precision, Storage
from headstart.store import Space

FEATURES = "features"
"""The column of a feature space."""


def describe_space(
    cut: Backbone,
    precision: Precision = "float32",
    view: NumberedView | None = None,
    storage: Storage = "float32",
) -> dict[str, Any]:
    """Describe the function from an item's bytes to its row, in plain values.

    The number of a view is not part of it: views of one recipe and seed share a space, where a
    row is known by its item and its number.
    """
    augmented = view is not None and view.number > 0
    views = {**view.describe(), "number": None} if view is not None and augmented else None
    return {
        "version": 1,
        "backbone": cut.identity(),
        "preprocessing": cut.inputs.describe(),
        "normalisation": {"statistics": "running"},
        "precision": precision,
        "storage": storage,
        "views": views,
    }


def fill_features(
    extractor: Extractor,
    spaces: Sequence[Space],
    split: Split,
    *,
    view: NumberedView | None = None,
    task: str = "extract features",
    reporter: Reporter | None = None,
) -> tuple[Filled, tuple[BadItem, ...]]:
    """Compute and commit the features of a split that are missing.

    Args:
        extractor: of the network, at one or several cuts.
        spaces: of those cuts, as :meth:`FeatureCache.space` returns them.
        split: the items.
        view: a numbered augmentation.
        task: what progress shows.
        reporter: shown progress.

    Returns:
        What was done, and the items that cannot be read.
    """
    known, number = len(extractor.bad), 0 if view is None else view.number
    extractor.ahead = len(missing_rows(spaces, split.ids, number))
    filled = fill(
        spaces,
        split.ids,
        compute_features(extractor, split, view, reporter),
        task=task,
        unit=extractor.cuts[0].inputs.unit,
        number=number,
        batch_size=extractor.settings.batch_size,
        storage=extractor.settings.storage,
        reporter=reporter,
        stages=extractor.stages,
    )
    return filled, tuple(extractor.bad[known:])


def compute_features(
    extractor: Extractor,
    split: Split,
    view: NumberedView | None = None,
    reporter: Reporter | None = None,
) -> Compute:
    """Return what computes features of a split by their ids, for a filling.

    Args:
        extractor: of the network, at one or several cuts.
        split: the items.
        view: a numbered augmentation.
        reporter: told how the network runs.
    """

    def compute(keys: list[str]) -> Iterator[Block]:
        for rows in extractor.rows(split, split.positions(keys), view=view):
            ids = [split.ids[i] for i in rows.indices]
            if reporter is not None:
                extractor.tell(reporter)  # how the network runs, once the first batch has run
            yield Block(ids, [{FEATURES: block} for block in rows.features])

    return compute


__all__ = ["FEATURES", "compute_features", "describe_space", "fill_features"]
