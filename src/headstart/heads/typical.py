"""Items that stand for many others: of each group of like items without a label the most typical.

With few labels a head learns most from typical items. What lies far from all others is a poor
example of its class, and what the head hesitates over says little while it knows little (Hacohen,
Dekel and Weinshall 2022, "Active learning on a budget: opposite strategies suit high and low
budgets", whose TypiClust this is). Labelled and unlabelled items are grouped together by k-means
into as many groups as there will be labels; of the largest groups without one, the item that is
most like its nearest in the group is taken.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headstart.core.nearest import unit_rows
from headstart.core.projection import principal_plane
from headstart.core.row_keys import Index
from headstart.evaluation.targets import FloatArray
from headstart.heads.features import Features, subset

_LOOKED, _LABELLED = 20_000, 2_000
"""Of more unlabelled, or labelled, items a part is grouped, at even distances."""
_COMPONENTS, _ROUNDS, _GROUPS = 64, 50, 500
"""Directions in which items are compared; rounds of k-means; groups, unless more are wanted."""
_SMALL = 5
"""Groups of fewer items, and of fewer than half the mean, are of strange ones, and come last."""
_ALIKE = 20
"""Nearest items of its group that an item is to be like."""


@dataclass(frozen=True, eq=False)
class Typical:
    """Typical items, those of the largest groups first.

    Attributes:
        rows: ``(c,)``, which.
        stands_for: ``(c,)``, how many items without a label its group has, about.
        labelled: ``(c,)``, how many labelled ones, of those that were looked at.
    """

    rows: Index
    stands_for: Index
    labelled: Index


def typical_rows(x: Features, count: int, labelled: Features | None = None) -> Typical:
    """Return the most typical items of groups that have the fewest labels.

    Args:
        x: features ``(n, d)`` of items without a label.
        count: how many; at most n.
        labelled: features ``(m, d)`` of those that have one; None: nothing is known of them.
    """
    among = _some(len(x), max(_LOOKED, count))
    own = unit_rows(np.asarray(subset(x, among)))
    known = np.empty((0, own.shape[1]), np.float32)
    if labelled is not None and len(labelled):
        known = unit_rows(np.asarray(subset(labelled, _some(len(labelled), _LABELLED))))
    rows = np.concatenate([known, own])
    if rows.shape[1] > _COMPONENTS:
        rows = unit_rows(principal_plane(rows, _COMPONENTS).project(rows))
    of = _groups(rows, max(count, min(len(known) + count, _GROUPS)))
    m = len(known)
    labels = np.bincount(of[:m], minlength=of.max() + 1)
    taken, groups = _cover(rows[m:], of[m:], labels, count)
    sizes = np.bincount(of[m:])[groups] * (len(x) / max(1, len(among)))
    stands_for = np.maximum(1, np.rint(sizes)).astype(np.int64)
    return Typical(among[taken], stands_for, labels[groups])


def _some(n: int, most: int) -> Index:
    return np.unique(np.linspace(0, n - 1, min(n, most)).astype(np.int64))


def _groups(rows: FloatArray, count: int) -> Index:
    """Return the group of each row, ``(n,)``."""
    from sklearn.cluster import KMeans

    count = min(count, len(np.unique(rows, axis=0)))
    if count == len(rows):
        return np.arange(len(rows), dtype=np.int64)
    made = KMeans(count, n_init=1, max_iter=_ROUNDS, random_state=0).fit(rows)
    return np.asarray(made.labels_, dtype=np.int64)


def _cover(rows: FloatArray, of: Index, labels: Index, count: int) -> tuple[Index, Index]:
    """Take from one group after another: that of the fewest labels, and of these the largest.

    Groups of a few strange items come last.

    Args:
        rows: ``(n, d)``, of items without a label.
        of: ``(n,)``, their groups.
        labels: ``(g,)``, how many labelled items each group has.
        count: how many to take.

    Returns:
        The rows, and their groups, ``(count,)`` each.
    """
    sizes = np.bincount(of, minlength=len(labels))
    least = min(float(_SMALL), (len(of) + labels.sum()) / len(labels) / 2)
    ranked = [_most_typical_first(rows, np.flatnonzero(of == g)) for g in range(len(labels))]
    begun, covered = np.zeros(len(labels), np.int64), labels.astype(np.int64).copy()
    taken: list[int] = []
    groups: list[int] = []
    while len(taken) < count:
        left = np.flatnonzero(begun < sizes)
        small = sizes[left] + labels[left] < least
        group = int(left[np.lexsort((-sizes[left], covered[left], small))[0]])
        taken.append(int(ranked[group][begun[group]]))
        groups.append(group)
        begun[group] += 1
        covered[group] += 1
    return np.array(taken, np.int64), np.array(groups, np.int64)


def _most_typical_first(rows: FloatArray, members: Index) -> Index:
    """Return the members of a group, those first that are most like their nearest."""
    if len(members) < 3:
        return members
    own = rows[members]
    k = min(_ALIKE, len(members) - 1)
    found = np.empty(len(members))
    for start in range(0, len(members), 2048):
        similar = own[start : start + 2048] @ own.T
        nearest = np.partition(similar, len(members) - 1 - k, axis=1)[:, -1 - k :]
        found[start : start + 2048] = (nearest.sum(axis=1) - 1.0) / k  # but itself
    return np.asarray(members[np.argsort(-found, kind="stable")])


__all__ = ["Typical", "typical_rows"]
