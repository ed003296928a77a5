"""The cache: feature space + items → rows, computing only what is missing.

A space holds the rows of one function: weights and buffers up to the cut, architecture,
preprocessing, layer, pooling, normalisation, precision. A row is known by the content of its item.
So a second run, another split, a renamed folder or added images cost only what is new.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import Backbone
from headstart.core.errors import DataError, StoreError
from headstart.core.fingerprints import sha256
from headstart.core.progress import Reporter, SilentReporter, Task
from headstart.core.records import CacheUse
from headstart.data import BadItem, NumberedView, Split
from headstart.data.reading import OnBad, settle_bad_items
from headstart.extraction import Extraction, Extractor, Precision, Storage
from headstart.store import FeatureSet, Memo, Space, Store

COMMIT_SECONDS = 15.0
COMMIT_BYTES = 32 * 2**20
"""Rows are committed after this much work or memory: a killed run loses no more than that."""


def default_location() -> Path:
    """Return ``$HEADSTART_CACHE`` if it is set, else the platform's cache folder."""
    named = os.environ.get("HEADSTART_CACHE")
    return Path(named).expanduser() if named else _platform_location()


def _platform_location() -> Path:
    import platformdirs

    return Path(platformdirs.user_cache_dir("headstart", appauthor=False))


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


@dataclass(frozen=True, eq=False)
class CachedFeatures:
    """Rows of one split, at one or several cuts.

    Attributes:
        sets: one :class:`~headstart.store.FeatureSet` a cut, rows in the order of ``kept``.
        kept: ``(m,) int64``, positions in the split that have a row; all, unless bad files were
            skipped.
        use: rows found and rows computed, counted over unique items.
        bad: items that could not be read.
        seconds: wall time of reading and computing.
    """

    sets: tuple[FeatureSet, ...]
    kept: NDArray[np.int64]
    use: CacheUse
    bad: tuple[BadItem, ...]
    seconds: float

    @property
    def rows(self) -> NDArray[np.float32]:
        """The rows of the first cut, ``(m, d) float32``."""
        return np.asarray(self.sets[0].array(), dtype=np.float32)


class FeatureCache:
    """Features on disk under one folder.

    Args:
        location: the folder; None: ``$HEADSTART_CACHE``, else the platform's cache folder. It is
            created when the first row is committed. An address that fsspec knows
            (``s3://bucket/features``) is shared by machines; a local mirror of what this machine
            has seen lies in the platform's cache folder.
    """

    def __init__(self, location: Path | str | None = None) -> None:
        chosen = location if location is not None else os.environ.get("HEADSTART_CACHE")
        if isinstance(chosen, str) and "://" in chosen:
            name = sha256(chosen)[:16]
            self.location = _platform_location() / "mirrors" / name
            self.store = Store(self.location, remote=chosen)
        else:
            self.location = default_location() if chosen is None else Path(chosen).expanduser()
            self.store = Store(self.location)

    def memo(self) -> Memo:
        """Return the memo of file digests, a context to be left after use."""
        return Memo(self.location / "files.sqlite")

    def space(
        self, cut: Backbone, settings: Extraction | None = None, view: NumberedView | None = None
    ) -> Space:
        """Return the space of a cut."""
        settings = settings or Extraction()
        return self.store.space(describe_space(cut, settings.precision, view, settings.storage))

    def features(
        self,
        cuts: Backbone | Sequence[Backbone] | Extractor,
        split: Split,
        *,
        settings: Extraction | None = None,
        view: NumberedView | None = None,
        on_bad: OnBad = "raise",
        reporter: Reporter | None = None,
    ) -> CachedFeatures:
        """Return the rows of a split, computing those that are not there yet.

        Several processes may do this at the same time for the same data: they divide the missing
        items among themselves, and each returns when all rows are there.

        Args:
            cuts: one network, cut at one or several places; or an extractor, which spares the
                compilation for every further split.
            split: the items. Equal items are computed once.
            settings: batch size, precision and device of what has to be computed; an extractor
                has its own.
            view: a numbered augmentation; None: the items without augmentation.
            on_bad: what to do with items that cannot be read: ``raise`` after everything else has
                been computed and committed, or ``skip``.
            reporter: shown progress, and why rows are missing.

        Raises:
            BadFilesError: items cannot be read (``on_bad="raise"``).
            BackboneError: the rows would depend on the batch or on chance.
            StoreError: the rows cannot be written or read; what was committed stays.
        """
        begun = time.perf_counter()
        reporter = reporter or SilentReporter()
        with _extractor(cuts, settings) as extractor:
            spaces = tuple(self.space(cut, extractor.settings, view) for cut in extractor.cuts)
            ids = split.ids
            unique = len(set(ids))
            number = 0 if view is None else view.number
            missing = _missing(spaces, ids, number)
            bad: tuple[BadItem, ...] = ()
            if missing:
                if not len(spaces[0]):
                    _explain(spaces[0], reporter)
                _check_room(extractor, spaces, ids, number)
                bad = _Filling(extractor, spaces, split, view, reporter).run(missing)
        settle_bad_items(bad, on_bad, reporter)
        lost = {ids[item.index] for item in bad}
        kept = np.array([i for i, key in enumerate(ids) if key not in lost], dtype=np.int64)
        if not len(kept):
            raise DataError("no item of the data can be read", hint="see the reasons above")
        kept_ids = [ids[i] for i in kept]
        sets = tuple(space.read(kept_ids, number) for space in spaces)
        use = CacheUse(hits=unique - len(missing), misses=len(missing) - len(lost))
        return CachedFeatures(sets, kept, use, bad, time.perf_counter() - begun)


