"""Which rows go where: splits, folds, held-out rows, a few of every class. The only divider.

Pure functions of labels, a seed, and what is known of the rows:

- ``keys`` identify a row by its content. Rows of equal key are copies and never parted, and the
  order of the rows decides nothing: an item's place follows from a hash of seed and key, so data
  that grow by some items keep nearly all of their assignments.
- ``groups`` name what belongs together for another reason (a patient, a film). They are never
  parted either. Given both, rows are kept together that are linked by either.

Without keys, a row is known by its position.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from headstart.core.errors import HeadError
from headstart.core.fingerprints import stable_integer
from headstart.core.seeds import require_seeds

Index = NDArray[np.int64]
Keys = Sequence[Hashable] | NDArray[np.generic]
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

    A class of n rows gives ``round(n * fraction)`` of them to the second part, but at least one
    and at most n − 1 where n ≥ 2; a single row stays in the first part. Rows that are never
    parted can make the second part smaller than that; they count towards the class of the first
    of them.

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
    units = _units(len(label), keys, groups)
    members = _members(units.of)
    rank = ranks(units.keys, seed)
    second = np.zeros(len(label), bool)
    own = label[[rows[0] for rows in members]] if members else label
    for value in np.unique(own):
        candidates = np.flatnonzero(own == value)
        # Equal ranks (keys equal as text) fall back to the order of the data.
        candidates = candidates[np.argsort(rank[candidates], kind="stable")]
        n = sum(len(members[unit]) for unit in candidates)
        want = min(max(round(n * fraction), 1), n - 1)
        left = len(candidates)
        for unit in candidates:
            size = len(members[unit])
            if size <= want and left > 1:  # the last of a class stays in the first part
                second[members[unit]] = True
                want -= size
                left -= 1
    return np.flatnonzero(~second), np.flatnonzero(second)


def make_folds(
    labels: np.ndarray,
    folds: int = 5,
    *,
    seed: int = 0,
    keys: Keys | None = None,
    groups: Keys | None = None,
    names: Sequence[str] | None = None,
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
    if groups is not None:
        return _grouped_folds(labels, keys, groups, folds, seed)
    units = None if keys is None else _units(len(labels), keys, None)
    present, counts = np.unique(labels, return_counts=True)
    if units is not None:  # copies of an item cannot be held out beside one another
        distinct = np.unique(np.stack([labels, units.of]), axis=1)
        counts = np.array([(distinct[0] == label).sum() for label in present])
    if counts.max() < 2:
        return None
    rarest = int(counts.min())
    count, notes = folds, []
    if max(2, rarest) < folds:
        count = max(2, rarest)
        who = present[counts.argmin()]
        name = repr(names[who]) if names is not None else str(who)
        items = "1 item" if rarest == 1 else f"{rarest} items"
        notes.append(f"{count} folds instead of {folds}, because class {name} has only {items}")
    if units is None or units.all_single:
        of = deal(labels, count, seed, keys=keys)
    else:
        of = _level(labels, units, ranks(units.keys, seed).argsort(kind="stable"), count)
    if len(present) > 1 and any(len(np.unique(labels[of != fold])) < 2 for fold in range(count)):
        return None
    return Folds(of, count, tuple(notes))


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
    units = _units(len(labels), keys, groups)
    of_class = np.bincount(np.unique(np.stack([labels, units.of]), axis=1)[0])
    alone = np.zeros(len(units.keys), bool)
    alone[units.of[of_class[labels] < 2]] = True
    several = np.flatnonzero(~alone[units.of])
    if not len(several):
        raise HeadError("expected a class with two items or more, so that one can be held out")
    count = min(parts, len(several))
    division = seed + part // count
    if keys is None and groups is None:
        of = deal(labels[several], count, division)
    else:
        some = units.take(several)
        order = ranks(some.keys, division).argsort(kind="stable")
        of = _level(labels[several], some, order, count)
    held = several[of == part % count]
    return np.setdiff1d(np.arange(len(labels)), held), held


def few_per_class(labels: ArrayLike, n: int, *, seed: Seed, keys: Keys | None = None) -> Index:
    """Choose up to ``n`` rows of every class; a larger n contains the smaller one's choice.

    Args:
        labels: ``(m,)`` integers.
        n: rows per class, at least 1.
        seed: decides which.
        keys: m keys; see the module.

    Returns:
        Ascending indices; all of a class that has no more than ``n`` rows.

    Raises:
        ValueError: n < 1, or the lengths differ.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, not {n}")
    chosen = [rows[:n] for rows in shuffled_classes(_labels(labels), seed, keys=keys)]
    return np.sort(np.concatenate(chosen)) if chosen else np.empty(0, np.int64)


def shuffled_classes(labels: np.ndarray, seed: Seed, *, keys: Keys | None = None) -> list[Index]:
    """Return the rows of each class that occurs, in random order.

    Args:
        labels: ``(n,)``.
        seed: of the order.
        keys: n keys; see the module.

    Raises:
        ValueError: the lengths differ.
    """
    classes = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    if keys is None:
        rng = np.random.default_rng(seed)
        return [rng.permutation(rows) for rows in classes]
    if len(keys) != len(labels):
        raise ValueError(f"{len(labels)} labels but {len(keys)} keys")
    rank = ranks(keys, seed)
    return [rows[np.argsort(rank[rows], kind="stable")] for rows in classes]


