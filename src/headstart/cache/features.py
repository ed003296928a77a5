"""Features of backbones, through the cache."""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import functools
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import Backbone
from headstart.cache.fill import Block, Filled, fill, missing_rows
from headstart.core.errors import DataError, StoreError
from headstart.core.files import existing_parent, is_writable, scratch_folder
from headstart.core.fingerprints import sha256
from headstart.core.progress import Reporter, SilentReporter
from headstart.core.records import CacheUse
from headstart.core.wording import format_bytes
from headstart.data import BadItem, NumberedView, Split
from headstart.data.reading import OnBad, settle_bad_items
from headstart.extraction import Extraction, Extractor, Precision, Storage
from headstart.extraction.choice import settled
from headstart.extraction.engines import AUTO
from headstart.extraction.machine import half_types
from headstart.extraction.plan import Memory
from headstart.store import FeatureSet, Memo, Space, Store, result_key

FEATURES = "features"
"""The column of a feature space."""


def default_location() -> Path:
    """Return ``$HEADSTART_CACHE`` if it is set, else the platform's cache folder."""
    named = os.environ.get("HEADSTART_CACHE")
    return Path(named).expanduser() if named else _platform_location()


@functools.cache
def _scratch() -> Path:
    """Return a folder that lasts as long as this process."""
    open_until_exit = contextlib.ExitStack()
    folder = open_until_exit.enter_context(scratch_folder())
    atexit.register(open_until_exit.close)
    return folder


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


class _Plans:
    """Results of trials among the small results of a store; what cannot be kept is forgotten."""

    def __init__(self, store: Store) -> None:
        self._results = store.results("plans")

    def get(self, about: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Return what is remembered; None: nothing."""
        found = self._results.get(result_key(about))
        return None if found is None else found.values

    def put(self, about: Mapping[str, Any], values: Mapping[str, Any]) -> None:
        """Remember values."""
        with contextlib.suppress(StoreError):
            self._results.put(result_key(about), values=values)


class FeatureCache:
    """Features on disk under one folder.

    Args:
        location: the folder; None: ``$HEADSTART_CACHE``, else the platform's cache folder. It is
            created when the first row is committed. An address that fsspec knows
            (``s3://bucket/features``) is shared by machines; a local mirror of what this machine
            has seen is kept in the platform's cache folder.

    Attributes:
        place: ``location`` as it was given; None where it was not.
    """

    def __init__(self, location: Path | str | None = None) -> None:
        self.place = None if location is None else str(location)
        chosen = location if location is not None else os.environ.get("HEADSTART_CACHE")
        if isinstance(chosen, str) and "://" in chosen:
            name = sha256(chosen)[:16]
            self.location = _platform_location() / "mirrors" / name
            self.store = Store(self.location, remote=chosen)
        else:
            self.location = default_location() if chosen is None else Path(chosen).expanduser()
            self.store = Store(self.location, spare=self._spare)

    def _spare(self) -> Path:
        """Return where that is kept which the location does not take: it may be read-only."""
        own = _platform_location()
        if own != self.location and is_writable(existing_parent(own)):
            return own
        return _scratch()

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
        return _Plans(self.store)

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
            if missing_rows(spaces, ids, number):
                if not len(spaces[0]):
                    _explain(spaces[0], reporter)
                _check_room(extractor, spaces, ids, number)
            filled, bad = fill_features(extractor, spaces, split, view=view, reporter=reporter)
            extractor.tell(reporter)
        settle_bad_items(bad, on_bad, reporter)
        kept = np.array([i for i, key in enumerate(ids) if key not in filled.lost], dtype=np.int64)
        if len(ids) and not len(kept):
            raise DataError("no item of the data can be read", hint="see the reasons above")
        kept_ids = [ids[i] for i in kept]
        sets = tuple(space.read(kept_ids, number) for space in spaces)
        return CachedFeatures(sets, kept, filled.use, bad, time.perf_counter() - begun)


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

    def compute(keys: list[str]) -> Iterator[Block]:
        for rows in extractor.rows(split, split.positions(keys), view=view):
            ids = [split.ids[i] for i in rows.indices]
            if reporter is not None:
                extractor.tell(reporter)  # how the network runs, once the first batch has run
            yield Block(ids, [{FEATURES: block} for block in rows.features])

    filled = fill(
        spaces,
        split.ids,
        compute,
        task=task,
        unit=extractor.cuts[0].inputs.unit,
        number=number,
        batch_size=extractor.settings.batch_size,
        storage=extractor.settings.storage,
        reporter=reporter,
        stages=extractor.stages,
    )
    return filled, tuple(extractor.bad[known:])


def _extractor(
    cuts: Sequence[Backbone] | Extractor, settings: Extraction | None, memory: Memory
) -> AbstractContextManager[Extractor]:
    if isinstance(cuts, Extractor):
        return nullcontext(cuts)
    return Extractor(cuts, settings, memory)


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
    """Refuse, before the first forward pass, what the disk has no room for."""
    needed, free = 0, None
    for cut, space in zip(extractor.cuts, spaces, strict=True):
        row_bytes = math.prod(cut.feature_shape()) * _BYTES[extractor.settings.storage]
        plan = space.preflight(ids, view, row_bytes=row_bytes)
        needed += plan.bytes_needed or 0
        free = plan.bytes_free
    if free is not None and needed > free:
        raise StoreError(
            f"the features need {format_bytes(needed)}, "
            f"and {spaces[0].folder.parent} has {format_bytes(free)} free",
            hint="choose another place with cache=PLACE, free room with 'headstart cache gc', "
            "or store them smaller with storage='float16'",
        )


__all__ = [
    "FEATURES",
    "CachedFeatures",
    "FeatureCache",
    "default_location",
    "describe_space",
    "fill_features",
]
