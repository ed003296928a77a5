"""Which rows go where: splits, folds, held-out rows, a few of every class. The only divider.

Pure functions of labels, a seed, and what is known of the rows:

- ``keys`` identify a row by its content. Rows of equal key are copies and never parted, and the
  order of the rows decides nothing: an item's place follows from a hash of seed and key. A split of
  data that grow by some items keeps nearly all of its assignments, and copies of every item change
  no place at all.
- ``groups`` name what belongs together for another reason (a patient, a film, near copies). They
  are never parted either. Given both, rows are kept together that are linked by either.

Without keys, a row is known by its position. Rows that are kept together count towards the class
that most of them have, of several the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from headstart.core.errors import HeadError
from headstart.core.fingerprints import stable_integer
from headstart.core.levelling import (
    folds_of_groups,
    folds_of_items,
    leaves_one_class,
    level,
    nearest_share,
    sparable_units,
    units_by_class,
)
from headstart.core.row_keys import Index, Keys, Units, content_order, numbered, units_among
from headstart.core.seeds import require_seeds

Seed = int | Sequence[int]


@dataclass(frozen=True)
class Folds:
    """A division of the training rows.

    Attributes:
        of: ``(n,) int64``, the fold that holds each row out.
        count: the number of folds, at least 2.
        notes: what was decided, and why.
    """

    of: Index
    count: int
    notes: tuple[str, ...] = ()

    def splits(self) -> list[tuple[Index, Index]]:
        """Return ``(training rows, held-out rows)`` of each fold, as indices."""
        return [
            (np.flatnonzero(self.of != fold), np.flatnonzero(self.of == fold))
            for fold in range(self.count)
        ]


def ranks(keys: Keys, seed: Seed) -> NDArray[np.uint64]:
    """Return one pseudo-random number per key: SHA-256 of seed and key, first 64 bits.

    Args:
        keys: n keys, distinguished by their ``str``; equal keys get equal ranks.
        seed: any integer, or several.

    Returns:
        ``(n,) uint64``.
    """

    def rank(key: object) -> int:
        return stable_integer(f"{seed}\0", str(key), n_bytes=8)

    return np.fromiter((rank(key) for key in keys), np.uint64, len(keys))


def stratified_split(
    labels: ArrayLike,
    fraction: float,
    *,
    seed: int,
    keys: Keys | None = None,
    groups: Keys | None = None,
) -> tuple[Index, Index]:
    """Divide rows into two parts with the same share of every class.

    A class of n different items gives ``round(n * fraction)`` of them to the second part, but at
    least one and at most n − 1 where n ≥ 2; a single one stays in the first part. With groups, the
    second part is as near to that share as they allow, and no class is in it alone.

    Args:
        labels: ``(n,)`` integers.
        fraction: share of the second part, in (0, 1).
        seed: decides which rows.
        keys, groups: n each; see the module.

    Returns:
        (first, second): ascending indices that together are all of ``range(n)``.

    Raises:
        ValueError: ``fraction`` is not in (0, 1), or the lengths differ.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction must lie in (0, 1), not {fraction}")
    label = _labels(labels)
    units = units_among(len(label), keys, groups)
    rank = ranks(units.keys, seed)
    chosen = np.zeros(len(units.keys), bool)
    size, own = units.sizes_and_classes(label)
    for value in np.unique(own):
        candidates = np.flatnonzero(own == value)
        # Equal ranks (keys equal as text) fall back to the order of the data.
        candidates = candidates[np.argsort(rank[candidates], kind="stable")]
        chosen[candidates[nearest_share(size[candidates], fraction)]] = True
    if groups is not None and not chosen.any():  # no class is that of two groups
        chosen[sparable_units(units, label, np.argsort(rank, kind="stable"), fraction)] = True
    second = chosen[units.of]
    return np.flatnonzero(~second), np.flatnonzero(second)


