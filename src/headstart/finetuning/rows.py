"""Boundary rows on disk: what a frozen prefix gives for an item, stored once, read every epoch.

They lie in the store of the feature cache, in a space of their own. Its description holds the
prefix (tensors by digest, code), preprocessing, views and precision, and nothing of the suffix, the
head or the recipe: another run that freezes the same part finds the same rows.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headstart.core.arguments import Arguments
from headstart.core.fingerprints import canonical_json
from headstart.core.progress import Reporter, Task
from headstart.core.records import CacheUse
from headstart.data import BadItem, Inputs, NumberedView, Split, read_batches
from headstart.prefix import Candidate, Cut, from_array, to_array
from headstart.prefix.rows import compute_rows
from headstart.store import FeatureSet, Space, Store

Index = NDArray[np.int64]

COMMIT_BYTES = 32 * 2**20
"""Rows are committed after this much memory: a killed run loses no more than that."""
CLAIM_SECONDS = 15.0
"""Work that one process claims at a time, so that others have something to do."""
_CLAIMED_BATCHES, _POLL_SECONDS = 4, 0.2


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
        inputs: of the backbone.
        store: where the rows lie.
        precision: of the forward pass, ``float32`` or ``bfloat16``.
        device: where the prefix runs.
        batch_size: items a forward pass of the prefix.
        workers: threads that decode.
    """

    def __init__(
        self,
        cut: Cut | Candidate,
        inputs: Inputs,
        store: Store,
        *,
        precision: str,
        device: torch.device,
        batch_size: int,
        workers: int | None,
    ) -> None:
        self.cut, self.inputs, self.store = cut, inputs, store
        self.precision, self.device = precision, device
        self.batch_size, self.workers = batch_size, workers
        self._plain = store.space(describe_rows(cut, inputs, precision))
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
        space, number = self.space(view), 0 if view is None else view.number
        wanted = space.missing(split.ids, number)
        unique = len(set(split.ids))
        if not wanted:
            return Filled(CacheUse(unique, 0), ())
        what = "store the frozen part" if not number else f"store the frozen part, view {number}"
        first = {key: i for i, key in reversed(list(enumerate(split.ids)))}
        bad: list[BadItem] = []
        lost: set[str] = set()
        told = False
        with reporter.task(what, len(wanted), self.inputs.unit) as task:
            missing = wanted
            chunk = _CLAIMED_BATCHES * self.batch_size
            try:
                while missing:
                    mine = space.claim(missing, number, limit=chunk)
                    if mine:
                        begun = time.monotonic()
                        where = np.array([first[key] for key in mine], dtype=np.int64)
                        bad += self._compute(space, split, where, view, task)
                        lost = {split.ids[item.index] for item in bad}
                        # The first claim is small, to learn the speed.
                        rate = len(mine) / max(time.monotonic() - begun, 1e-3)
                        batches = int(rate * CLAIM_SECONDS / self.batch_size)
                        chunk = max(_CLAIMED_BATCHES, batches) * self.batch_size
                    elif not told:
                        reporter.note("another process stores the remaining rows; waiting for it")
                        told = True
                    before = len(missing)
                    missing = [key for key in space.missing(missing, number) if key not in lost]
                    task.advance(max(0, before - len(missing) - len(mine)))
                    if missing and not mine:
                        time.sleep(_POLL_SECONDS)
            finally:
                space.release()
        return Filled(CacheUse(unique - len(wanted), len(wanted) - len(lost)), tuple(bad))

    def _compute(
        self, space: Space, split: Split, where: Index, view: NumberedView | None, task: Task
    ) -> tuple[BadItem, ...]:
        """Compute the rows at ``where``, and commit them; return items that cannot be read."""
        reader = read_batches(
            split,
            where,
            self.inputs,
            batch_size=self.batch_size,
            view=view,
            workers=self.workers,
            on_bad="skip",
        )
        number = 0 if view is None else view.number
        waiting: list[tuple[Index, tuple[NDArray[Any], ...]]] = []
        with contextlib.closing(reader):
            try:
                for batch in reader:
                    waiting.append((batch.indices, self._rows(batch.arguments(self.device))))
                    task.advance(len(batch))
                    if sum(a.nbytes for _, arrays in waiting for a in arrays) >= COMMIT_BYTES:
                        ready, waiting = waiting, []
                        self._commit(space, split, number, ready)
            finally:
                self._commit(space, split, number, waiting)
        return tuple(reader.bad)

    def read(self, split: Split, view: NumberedView | None = None) -> FeatureSet:
        """Return the stored rows of a split, in its order; nothing is loaded yet."""
        return self.space(view).read(split.ids, 0 if view is None else view.number)

    def tensors(self, rows: dict[str, NDArray[Any]] | NDArray[Any]) -> tuple[Tensor, ...]:
        """Return the boundary tensors of rows as a feature set gives them, on the device."""
        named = rows if isinstance(rows, dict) else {"b0": rows}
        return tuple(
            from_array(named[f"b{i}"], spec).to(self.device, non_blocking=True)
            for i, spec in enumerate(self.cut.boundary)
        )

    def _rows(self, inputs: Arguments) -> tuple[NDArray[Any], ...]:
        full = inputs.filled(self.batch_size)
        with autocast(self.precision, self.device):
            boundary = compute_rows(self.cut.prefix, full.args, full.kwargs)
        return tuple(
            to_array(tensor[: len(inputs)], spec)
            for tensor, spec in zip(boundary, self.cut.boundary, strict=True)
        )

    def _commit(
        self,
        space: Space,
        split: Split,
        number: int,
        waiting: list[tuple[Index, tuple[NDArray[Any], ...]]],
    ) -> None:
        if not waiting:
            return
        ids = [split.ids[i] for indices, _ in waiting for i in indices]
        columns = {
            f"b{i}": np.concatenate([arrays[i] for _, arrays in waiting])
            for i in range(len(self.cut.boundary))
        }
        space.append(ids, columns, number)


@contextlib.contextmanager
def autocast(precision: str, device: torch.device) -> Iterator[None]:
    """Run in float32, or in bfloat16 where that is safe."""
    half = precision == "bfloat16"
    with torch.autocast(device.type, dtype=torch.bfloat16 if half else None, enabled=half):
        yield


__all__ = ["BoundaryRows", "Filled", "autocast", "describe_rows"]
