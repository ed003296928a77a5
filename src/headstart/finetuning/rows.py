"""Boundary rows on disk: the output of a frozen part for an item, stored once, read every epoch.

They are in the store of the feature cache. Where the boundary is the backbone's own feature, they
are the rows of that cache: same key, same code, so that extracting features and fine-tuning a head
on them compute every row once. Elsewhere they are in a space of their own. Its description holds
the prefix (tensors by digest, code), inputs, views and precision, and nothing of the suffix, the
head or the recipe: another run that freezes the same part finds the same rows.
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
from headstart.cache.computing import fill_features
from headstart.cache.fill import Columns
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


def describe_rows(cut: Cut | Candidate, inputs: Inputs, precision: str) -> dict[str, Any]:
    """Describe the function from an item's content to its boundary row, for a space."""
    return {
        "version": 1,
        "kind": "boundary",
        "cut": cut.describe(),
        "preprocessing": inputs.describe(),
        "precision": precision,
        "views": None,
    }


def compute_columns(cut: Cut | Candidate, inputs: Arguments, batch_size: int) -> Columns:
    """Run the prefix of a cut over a batch; return the boundary tensors as the store takes them.

    Args:
        cut: the cut.
        inputs: n items, on the device of the prefix.
        batch_size: what the batch is filled up to, so that all batches have one shape.

    Returns:
        ``b0``, ``b1``, …: each ``(n, *shape)``.
    """
    full = inputs.filled(batch_size)
    pairs = zip(compute_rows(cut.prefix, full.args, full.kwargs), cut.boundary, strict=True)
    return {f"b{i}": to_array(row[: len(inputs)], spec) for i, (row, spec) in enumerate(pairs)}


def stored_tensors(cut: Cut | Candidate, rows: Any) -> tuple[Tensor, ...]:
    """Return rows, as a feature set yields them (one array, or several by name), as tensors."""
    several = isinstance(rows, dict)
    return tuple(
        from_array(rows[f"b{i}"] if several else rows, spec) for i, spec in enumerate(cut.boundary)
    )


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
                inputs = batch.arguments(self.device)
                with autocast(self.settings.precision, self.device):
                    columns = compute_columns(self.cut, inputs, self.settings.batch_size)
                yield Block([split.ids[i] for i in batch.indices], [columns])
        bad += reader.bad

    def read(self, split: Split, view: NumberedView | None = None) -> FeatureSet:
        """Return the stored rows of a split, in its order; nothing is loaded yet."""
        return self.space(view).read(split.ids, 0 if view is None else view.number)

    def tensors(self, rows: Any) -> tuple[Tensor, ...]:
        """Return rows, as a feature set yields them, as boundary tensors on the device."""
        found = stored_tensors(self.cut, rows)
        return tuple(tensor.to(self.device, non_blocking=True) for tensor in found)


__all__ = ["BoundaryRows", "Filled", "compute_columns", "describe_rows", "stored_tensors"]
