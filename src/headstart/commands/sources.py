"""Transitional: see ``commands/session.py``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from headstart.cache import FeatureCache
from headstart.commands.settings import ReadOptions
from headstart.core.progress import Reporter
from headstart.data import Dataset, load_data

DataOptions = ReadOptions


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
