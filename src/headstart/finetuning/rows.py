"""Boundary rows on disk: the output of a frozen part for an item, stored once, read every epoch.

They are in the store of the feature cache. Where the boundary is the backbone's own feature, they
are the rows of that cache: same key, same code, so that extracting features and
fine-tuning a head on them compute every row once. Elsewhere they are in a space of their own. Its
description holds the prefix (tensors by digest, code), inputs, views and precision, and nothing of
the suffix, the head or the recipe: another run that freezes the same part finds the same rows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headstart.backbones import Backbone
from headstart.cache import Block, describe_space, fill
from headstart.cache.features import FEATURES, fill_features
from headstart.core.arguments import Arguments
from headstart.core.fingerprints import canonical_json
from headstart.core.progress import Reporter
from headstart.core.records import CacheUse
from headstart.data import BadItem, Inputs, NumberedView, Split, read_batches
from headstart.extraction import Extraction, Extractor, Precision, autocast
from headstart.prefix import Candidate, Cut, from_array, to_array
from headstart.prefix.parts import compute_rows
from headstart.store import FeatureSet, Space, Store

Index = NDArray[np.int64]


def describe_rows(
    cut: Cut | Candidate, inputs: Inputs, precision: str, view: NumberedView | None = None
) -> dict[str, Any]:
    """Describe the function from an item's bytes to its boundary row, for a space.

    The number of a view is left out: all views of one recipe and seed share the space.
    """
    views = None
    if view is not None and view.number > 0:
        views = {**view.describe(), "number": None}
    return {
        "version": 1,
        "kind": "boundary",
        "cut": cut.describe(),
        "preprocessing": inputs.describe(),
        "precision": precision,
        "views": views,
    }


@dataclass(frozen=True, eq=False)
class Filled:
    """What filling a space did: rows found and computed, and items that cannot be read."""

    use: CacheUse
    bad: tuple[BadItem, ...]


class BoundaryRows:
    """The rows of one cut, for any split and view.

    Args:
        cut: prefix and boundary; its tensors have to be those of the stage from now on.
        source: the backbone.
        store: where the rows are.
        precision: of the forward pass, ``float32`` or ``bfloat16``.
        device: where the prefix runs.
        batch_size: items in a forward pass of the prefix.
        workers: threads that decode.
        feature: whether the boundary is the backbone's own feature.
    """

    def __init__(
        self,
        cut: Cut | Candidate,
        source: Backbone,
        store: Store,
        *,
        precision: Precision,
        device: torch.device,
        batch_size: int,
        workers: int | None,
        feature: bool = False,
    ) -> None:
        self.cut, self.source, self.store, self.feature = cut, source, store, feature
        self.device = device
        self.settings = Extraction(batch_size, precision, device=str(device), workers=workers)
        described = (
            describe_space(source, precision)
            if feature
            else describe_rows(cut, source.inputs, precision)
        )
        self._plain = store.space(described)
        self._views: dict[str, Space] = {}

    def space(self, view: NumberedView | None = None) -> Space:
        """Return the space of a view."""
        if view is None or view.number == 0:
            return self._plain
        views = {**view.describe(), "number": None}
        key = canonical_json(views)
        if key not in self._views:
            self._views[key] = self.store.space({**self._plain.description, "views": views})
        return self._views[key]

    def missing(self, split: Split, view: NumberedView | None = None) -> int:
        """Return how many items of a split have no row yet."""
        return len(self.space(view).missing(split.ids, 0 if view is None else view.number))

    def fill(self, split: Split, view: NumberedView | None, reporter: Reporter) -> Filled:
        """Compute and commit the rows that are missing; items that cannot be read stay missing.

        Several processes may do this at the same time: they divide the missing items among
        themselves, and each returns when all rows are there.
        """
        number = 0 if view is None else view.number
        task = f"store the frozen part, view {number}" if number else "store the frozen part"
        if self.feature:
            with Extractor((self.source,), self.settings) as extractor:
                filled, bad = fill_features(
                    extractor, (self.space(view),), split, view=view, task=task, reporter=reporter
                )
            return Filled(filled.use, bad)
        unreadable: list[BadItem] = []
        filled = fill(
            (self.space(view),),
            split.ids,
            lambda keys: self._compute(split, split.positions(keys), view, unreadable),
            task=task,
            unit=self.source.inputs.unit,
            number=number,
            batch_size=self.settings.batch_size,
            reporter=reporter,
        )
        return Filled(filled.use, tuple(unreadable))

    def _compute(
        self, split: Split, where: Index, view: NumberedView | None, bad: list[BadItem]
    ) -> Iterator[Block]:
        """Yield the rows of the items at ``where``; list those that cannot be read in ``bad``."""
        reader = read_batches(
            split,
            where,
            self.source.inputs,
            batch_size=self.settings.batch_size,
            view=view,
            workers=self.settings.workers,
            on_bad="skip",
        )
        with contextlib.closing(reader):
            for batch in reader:
                rows = self._rows(batch.arguments(self.device))
                yield Block([split.ids[i] for i in batch.indices], [rows])
        bad += reader.bad

    def read(self, split: Split, view: NumberedView | None = None) -> FeatureSet:
        """Return the stored rows of a split, in its order; nothing is loaded yet."""
        return self.space(view).read(split.ids, 0 if view is None else view.number)

    def tensors(self, rows: dict[str, NDArray[Any]] | NDArray[Any]) -> tuple[Tensor, ...]:
        """Return the boundary tensors of rows as a feature set yields them, on the device."""
        named = rows if isinstance(rows, dict) else {self._column(0): rows}
        return tuple(
            from_array(named[self._column(i)], spec).to(self.device, non_blocking=True)
            for i, spec in enumerate(self.cut.boundary)
        )

    def _column(self, number: int) -> str:
        return FEATURES if self.feature else f"b{number}"

    def _rows(self, inputs: Arguments) -> dict[str, NDArray[Any]]:
        full = inputs.filled(self.settings.batch_size)
        with autocast(self.settings.precision, self.device):
            boundary = compute_rows(self.cut.prefix, full.args, full.kwargs)
        return {
            self._column(i): to_array(tensor[: len(inputs)], spec)
            for i, (tensor, spec) in enumerate(zip(boundary, self.cut.boundary, strict=True))
        }


__all__ = ["BoundaryRows", "Filled", "describe_rows"]
