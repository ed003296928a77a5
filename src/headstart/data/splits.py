"""Which items go where: pure functions from labels to indices.

Chance enters only through a seed, and it does so per item: an item's rank is a hash of the seed
and the item's key. With content ids as keys, a split depends on what the items are and not on
their order or names, and a data set that grows by some items keeps nearly all of its assignments.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from headstart.core.fingerprints import stable_integer

Index = NDArray[np.int64]


def ranks(keys: Sequence[Hashable], seed: int) -> NDArray[np.uint64]:
    """Return one pseudo-random number per key: SHA-256 of seed and key, first 64 bits.

    Args:
        keys: n keys; equal keys get equal ranks. They are told apart by ``str``.
        seed: any integer.

    Returns:
        ``(n,) uint64``.
    """
    numbers = (stable_integer(f"{seed}\0", str(key), n_bytes=8) for key in keys)
    return np.fromiter(numbers, np.uint64, len(keys))


def stratified_split(
    labels: ArrayLike,
    fraction: float,
    *,
    seed: int,
    groups: Sequence[Hashable] | None = None,
) -> tuple[Index, Index]:
    """Divide items into two parts with the same share of every class.

    A class of n items gives ``round(n * fraction)`` of them to the second part, but at least one
    and at most n − 1 where n ≥ 2; a single item stays in the first part. Groups are never
    divided, so they can make the second part smaller than that.

    Args:
        labels: ``(n,)`` integers.
        fraction: share of the second part, in (0, 1).
        seed: decides which items; the same seed and groups give the same parts.
        groups: n keys; items with equal keys stay together (content ids, patients, ...). A group
            counts towards the class of its first item. None: every item is its own group, known
            by its position.

    Returns:
        (first, second): ascending indices that together are all of ``range(n)``.

    Raises:
        ValueError: ``fraction`` is not in (0, 1), or the lengths differ.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction must lie in (0, 1), not {fraction}")
    label = _labels(labels)
    members = _group_members(label, groups)
    second = np.zeros(len(label), bool)
    for groups_of_class in _groups_by_class(label, members, seed):
        n = sum(len(members[group]) for group in groups_of_class)
        want = min(max(round(n * fraction), 1), n - 1)
        left = len(groups_of_class)
        for group in groups_of_class:
            size = len(members[group])
            if size <= want and left > 1:  # the last group of a class stays in the first part
                second[members[group]] = True
                want -= size
                left -= 1
    return np.flatnonzero(~second), np.flatnonzero(second)


def stratified_folds(
    labels: ArrayLike,
    k: int,
    *,
    seed: int,
    groups: Sequence[Hashable] | None = None,
) -> Index:
    """Assign items to k folds, each with nearly the same share of every class.

    Args:
        labels: ``(n,)`` integers.
        k: number of folds, at least 2.
        seed: decides which items.
        groups: as for :func:`stratified_split`; without groups, the counts of a class differ by
            at most one between folds, and so do the sizes of the folds.

    Returns:
        ``(n,) int64``, the fold (0 .. k − 1) of each item.

    Raises:
        ValueError: k < 2, more folds than groups, or the lengths differ.
    """
    label = _labels(labels)
    members = _group_members(label, groups)
    if not 2 <= k <= len(members):
        raise ValueError(f"k must lie between 2 and the {len(members)} groups, not {k}")
    fold = np.empty(len(label), np.int64)
    totals = np.zeros(k, np.int64)
    for groups_of_class in _groups_by_class(label, members, seed):
        counts = np.zeros(k, np.int64)
        # large groups first: what follows can still level the folds
        for group in sorted(groups_of_class, key=lambda g: -len(members[g])):
            target = min(range(k), key=lambda f: (counts[f], totals[f], f))
            fold[members[group]] = target
            counts[target] += len(members[group])
            totals[target] += len(members[group])
    return fold


def few_per_class(
    labels: ArrayLike,
    n: int,
    *,
    seed: int,
    keys: Sequence[Hashable] | None = None,
) -> Index:
    """Choose up to ``n`` items of every class; a larger n contains the smaller one's choice.

    Args:
        labels: ``(m,)`` integers.
        n: items per class, at least 1.
        seed: decides which items.
        keys: m keys that the choice depends on; None: the positions.

    Returns:
        Ascending indices; all of a class that has no more than ``n`` items.

    Raises:
        ValueError: n < 1, or the lengths differ.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, not {n}")
    label = _labels(labels)
    rank = ranks(_keys(label, keys), seed)
    order = np.lexsort((np.arange(len(label)), rank, label))
    new_class = np.r_[True, np.diff(label[order]) != 0][: len(label)]
    starts = np.flatnonzero(new_class)
    place = np.arange(len(label)) - np.repeat(starts, np.diff(np.r_[starts, len(label)]))
    return np.sort(order[place < n]).astype(np.int64)


def _labels(labels: ArrayLike) -> NDArray[Any]:
    label = np.asarray(labels)
    if label.ndim != 1:
        raise ValueError(f"labels must be one-dimensional, not of shape {label.shape}")
    return label


def _keys(label: NDArray[Any], keys: Sequence[Hashable] | None) -> Sequence[Hashable]:
    if keys is None:
        return range(len(label))
    if len(keys) != len(label):
        raise ValueError(f"{len(label)} labels but {len(keys)} keys")
    return keys


def _group_members(
    label: NDArray[Any], groups: Sequence[Hashable] | None
) -> dict[Hashable, list[int]]:
    members: dict[Hashable, list[int]] = defaultdict(list)
    for i, key in enumerate(_keys(label, groups)):
        members[key].append(i)
    return dict(members)


def _groups_by_class(
    label: NDArray[Any], members: dict[Hashable, list[int]], seed: int
) -> list[list[Hashable]]:
    """Return the groups of each class in the order of their ranks."""
    keys = list(members)
    rank = ranks(keys, seed)
    # equal ranks (keys equal as text) fall back to the order of the data
    classes: dict[Any, list[Hashable]] = {c: [] for c in np.unique(label).tolist()}
    for i in np.argsort(rank, kind="stable").tolist():
        classes[label[members[keys[i]][0]].item()].append(keys[i])
    return list(classes.values())
