"""Which rows are held out together: stratified by class, and never parting a group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from headstart.core.errors import HeadError


def seed_faults(*seeds: int) -> list[str]:
    """Return what is wrong with the seeds of a run, one sentence each: numpy would say so late."""
    faults = [
        f"a seed is a whole number from 0, not {seed!r}"
        for seed in seeds
        if not (isinstance(seed, int | np.integer) and seed >= 0)
    ]
    if len(set(seeds)) < len(seeds):
        listed = ", ".join(map(str, seeds))
        faults.append(f"a seed given twice would repeat the same figures, found {listed}")
    return faults


def require_seeds(*seeds: int) -> None:
    """Refuse seeds that :func:`seed_faults` finds fault with.

    Raises:
        HeadError: naming every fault.
    """
    faults = seed_faults(*seeds)
    if faults:
        raise HeadError("; ".join(faults))


@dataclass(frozen=True)
class Folds:
    """A division of the training rows.

    Attributes:
        of: ``(n,) int64``, the fold that holds each row out.
        count: the number of folds, at least 2.
        notes: what was decided, and why.
    """

    of: np.ndarray
    count: int
    notes: tuple[str, ...] = ()

    def splits(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return ``(training rows, held-out rows)`` of each fold, as indices."""
        return [
            (np.flatnonzero(self.of != fold), np.flatnonzero(self.of == fold))
            for fold in range(self.count)
        ]


def make_folds(
    labels: np.ndarray,
    folds: int = 5,
    *,
    seed: int = 0,
    groups: np.ndarray | None = None,
    names: Sequence[str] | None = None,
) -> Folds | None:
    """Divide rows into folds with nearly equal shares of every class.

    With fewer items of the rarest class than folds, fewer folds are made, but not below 2: a
    class of one item is then trained on in all folds but the one that holds it out.

    Args:
        labels: ``(n,) int64``.
        folds: how many are wanted, at least 2.
        seed: of the shuffle.
        groups: ``(n,)``, rows of one group (a patient, a video) are held out together.
        names: class names, for the notes.

    Returns:
        The folds; None when nothing can be held out: no class has two items, or so few have that
        only one class would be left to train on beside some fold.

    Raises:
        HeadError: if fewer than two folds are asked for, there are fewer than two groups, or the
            seed is none.
    """
    require_seeds(seed)
    if folds < 2:
        raise HeadError(f"expected two folds or more, found {folds}")
    labels = np.asarray(labels)
    present, counts = np.unique(labels, return_counts=True)
    if groups is not None:
        return _grouped(labels, np.asarray(groups), folds, seed)
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
    of = deal(labels, count, seed)
    if len(present) > 1 and any(len(np.unique(labels[of != fold])) < 2 for fold in range(count)):
        return None
    return Folds(of, count, tuple(notes))


def deal(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Deal the items of each class to ``count`` folds in turn: ``(n,) int64``, the fold of each.

    No class, and no fold as a whole, has two items more in one fold than in another.
    """
    rng = np.random.default_rng(seed)
    of = np.empty(len(labels), dtype=np.int64)
    offset = 0
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        # Classes go on dealing where the last one stopped, which keeps the folds of equal size.
        of[rows] = (np.arange(len(rows)) + offset) % count
        offset += len(rows)
    return of


def _grouped(labels: np.ndarray, groups: np.ndarray, folds: int, seed: int) -> Folds:
    if groups.shape != labels.shape:
        raise HeadError(f"expected one group a row ({len(labels)}), found {groups.shape}")
    _, index = np.unique(groups, return_inverse=True)
    n_groups = int(index.max()) + 1
    if n_groups < 2:
        raise HeadError(
            "expected at least two groups, found one",
            hint="rows of one group are held out together, so nothing would be left to train on",
        )
    count = min(folds, n_groups)
    notes: tuple[str, ...] = ()
    if count < folds:
        notes = (f"{count} folds instead of {folds}, because there are only {n_groups} groups",)
    _, y = np.unique(labels, return_inverse=True)
    table = np.zeros((n_groups, y.max() + 1))
    np.add.at(table, (index, y), 1)
    rng = np.random.default_rng(seed)
    # Largest groups first, each to the fold that it leaves closest to equal class shares.
    order = rng.permutation(n_groups)
    order = order[np.argsort(-table[order].sum(axis=1), kind="stable")]
    held = np.zeros((count, table.shape[1]))
    where = np.empty(n_groups, dtype=np.int64)
    totals = table.sum(axis=0)
    for group in order:
        # The rise of the summed squares of class shares if the group joins each fold.
        cost = ((held + table[group]) ** 2 - held**2) / np.maximum(totals, 1) ** 2
        empty_first = np.where(held.sum(axis=1) == 0, 0, 1)
        where[group] = np.lexsort((cost.sum(axis=1), empty_first))[0]
        held[where[group]] += table[group]
    return Folds(where[index], count, notes)