def make_folds(
    labels: np.ndarray,
    folds: int = 5,
    *,
    seed: int = 0,
    keys: Keys | None = None,
    groups: Keys | None = None,
    names: Sequence[str] | None = None,
    every_class: bool = True,
) -> Folds | None:
    """Divide rows into folds with nearly equal shares of every class.

    With fewer items of the rarest class than folds, fewer folds are made, but not below 2: a
    class of one item is then trained on in all folds but the one that holds it out.

    Args:
        labels: ``(n,) int64``.
        folds: how many are wanted, at least 2.
        seed: of the shuffle.
        keys, groups: n each; see the module.
        names: class names, for the notes.
        every_class: whether every fold has to hold items of every class; without groups, a rare
            class makes no fewer folds otherwise.

    Returns:
        The folds; None when nothing can be held out: no class has two items, or so few have that
        only one class would be left to train on beside some fold.

    Raises:
        HeadError: fewer than two folds are wanted, there are fewer than two groups, or the seed is
            invalid.
    """
    require_seeds(seed)
    if folds < 2:
        raise HeadError(f"expected two folds or more, found {folds}")
    labels = np.asarray(labels)
    if not len(labels):
        raise HeadError("expected rows to divide, found none")
    units = None if keys is None and groups is None else units_among(len(labels), keys, groups)
    counts = units_by_class(labels, units)
    if groups is not None:
        assert units is not None
        count, notes = folds_of_groups(len(units.keys), counts, folds, names)
    else:
        if max(counts.values()) < 2:
            return None
        if every_class:
            count, notes = folds_of_items(counts, folds, names)
        else:
            count, notes = min(folds, len(labels) if units is None else len(units.keys)), ()
    of = _dealt(labels, units, count, seed)
    if groups is None and leaves_one_class(labels, of, count):
        return None
    return Folds(of, count, notes)


def _dealt(labels: np.ndarray, units: Units | None, count: int, seed: int) -> Index:
    """Return the fold of each row; items that stand alone are dealt, others levelled."""
    if units is None:
        return deal(labels, count, seed)
    if units.in_parts or len(units.contents_by_class(labels)[0]) > len(units.keys):
        return level(labels, units, ranks(units.keys, seed).argsort(kind="stable"), count)
    first = np.unique(units.of, return_index=True)[1]
    return deal(labels[first], count, seed, keys=units.keys)[units.of]


def require_two_classes_beside(labels: np.ndarray, folds: Folds) -> None:
    """Refuse folds of groups beside which only one class is left to train on.

    Raises:
        HeadError: naming the reason.
    """
    if leaves_one_class(labels, folds.of, folds.count):
        raise HeadError(
            "expected two classes or more to train on outside every fold; with groups held out"
            " together, only one class is left outside some fold",
            hint="every class needs two groups or more; or do without groups",
        )


def deal(labels: np.ndarray, count: int, seed: int, *, keys: Keys | None = None) -> Index:
    """Deal the rows of each class to ``count`` folds in turn: ``(n,) int64``, the fold of each.

    No class, and no fold as a whole, has two rows more in one fold than in another.
    """
    of = np.empty(len(labels), dtype=np.int64)
    offset = 0
    for rows in shuffled_classes(labels, seed, keys=keys):
        # Classes go on dealing where the last one stopped, which keeps the folds of equal size.
        of[rows] = (np.arange(len(rows)) + offset) % count
        offset += len(rows)
    return of


def held_out_rows(
    labels: np.ndarray,
    fraction: float,
    *,
    seed: int,
    keys: Keys | None = None,
    groups: Keys | None = None,
) -> NDArray[np.bool_]:
    """Return ``(n,) bool``: a share of the rows of every class, which keeps a row at least.

    Unlike :func:`stratified_split` it may leave a small class without held-out rows.

    Args:
        labels: ``(n,)``; equal ones where there are no classes.
        fraction: of each class, in [0, 1).
        seed: decides which.
        keys, groups: n each; see the module.
    """
    held = np.zeros(len(labels), dtype=bool)
    if fraction > 0 and (keys is not None or groups is not None):
        held[stratified_split(labels, fraction, seed=seed, keys=keys, groups=groups)[1]] = True
        return held
    for rows in shuffled_classes(labels, seed):
        held[rows[: min(round(fraction * len(rows)), len(rows) - 1)]] = True
    return held


