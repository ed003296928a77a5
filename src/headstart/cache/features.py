"""Features of backbones, through the cache."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import Backbone
from headstart.cache.computing import describe_space, fill_features
from headstart.cache.fill import Filled, missing_rows
from headstart.cache.plans import Plans
from headstart.cache.preflight import check_room, explain
from headstart.core.errors import DataError
from headstart.core.progress import Reporter, SilentReporter
from headstart.core.records import CacheUse
from headstart.data import BadItem, NumberedView, Split
from headstart.data.reading import OnBad, settle_bad_items
from headstart.extraction import Extraction, Extractor, Precision
from headstart.extraction.choice import settled
from headstart.extraction.engines import AUTO
from headstart.extraction.machine import half_types
from headstart.extraction.plan import Memory
from headstart.store import FeatureSet, Memo, Neighbours, Space
from headstart.store.places import open_store, platform_location


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

    def neighbours(self, queries: object, k: int = 10, **how: Any) -> Neighbours:
        """Return the rows of the first cut that are most similar to some queries.

        Args:
            queries, k, **how: see :meth:`headstart.store.FeatureSet.neighbours`.
        """
        return self.sets[0].neighbours(queries, k, **how)


class Crew(Protocol):
    """Computes rows and commits them to a cache, in other processes say."""

    def __call__(
        self,
        cache: FeatureCache,
        cuts: Sequence[Backbone],
        splits: Sequence[Split],
        settings: Extraction,
        view: NumberedView | None,
        reporter: Reporter,
    ) -> None:
        """Compute and commit the missing rows of some splits, as far as they can be."""


class FeatureCache:
    """Features on disk under one folder.

    Args:
        location: the folder; None: ``$HEADSTART_CACHE``, else the platform's cache folder. It is
            created when the first row is committed. An address that fsspec knows
            (``s3://bucket/features``) is shared by machines; a local mirror of what this machine
            has seen is kept in the platform's cache folder.

    Attributes:
        place: ``location`` as it was given; None where it was not.
        crew: computes missing rows beside this process, of several splits at a time; None: this
            process does. What it leaves, this process computes, and finds out why.
    """

    crew: Crew | None = None

    def __init__(self, location: Path | str | None = None) -> None:
        self.place = None if location is None else str(location)
        self._helped: set[tuple[str, int, str]] = set()  # rows that a crew was asked for
        self.store = open_store(location)
        self.location = self.store.root

    @property
    def address(self) -> str:
        """Where another process finds the same rows: a folder, or an address."""
        return self.store.remote or str(self.location.absolute())

    def memo(self) -> Memo:
        """Return the memo of file digests, a context to be left after use."""
        return self.store.memo()

    def space(
        self, cut: Backbone, settings: Extraction | None = None, view: NumberedView | None = None
    ) -> Space:
        """Return the space of a cut."""
        settings = settings or Extraction()
        settings.check_precision(settings.resolve_device())
        return self.store.space(describe_space(cut, settings.precision, view, settings.storage))

    def settled(
        self,
        settings: Extraction,
        cuts: Sequence[Backbone],
        splits: Sequence[Split],
        reporter: Reporter | None = None,
    ) -> Extraction:
        """Return settings whose precision is not ``auto``, for a job over some splits.

        Rows that are stored decide: a job is not computed again because a trial comes out
        otherwise, or because it was the small beginning of a larger one. Without any, a trial
        decides, which is remembered.

        Args:
            settings: of the job.
            cuts: one network.
            splits: its items.
            reporter: told why the precision is not float32, or what was weighed.
        """
        if settings.precision != AUTO:
            return settings
        halves = half_types(settings.resolve_device())
        choices: tuple[Precision, ...] = ("float32", *halves)
        if halves:
            stored = {name: self._stored(settings, name, cuts, splits) for name in choices}
            most = max(choices, key=lambda name: stored[name])
            if stored[most]:
                return dataclasses.replace(settings, precision=most)
        count = sum(len(split) for split in splits)
        found, why = settled(settings, cuts, splits[0], count, self.plans())
        if why and reporter is not None:
            reporter.note(why)
        return found

    def _stored(
        self,
        settings: Extraction,
        precision: Precision,
        cuts: Sequence[Backbone],
        splits: Sequence[Split],
    ) -> int:
        """Return how many rows of the splits are stored in a precision."""
        exact = dataclasses.replace(settings, precision=precision)
        spaces = [self.space(cut, exact) for cut in cuts]
        return sum(
            len(split) - len(space.missing(split.ids, 0)) for space in spaces for split in splits
        )

    def plans(self) -> Memory:
        """Return the memory of trials: which precision and engine suit a network here."""
        return Plans(self.store, (self.store.root, platform_location()))

    def features(
        self,
        cuts: Backbone | Sequence[Backbone] | Extractor,
        split: Split,
        *,
        settings: Extraction | None = None,
        view: NumberedView | None = None,
        on_bad: OnBad = "raise",
        empty: bool = False,
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
            empty: whether it is well that no item can be read: the split is a part of another.
            reporter: shown progress, and why rows are missing.

        Raises:
            BadFilesError: items cannot be read (``on_bad="raise"``).
            DataError: none can be read.
            BackboneError: the rows would depend on the batch or on randomness.
            StoreError: the rows cannot be written or read; what was committed stays.
        """
        begun = time.perf_counter()
        reporter = reporter or SilentReporter()
        if not isinstance(cuts, Extractor):
            cuts = (cuts,) if isinstance(cuts, Backbone) else tuple(cuts)
            settings = self.settled(settings or Extraction(), cuts, (split,), reporter)
        with _extractor(cuts, settings, self.plans()) as extractor:
            spaces = tuple(self.space(cut, extractor.settings, view) for cut in extractor.cuts)
            ids, number = split.ids, 0 if view is None else view.number
            self.help(extractor, (split,), view=view, reporter=reporter)
            filled, bad = fill_features(extractor, spaces, split, view=view, reporter=reporter)
            extractor.tell(reporter)
            use = self._with_help(spaces, ids, number, filled)
        settle_bad_items(bad, on_bad, reporter)
        kept = np.array([i for i, key in enumerate(ids) if key not in filled.lost], dtype=np.int64)
        if len(ids) and not len(kept) and not empty:
            raise DataError("none of the items can be read", hint="see the reasons above")
        kept_ids = [ids[i] for i in kept]
        sets = tuple(space.read(kept_ids, number) for space in spaces)
        return CachedFeatures(sets, kept, use, bad, time.perf_counter() - begun)

    def help(
        self,
        extractor: Extractor,
        splits: Sequence[Split],
        *,
        view: NumberedView | None = None,
        reporter: Reporter | None = None,
    ) -> None:
        """Let the crew compute the missing rows of several splits, if there is a crew.

        A job of a few rows is left to this process.

        Args:
            extractor: of the network, at one or several cuts.
            splits: the items.
            view: a numbered augmentation.
            reporter: shown progress, and why rows are missing.

        Raises:
            StoreError: there is no room for the rows.
        """
        reporter = reporter or SilentReporter()
        settings = extractor.settings
        spaces = tuple(self.space(cut, settings, view) for cut in extractor.cuts)
        ids = [key for split in splits for key in split.ids]
        number = 0 if view is None else view.number
        missing = missing_rows(spaces, ids, number)
        tried = {(spaces[0].key, number, key) for key in missing}
        if not missing or tried <= self._helped:
            return
        if not len(spaces[0]):
            explain(spaces[0], reporter)
        check_room(extractor, spaces, ids, number)
        if self.crew is not None and len(missing) > settings.batch_size:
            self._helped |= tried
            self.crew(self, extractor.cuts, splits, settings, view, reporter)

    def _with_help(
        self, spaces: Sequence[Space], ids: Sequence[str], number: int, filled: Filled
    ) -> CacheUse:
        """Count the rows that the crew has computed as computed."""
        asked = {(spaces[0].key, number, key) for key in ids} & self._helped
        self._helped -= asked
        helped = max(0, len(asked) - filled.use.misses - len(filled.lost))
        return CacheUse(filled.use.hits - helped, filled.use.misses + helped)


def _extractor(
    cuts: Sequence[Backbone] | Extractor, settings: Extraction | None, memory: Memory
) -> AbstractContextManager[Extractor]:
    if isinstance(cuts, Extractor):
        return nullcontext(cuts)
    return Extractor(cuts, settings, memory)


__all__ = ["CachedFeatures", "Crew", "FeatureCache"]
