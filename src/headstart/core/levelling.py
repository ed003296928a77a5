"""How evenly rows can be divided: how many folds classes and groups allow, and which takes a unit.

A unit is what is never parted: one row, its copies, or a group; see :mod:`headstart.core.row_keys`.
Nothing here is random: the order of the units comes from :mod:`headstart.core.division`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from headstart.core.errors import HeadError
from headstart.core.row_keys import Index, Units


def nearest_share(sizes: np.ndarray, fraction: float) -> list[int]:
    """Return which units, visited in order, hold about a share of all: one, but never all."""
    want = min(max(round(int(sizes.sum()) * fraction), 1), int(sizes.sum()) - 1)
    taken: list[int] = []
    for at, size in enumerate(sizes.tolist()):
        if len(taken) < len(sizes) - 1 and size <= 2 * want:  # nearer with the unit than without
            taken.append(at)
            want -= size
    if not taken and len(sizes) > 1:
        taken.append(int(sizes.argmin()))
    return taken


def sparable_units(
    units: Units, labels: np.ndarray, order: np.ndarray, fraction: float
) -> list[int]:
    """Return which units hold about a share of all rows, where none holds a class alone.

    Args:
        units: of the rows.
        labels: ``(n,)`` integers.
        order: of the units, in which they are asked.
        fraction: the share, in (0, 1).

    Returns:
        Units; none where each is the only one of some class, or more than twice that share.
    """
    unit, label, contents = units.contents_by_class(labels)
    inside = np.searchsorted(unit, np.arange(len(units.keys) + 1))
    own = [label[inside[at] : inside[at + 1]] for at in range(len(units.keys))]
    left, size = np.bincount(label), np.bincount(unit, contents).astype(np.int64)
    want = round(int(size.sum()) * fraction)
    taken: list[int] = []
    for at in order.tolist():
        if (left[own[at]] > 1).all() and size[at] <= 2 * want:  # nearer with the unit than without
            taken.append(at)
            left[own[at]] -= 1
            want -= int(size[at])
    return taken


def units_by_class(labels: np.ndarray, units: Units | None) -> dict[int, int]:
    """Return how many units hold each class: so many folds can hold it out."""
    of = np.arange(len(labels)) if units is None else units.of
    present, counts = np.unique(np.unique(np.stack([labels, of]), axis=1)[0], return_counts=True)
    return dict(zip(present.tolist(), counts.tolist(), strict=True))


def _named(label: int, names: Sequence[str] | None) -> str:
    return repr(names[label]) if names is not None else str(label)


def folds_of_items(
    counts: dict[int, int], folds: int, names: Sequence[str] | None
) -> tuple[int, tuple[str, ...]]:
    """Return the number of folds that the rarest class allows, and a note where they are fewer."""
    rarest = min(counts.values())
    if max(2, rarest) >= folds:
        return folds, ()
    count = max(2, rarest)
    who = _named(next(label for label, n in counts.items() if n == rarest), names)
    items = "1 item" if rarest == 1 else f"{rarest} items"
    return count, (f"{count} folds instead of {folds}, because class {who} has only {items}",)


def folds_of_groups(
    n_groups: int, counts: dict[int, int], folds: int, names: Sequence[str] | None
) -> tuple[int, tuple[str, ...]]:
    """Return the number of folds that the groups allow, and notes on what they do not."""
    if n_groups < 2:
        raise HeadError(
            "expected at least two groups, found one",
            hint="rows of one group are held out together, so nothing would be left to train on",
        )
    count, notes = min(folds, n_groups), []
    if count < folds:
        notes.append(f"{count} folds instead of {folds}, because there are only {n_groups} groups")
    whole = [label for label, n in counts.items() if n == 1]
    if whole and len(counts) > 1:
        shown = ", ".join(_named(label, names) for label in whole[:5])
        more = f" and {len(whole) - 5} more" if len(whole) > 5 else ""
        word = "class" if len(whole) == 1 else "classes"
        notes.append(
            f"{word} {shown}{more}: all items are in one group, so the fold that holds them out"
            " is trained without them and cannot predict them"
        )
    return count, tuple(notes)


def leaves_one_class(labels: np.ndarray, of: Index, count: int) -> bool:
    """Return whether beside some fold only one of several classes is left to train on."""
    classes, y = np.unique(labels, return_inverse=True)
    held = np.zeros((count, len(classes)), np.int64)
    np.add.at(held, (of, y), 1)
    left = (held.sum(axis=0) - held > 0).sum(axis=1)
    return len(classes) > 1 and bool((left < 2).any())


def level(labels: np.ndarray, units: Units, order: Index, count: int) -> Index:
    """Put units into folds, the largest first, each where it leaves the class shares most equal.

    A unit joins the fold in which the squared class shares rise least; of equal ones, the smallest
    fold. A fold that is still empty comes before all others.

    Args:
        labels: ``(n,)``.
        units: of the rows.
        order: ``(units,)``, the order of units of one size.
        count: of the folds.
    """
    unit_of, label_of, contents = units.contents_by_class(labels)
    n_classes = int(label_of.max()) + 1
    inside = np.searchsorted(unit_of, np.arange(len(units.keys) + 1))
    weight = (1.0 / np.bincount(label_of, contents) ** 2)[label_of].tolist()
    pairs, taken = label_of.tolist(), contents.tolist()
    size = np.bincount(unit_of, contents)
    order = order[np.argsort(-size[order], kind="stable")]
    held = [[0] * n_classes for _ in range(count)]
    total = [0] * count
    where = np.empty(len(units.keys), dtype=np.int64)
    for unit in order.tolist():
        own = range(inside[unit], inside[unit + 1])

        def rise(fold: int, own: range = own) -> tuple[bool, float, int]:
            shares = held[fold]
            cost = sum(shares[pairs[at]] * taken[at] * weight[at] for at in own)
            return total[fold] > 0, cost, total[fold]

        fold = where[unit] = min(range(count), key=rise)
        total[fold] += int(size[unit])
        for at in own:
            held[fold][pairs[at]] += taken[at]
    return where[units.of]


__all__ = [
    "folds_of_groups",
    "folds_of_items",
    "leaves_one_class",
    "level",
    "nearest_share",
    "sparable_units",
    "units_by_class",
]