class _Filling:
    """Computes the missing rows of one split and commits them in shards of a good size."""

    def __init__(
        self,
        extractor: Extractor,
        spaces: tuple[Space, ...],
        split: Split,
        view: NumberedView | None,
        reporter: Reporter,
    ) -> None:
        self.extractor, self.spaces, self.split, self.view = extractor, spaces, split, view
        self.reporter = reporter
        self.number = 0 if view is None else view.number
        self.positions = {key: i for i, key in reversed(list(enumerate(split.ids)))}
        self.bad: list[BadItem] = []
        self.chunk = 4 * extractor.settings.batch_size

    def run(self, missing: list[str]) -> tuple[BadItem, ...]:
        """Compute until no row is missing; another process may compute some of them."""
        told, reporter = False, self.reporter
        with reporter.task(
            "extract features", len(missing), self.extractor.cuts[0].inputs.unit
        ) as task:
            try:
                while missing:
                    mine = self._claim(missing)
                    if mine:
                        self._compute(mine, task)
                    elif not told:
                        reporter.note("another process computes the remaining rows; waiting for it")
                        told = True
                    lost = {self.split.ids[item.index] for item in self.bad}
                    before = len(missing)
                    missing = [
                        key
                        for key in _missing(self.spaces, missing, self.number)
                        if key not in lost
                    ]
                    task.advance(max(0, before - len(missing) - len(mine)))
                    if missing and not mine:
                        time.sleep(0.2)
            finally:
                for space in self.spaces:
                    space.release()
        return tuple(self.bad)

    def _claim(self, missing: list[str]) -> list[str]:
        """Reserve the next chunk: rows that one space lacks are claimed there."""
        for space in self.spaces:
            lacking = space.missing(missing, self.number)
            if lacking:
                return space.claim(lacking, self.number, limit=self.chunk)
        return []

    def _compute(self, keys: list[str], task: Task) -> None:
        begun = time.monotonic()
        where = np.array([self.positions[key] for key in keys], dtype=np.int64)
        known = len(self.extractor.bad)
        waiting: list[Any] = []
        try:
            for rows in self.extractor.rows(self.split, where, view=self.view, task=task):
                waiting.append(rows)
                if sum(f.nbytes for r in waiting for f in r.features) >= COMMIT_BYTES:
                    ready, waiting = waiting, []
                    self._commit(ready)
        finally:
            # Also when this ends early, by an error or by the user: nothing computed is lost.
            self._commit(waiting)
            self.bad += self.extractor.bad[known:]
        # The first chunk is small, to learn the speed; later ones take COMMIT_SECONDS each.
        rate = len(keys) / max(time.monotonic() - begun, 1e-3)
        self.chunk = max(4 * self.extractor.settings.batch_size, int(rate * COMMIT_SECONDS))

    def _commit(self, waiting: Sequence[Any]) -> None:
        if not waiting:
            return
        ids = [self.split.ids[i] for rows in waiting for i in rows.indices]
        for position, space in enumerate(self.spaces):
            block = np.concatenate([rows.features[position] for rows in waiting])
            space.append(
                ids,
                {"features": block},
                self.number,
                storage=self.extractor.settings.storage,
                reporter=self.reporter,
            )


def _extractor(
    cuts: Backbone | Sequence[Backbone] | Extractor, settings: Extraction | None
) -> AbstractContextManager[Extractor]:
    if isinstance(cuts, Extractor):
        return nullcontext(cuts)
    return Extractor((cuts,) if isinstance(cuts, Backbone) else cuts, settings)


def _explain(space: Space, reporter: Reporter) -> None:
    """Say why stored features of these very weights do not serve: a setting differs."""
    nearest = space.nearest()
    other = {"backbone.weights", "kind"}  # other weights, or rows of another kind
    if nearest is None or any(d.path in other for d in nearest.differences):
        return
    shown = "; ".join(str(difference) for difference in nearest.differences[:3])
    reporter.note(f"features of these weights are stored, but with other settings: {shown}")


_BYTES = {"float32": 4, "float16": 2, "int8": 1}


def _check_room(
    extractor: Extractor, spaces: Sequence[Space], ids: Sequence[str], view: int
) -> None:
    """Refuse before the first forward pass what the disk has no room for."""
    needed, free = 0, None
    for cut, space in zip(extractor.cuts, spaces, strict=True):
        row_bytes = math.prod(cut.feature_shape()) * _BYTES[extractor.settings.storage]
        plan = space.preflight(ids, view, row_bytes=row_bytes)
        needed += plan.bytes_needed or 0
        free = plan.bytes_free
    if free is not None and needed > free:
        raise StoreError(
            f"the features need {_size(needed)}, "
            f"and {spaces[0].folder.parent} has {_size(free)} free",
            hint="give another --cache, free room with 'headstart cache gc', "
            "or store them smaller with --storage float16",
        )


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


def _missing(spaces: Iterable[Space], ids: Sequence[str], view: int) -> list[str]:
    """Return the ids that at least one space lacks, in order."""
    return list(dict.fromkeys(key for space in spaces for key in space.missing(ids, view)))


__all__ = [
    "CachedFeatures",
    "FeatureCache",
    "default_location",
    "describe_space",
]
