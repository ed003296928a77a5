"""The cache: feature space + items → rows, computing only what is missing.

A space holds the rows of one function: weights and buffers up to the cut, architecture,
preprocessing, layer, pooling, normalisation, precision. A row is known by the content of its item.
So a second run, another split, a renamed folder or added images cost only what is new.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import Backbone
from headstart.data import Split
from headstart.data.reading import BadItem, OnBad
from headstart.errors import BadFilesError, DataError, StoreError
from headstart.extraction import Extraction, Precision, Rows, extract_rows
from headstart.progress import Reporter, SilentReporter
from headstart.records import CacheUse
from headstart.store import FeatureSet, Space, Store

COMMIT_BYTES = 32 * 2**20
COMMIT_SECONDS = 20.0
"""Rows are committed after this much work: a killed run loses no more than that."""


def default_location() -> Path:
    """Return ``$HEADSTART_CACHE`` if it is set, else the platform's cache folder."""
    named = os.environ.get("HEADSTART_CACHE")
    if named:
        return Path(named).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("headstart", appauthor=False))


def describe_space(cut: Backbone, precision: Precision) -> dict[str, Any]:
    """Describe the function from an item's bytes to its row, in plain values."""
    return {
        "version": 1,
        "backbone": cut.identity(),
        "preprocessing": cut.preprocessing.describe(),
        "normalisation": {"statistics": "running"},
        "precision": precision,
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
            created when the first row is committed.
    """

    def __init__(self, location: Path | str | None = None) -> None:
        self.location = default_location() if location is None else Path(location).expanduser()
        self.store = Store(self.location)

    def spaces_for(self, cuts: Sequence[Backbone], precision: Precision) -> tuple[Space, ...]:
        """Return the space of every cut."""
        return tuple(self.store.space(describe_space(cut, precision)) for cut in cuts)

    def features(
        self,
        cuts: Backbone | Sequence[Backbone],
        split: Split,
        *,
        settings: Extraction | None = None,
        on_bad: OnBad = "raise",
        reporter: Reporter | None = None,
    ) -> CachedFeatures:
        """Return the rows of a split, computing those that are not there yet.

        Args:
            cuts: one network, cut at one or several places.
            split: the items. Equal items are computed once.
            settings: batch size, precision and device of what has to be computed.
            on_bad: what to do with items that cannot be read: ``raise`` after everything else has
                been computed and committed, or ``skip``.
            reporter: shown progress, and why rows are missing.

        Raises:
            BadFilesError: items cannot be read (``on_bad="raise"``).
            BackboneError: the rows would depend on the batch or on chance.
            StoreError: the rows cannot be written or read; what was committed stays.
        """
        begun = time.perf_counter()
        cuts = (cuts,) if isinstance(cuts, Backbone) else tuple(cuts)
        settings, reporter = settings or Extraction(), reporter or SilentReporter()
        spaces = self.spaces_for(cuts, settings.precision)
        ids = split.ids
        missing = _union(space.missing(ids) for space in spaces)
        unique = len(set(ids))
        bad: tuple[BadItem, ...] = ()
        if missing:
            positions = _first_positions(ids, missing)
            if len(missing) == unique:
                _explain(spaces[0], reporter)
            bad = self._compute(cuts, spaces, split, positions, settings, on_bad, reporter)
        lost = {ids[item.index] for item in bad}
        kept = np.array([i for i, key in enumerate(ids) if key not in lost], dtype=np.int64)
        if not len(kept):
            raise DataError("no item of the data can be read", hint="see the reasons above")
        kept_ids = [ids[i] for i in kept]
        sets = tuple(space.read(kept_ids) for space in spaces)
        use = CacheUse(hits=unique - len(missing), misses=len(missing) - len(lost))
        return CachedFeatures(sets, kept, use, bad, time.perf_counter() - begun)

    def _compute(
        self,
        cuts: tuple[Backbone, ...],
        spaces: tuple[Space, ...],
        split: Split,
        positions: NDArray[np.int64],
        settings: Extraction,
        on_bad: OnBad,
        reporter: Reporter,
    ) -> tuple[BadItem, ...]:
        """Extract and commit; whatever ends this early, finished rows are committed first."""
        writer = _Writer(spaces, split.ids)
        stream = extract_rows(
            cuts, split, positions, settings=settings, on_bad=on_bad, reporter=reporter
        )
        try:
            for rows in stream:
                writer.add(rows)
        except StoreError:
            raise
        except BaseException:
            writer.commit()
            raise
        writer.commit()
        return tuple(stream.bad)


class _Writer:
    """Gathers rows and commits them in shards of a good size."""

    def __init__(self, spaces: tuple[Space, ...], ids: Sequence[str]) -> None:
        self.spaces, self.ids = spaces, ids
        self.waiting: list[Rows] = []
        self.bytes = 0
        self.since = time.monotonic()

    def add(self, rows: Rows) -> None:
        self.waiting.append(rows)
        self.bytes += sum(features.nbytes for features in rows.features)
        if self.bytes >= COMMIT_BYTES or time.monotonic() - self.since >= COMMIT_SECONDS:
            self.commit()

    def commit(self) -> None:
        if not self.waiting:
            return
        waiting, self.waiting, self.bytes = self.waiting, [], 0
        ids = [self.ids[i] for rows in waiting for i in rows.indices]
        for position, space in enumerate(self.spaces):
            block = np.concatenate([rows.features[position] for rows in waiting])
            space.append(ids, {"features": block})
        self.since = time.monotonic()


def _union(lists: Iterator[list[str]] | Any) -> list[str]:
    return list(dict.fromkeys(key for keys in lists for key in keys))


def _first_positions(ids: Sequence[str], wanted: Sequence[str]) -> NDArray[np.int64]:
    first: Mapping[str, int] = {key: i for i, key in reversed(list(enumerate(ids)))}
    return np.array([first[key] for key in wanted], dtype=np.int64)


def _explain(space: Space, reporter: Reporter) -> None:
    """Say which part of the key keeps rows that look alike from being used."""
    nearest = getattr(space, "nearest", lambda: None)()
    if nearest is None:
        return
    paths = ", ".join(str(difference) for difference in nearest.differences[:3])
    reporter.note(f"no stored rows fit; the nearest feature space differs in {paths}")


__all__ = [
    "BadFilesError",
    "CachedFeatures",
    "FeatureCache",
    "default_location",
    "describe_space",
]