def held_out_part(
    labels: np.ndarray,
    part: int,
    *,
    parts: int = 5,
    seed: int,
    keys: Keys | None = None,
    groups: Keys | None = None,
) -> tuple[Index, Index]:
    """Return the rows that stay and the one of ``parts`` that is held out, however rare a class is.

    Folds that every class reaches would be two where a class has two items, and half of all rows
    would be lost. Here the only item of a class always stays, and the items of a class lie in
    different parts. Parts ``0 .. parts - 1`` are one division, the next ``parts`` another.

    Args:
        labels: ``(n,) int64``.
        part: which, from 0.
        parts: into how many the rows are divided.
        seed: of the first division.
        keys, groups: n each; see the module.

    Raises:
        HeadError: no class has two items.
    """
    units = units_among(len(labels), keys, groups)
    counts = units_by_class(labels, units)
    rare = np.isin(labels, [label for label, n in counts.items() if n < 2])
    alone = np.zeros(len(units.keys), bool)
    alone[units.of[rare]] = True
    several = np.flatnonzero(~alone[units.of])
    if not len(several):
        raise HeadError(
            "expected a class with two items or more, so that one can be held out",
            hint="copies count once, and a class needs items of two groups where groups are given",
        )
    count = min(parts, len(np.unique(units.of[several])))
    division = seed + part // count
    by_position = keys is None and groups is None
    some = None if by_position else units.take(several)
    of = _dealt(labels[several], some, count, division)
    held = several[of == part % count]
    return np.setdiff1d(np.arange(len(labels)), held), held


def few_per_class(
    labels: ArrayLike,
    n: int,
    *,
    seed: Seed,
    keys: Keys | None = None,
    groups: Keys | None = None,
) -> Index:
    """Choose up to ``n`` rows of every class; a larger n contains the smaller one's choice.

    Args:
        labels: ``(m,)`` integers.
        n: rows per class, at least 1.
        seed: decides which.
        keys: m keys; see the module. Of the copies of an item in a class one is chosen at most.
        groups: m names of what the rows belong to. One of every group is chosen before a second
            of any: ten pictures of one patient say less than one of each of ten.

    Returns:
        Ascending indices; all of a class that has no more than ``n`` different rows.

    Raises:
        ValueError: n < 1, or the lengths differ.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, not {n}")
    classes = shuffled_classes(_labels(labels), seed, keys=keys)
    if groups is not None:
        of = numbered(groups)[0]
        classes = [from_all_groups(rows, of[rows]) for rows in classes]
    chosen = [rows[:n] for rows in classes]
    return np.sort(np.concatenate(chosen)) if chosen else np.empty(0, np.int64)


def from_all_groups(rows: Index, groups: Index) -> Index:
    """Return rows in an order in which the first of every group come before the second ones."""
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(groups[order]) != 0])
    turn = np.empty(len(rows), np.int64)
    sizes = np.diff(np.r_[starts, len(rows)])
    turn[order] = np.arange(len(rows)) - np.repeat(starts, sizes)
    return rows[np.argsort(turn, kind="stable")]


def shuffled_classes(labels: np.ndarray, seed: Seed, *, keys: Keys | None = None) -> list[Index]:
    """Return the rows of each class that occurs, in random order; with keys, no copies.

    Args:
        labels: ``(n,)``.
        seed: of the order.
        keys: n keys; see the module. Of the rows of a class with one key, the first is returned.

    Raises:
        ValueError: the lengths differ.
    """
    if keys is None:
        rng = np.random.default_rng(seed)
        classes = [np.flatnonzero(labels == label) for label in np.unique(labels)]
        return [rng.permutation(rows) for rows in classes]
    if len(keys) != len(labels):
        raise ValueError(f"{len(labels)} labels but {len(keys)} keys")
    of, distinct = numbered(keys)
    rank = ranks(distinct, seed)
    order = content_order(keys)  # the first of near copies, however the rows are ordered
    order = order[np.argsort(labels[order], kind="stable")]
    classes = np.split(order, np.cumsum(np.unique(labels, return_counts=True)[1])[:-1])
    firsts = [rows[np.unique(of[rows], return_index=True)[1]] for rows in classes]
    return [rows[np.argsort(rank[of[rows]], kind="stable")] for rows in firsts]


def _labels(labels: ArrayLike) -> NDArray[np.int64]:
    label = np.asarray(labels)
    if label.ndim != 1:
        raise ValueError(f"labels must be one-dimensional, not of shape {label.shape}")
    return label


__all__ = [
    "Folds",
    "deal",
    "few_per_class",
    "held_out_part",
    "held_out_rows",
    "make_folds",
    "ranks",
    "require_two_classes_beside",
    "shuffled_classes",
    "stratified_split",
]
