"""Opening data for a job: with the memo of file digests, and a look for leaks."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from headstart.cache import FeatureCache
from headstart.core.progress import Reporter
from headstart.data import Dataset, Split, load_data, load_items, load_test_data


@dataclass(frozen=True)
class DataOptions:
    """How to read a source; see :func:`headstart.load_data`.

    Attributes:
        image_column, label_column: columns of a table; None: found where unambiguous.
        test_fraction: share set aside where the source has no test split.
    """

    image_column: str | None = None
    label_column: str | None = None
    test_fraction: float = 0.2


def open_dataset(
    source: Any, options: DataOptions, seed: int, cache: FeatureCache, reporter: Reporter
) -> tuple[Dataset, tuple[str, ...]]:
    """Load a source, or take a data set as it is; return it with what should be said of it.

    Digests of files are looked up in the cache's memo: an unchanged file is not read again.
    """
    with cache.memo() as memo:
        dataset = (
            source
            if isinstance(source, Dataset)
            else load_data(
                source, **asdict(options), seed=seed, digest_memo=memo, reporter=reporter
            )
        )
        leaks = dataset.leaks()
    notes = list(dataset.notes)
    if leaks:
        test, train = leaks[0]
        one = len(leaks) == 1
        notes.append(
            f"{len(leaks):,} test {'item is' if one else 'items are'} also in the training split "
            f"(such as {test}, which is {train}): the score flatters"
        )
    return dataset, tuple(notes)


def open_test_data(
    source: Any, options: DataOptions, cache: FeatureCache, reporter: Reporter
) -> Dataset:
    """Load labelled data to evaluate on."""
    with cache.memo() as memo:
        dataset = load_test_data(
            source,
            image_column=options.image_column,
            label_column=options.label_column,
            digest_memo=memo,
            reporter=reporter,
        )
        _ = dataset.test.ids
    return dataset


def open_items(source: Any, options: DataOptions, cache: FeatureCache, reporter: Reporter) -> Split:
    """Load items to predict for, or take a split as it is."""
    if isinstance(source, Split):
        return source
    with cache.memo() as memo:
        split = load_items(
            source,
            image_column=options.image_column,
            label_column=options.label_column,
            digest_memo=memo,
            reporter=reporter,
        )
        _ = split.ids
    return split
