"""What ``examine`` has found of data, kept in the cache for the reports and maps of other commands.

It is known by the content of the training and test items and by the features that found it, and
items by their ids, so that other names and places of the same data make no difference.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headstart.core.errors import StoreError
from headstart.data import Split
from headstart.heads import DoubtfulLabel, Leak
from headstart.store import Store, result_key

_KIND, _MOST = "examinations", 10_000


@dataclass(frozen=True)
class Examined:
    """What was found, by content ids.

    Attributes:
        copies: test items, the training items that they nearly equal, and the cosines.
        doubts: training items, the classes that their labels look like, and the probabilities.
    """

    copies: tuple[tuple[str, str, float], ...]
    doubts: tuple[tuple[str, str, float], ...]


def keep_examination(
    store: Store,
    fingerprints: Mapping[str, str],
    splits: tuple[Split, Split],
    leaks: Sequence[Leak],
    doubts: Sequence[DoubtfulLabel],
) -> None:
    """Keep what ``examine`` has found; a disk that is full keeps nothing.

    Args:
        store: of the cache.
        fingerprints: of the backbone and of both splits.
        splits: training and test items.
        leaks, doubts: what was found.
    """
    train, test = splits
    values: dict[str, Any] = {
        "copies": [[test.ids[x.test], train.ids[x.train], x.similarity] for x in leaks[:_MOST]],
        "doubts": [
            [train.ids[x.row], train.classes[x.suggested], x.probability] for x in doubts[:_MOST]
        ],
    }
    with contextlib.suppress(StoreError):
        store.results(_KIND).put(_key(fingerprints), values=values)


def examined(store: Store, fingerprints: Mapping[str, str]) -> Examined | None:
    """Return what ``examine`` has found of the same items by the same features; None: it was not
    asked.

    Args:
        store: of the cache.
        fingerprints: of the backbone and of both splits.
    """
    found = store.results(_KIND).get(_key(fingerprints))
    if found is None:
        return None
    try:
        copies, doubts = (
            tuple((str(a), str(b), float(c)) for a, b, c in found.values[name])
            for name in ("copies", "doubts")
        )
    except (KeyError, TypeError, ValueError):
        return None
    return Examined(copies, doubts)


def _key(fingerprints: Mapping[str, str]) -> str:
    return result_key({name: fingerprints[name] for name in ("backbone", "train", "test")})


__all__ = ["Examined", "examined", "keep_examination"]