@dataclass(frozen=True, eq=False)
class _Units:
    """Rows that are never parted.

    Attributes:
        of: ``(n,) int64``, the unit of each row, numbered by first occurrence.
        keys: one of each unit, which its place follows from.
    """

    of: Index
    keys: Sequence[Hashable]

    @property
    def all_single(self) -> bool:
        """Whether every row is alone."""
        return len(self.keys) == len(self.of)

    def take(self, rows: Index) -> _Units:
        """Return the units of some rows."""
        kept, first, of = np.unique(self.of[rows], return_index=True, return_inverse=True)
        order = np.argsort(first, kind="stable")
        place = np.argsort(order, kind="stable")
        return _Units(place[of], [self.keys[kept[i]] for i in order])


def _units(n: int, keys: Keys | None, groups: Keys | None) -> _Units:
    for name, given in (("keys", keys), ("groups", groups)):
        if given is not None and len(given) != n:
            raise ValueError(f"{n} labels but {len(given)} {name}")
    if keys is None and groups is None:
        return _Units(np.arange(n), range(n))
    one = keys if keys is not None else groups
    assert one is not None
    of, names = _numbered(one)
    if keys is None or groups is None:
        return _Units(of, names)
    joined = _joined(of, _numbered(groups)[0])
    first: dict[int, Hashable] = {}
    for unit, name in zip(joined.tolist(), (names[i] for i in of), strict=True):
        known = first.get(unit)
        first[unit] = name if known is None or str(name) < str(known) else known
    return _Units(joined, list(first.values()))


def _numbered(values: Keys) -> tuple[Index, list[Hashable]]:
    """Number values by first occurrence."""
    numbers: dict[Hashable, int] = {}
    items = values.tolist() if isinstance(values, np.ndarray) else values
    of = np.fromiter((numbers.setdefault(v, len(numbers)) for v in items), np.int64, len(items))
    return of, list(numbers)


def _joined(a: Index, b: Index) -> Index:
    """Number rows that are linked by equal ``a`` or equal ``b``, by first occurrence."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    size = int(a.max(initial=-1)) + 1
    total = size + int(b.max(initial=-1)) + 1
    links = coo_array((np.ones(len(a)), (a, size + b)), shape=(total, total))
    _, component = connected_components(links, directed=False)
    return _numbered(component[a])[0]


def _members(of: Index) -> list[Index]:
    if not len(of):
        return []
    order = np.argsort(of, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(of[order])) + 1)


def _labels(labels: ArrayLike) -> NDArray[np.int64]:
    label = np.asarray(labels)
    if label.ndim != 1:
        raise ValueError(f"labels must be one-dimensional, not of shape {label.shape}")
    return label


def _grouped_folds(
    labels: np.ndarray, keys: Keys | None, groups: Keys, folds: int, seed: int
) -> Folds:
    if len(groups) != len(labels) or np.ndim(groups) != 1:  # type: ignore[arg-type]
        raise HeadError(
            f"expected one group per row ({len(labels)}), found {np.shape(groups)}"  # type: ignore[arg-type]
        )
    if keys is None:
        _, of = np.unique(np.asarray(groups), return_inverse=True)
        units = _Units(of, range(int(of.max()) + 1))
        order = np.random.default_rng(seed).permutation(len(units.keys))
    else:
        units = _units(len(labels), keys, groups)
        order = ranks(units.keys, seed).argsort(kind="stable")
    n_groups = len(units.keys)
    if n_groups < 2:
        raise HeadError(
            "expected at least two groups, found one",
            hint="rows of one group are held out together, so nothing would be left to train on",
        )
    count = min(folds, n_groups)
    notes: tuple[str, ...] = ()
    if count < folds:
        notes = (f"{count} folds instead of {folds}, because there are only {n_groups} groups",)
    return Folds(_level(labels, units, order, count), count, notes)


def _level(labels: np.ndarray, units: _Units, order: Index, count: int) -> Index:
    """Put units into folds, the largest first, each where it leaves the class shares most equal.

    Args:
        labels: ``(n,)``.
        units: of the rows.
        order: ``(units,)``, the order of units of one size.
        count: of the folds.
    """
    _, y = np.unique(labels, return_inverse=True)
    table = np.zeros((len(units.keys), y.max() + 1))
    np.add.at(table, (units.of, y), 1)
    order = order[np.argsort(-table[order].sum(axis=1), kind="stable")]
    held = np.zeros((count, table.shape[1]))
    where = np.empty(len(units.keys), dtype=np.int64)
    totals = table.sum(axis=0)
    for unit in order:
        # The rise of the summed squares of class shares if the unit joins each fold.
        cost = ((held + table[unit]) ** 2 - held**2) / np.maximum(totals, 1) ** 2
        empty_first = np.where(held.sum(axis=1) == 0, 0, 1)
        where[unit] = np.lexsort((cost.sum(axis=1), empty_first))[0]
        held[where[unit]] += table[unit]
    return where[units.of]


__all__ = [
    "Folds",
    "Keys",
    "deal",
    "few_per_class",
    "held_out_part",
    "held_out_rows",
    "make_folds",
    "ranks",
    "shuffled_classes",
    "stratified_split",
]
