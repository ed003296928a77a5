"""Which items to label next: typical ones, those that a head is unsure of, those far from others.

``typical``, the default, takes the item that is most like the others of its group, of the largest
groups without a label (:mod:`headstart.heads.typical`). ``margin`` takes the items whose two
likeliest classes are nearest to each other. ``k-centre`` takes one item after the other, each the
farthest from all that are labelled or taken (Sener and Savarese 2018; Gonzalez 1985). ``mix`` takes
``k-centre`` among the items of small margin: unsure, and not all of them alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit

from headstart.core.errors import HeadError
from headstart.core.nearest import unit_rows
from headstart.core.row_keys import Index
from headstart.evaluation import most_likely
from headstart.evaluation.targets import FloatArray
from headstart.evaluation.tasks import CLASSIFICATION, MULTI_LABEL
from headstart.heads.base import Head
from headstart.heads.features import Features, as_rows, blocks, subset
from headstart.heads.neighbours import nearest
from headstart.heads.typical import typical_rows

By = Literal["typical", "mix", "margin", "k-centre"]
UNSURE = 10
"""``mix`` looks among so many times the wanted items."""
_EDGE = 1e-9


@dataclass(frozen=True, eq=False)
class Margins:
    """How unsure a head is of each item.

    Attributes:
        value: ``(n,)``, small where it is unsure. Classes: how much likelier the first is than the
            second. Several labels: how far the label nearest to its threshold is from it.
        first, second: ``(n,)``, the classes it hesitates between; of several labels both are the
            label.
    """

    value: FloatArray
    first: Index
    second: Index


@dataclass(frozen=True, eq=False)
class Taken:
    """Items to label next, the first one first.

    Attributes:
        rows: ``(c,)``, which.
        distance: ``(c,)``, of each to the nearest item that was labelled, or taken before it, both
            of unit length; NaN where that was not asked for, or there was none.
        near: ``(c,)``, which that is: a labelled row, or less than 0: the ``-1 - i``-th taken one.
        stands_for: ``(c,)``, to how many items it is typical, about; None where that was not asked.
        labelled: ``(c,)``, how many labelled items are of its group; None likewise.
    """

    rows: Index
    distance: FloatArray
    near: Index
    stands_for: Index | None = None
    labelled: Index | None = None


def margins(head: Head, outputs: Any) -> Margins:
    """Return how unsure a head is of each item.

    Args:
        head: of classes or labels.
        outputs: probabilities ``(n, k)``, an array or blocks.

    Raises:
        HeadError: it predicts numbers, of which it never hesitates between two.
    """
    if head.task == CLASSIFICATION.name:
        best, values = most_likely(outputs, 2)
        if best.shape[1] < 2:
            nothing = np.zeros(len(best), np.int64)
            return Margins(np.zeros(len(best)), nothing, nothing)
        return Margins(values[:, 0] - values[:, 1], best[:, 0], best[:, 1])
    if head.task != MULTI_LABEL.name:
        raise HeadError(
            "a regression head has no margin: it predicts one value without saying how sure it is",
            hint="use by='k-centre'",
        )
    p = np.clip(np.asarray(outputs, dtype=np.float64), _EDGE, 1 - _EDGE)
    limits = np.full(p.shape[1], 0.5) if head.thresholds is None else head.thresholds
    gap = np.abs(logit(p) - logit(limits))
    label = gap.argmin(axis=1)
    return Margins(gap[np.arange(len(p)), label], label, label)


def take_next(
    x: object, count: int, *, by: By, unsure: Margins | None = None, labelled: object = None
) -> Taken:
    """Return which items to label next.

    Features are read in blocks; memory is a block's and one number an item.

    Args:
        x: features ``(n, d)`` of the items, no two of them copies.
        count: how many; at most all.
        by: how.
        unsure: of the same items; needed for ``margin`` and ``mix``.
        labelled: features ``(m, d)`` of what is labelled; None: nothing is known of it.

    Raises:
        HeadError: features that do not fit.
    """
    rows = as_rows(x)
    count = min(count, len(rows))
    if by == "margin":
        assert unsure is not None
        order = np.argsort(unsure.value, kind="stable")[:count]
        return Taken(order, np.full(count, np.nan), np.full(count, -1, np.int64))
    if by == "typical":
        known = None if labelled is None else as_rows(labelled, n_features=rows.shape[1])
        typical = typical_rows(rows, count, known)
        distance, near = _to_labelled(subset(rows, typical.rows), known)
        distance = np.where(np.isfinite(distance), distance, np.nan)
        return Taken(typical.rows, distance, near, typical.stands_for, typical.labelled)
    among = np.arange(len(rows))
    if by == "mix":
        assert unsure is not None
        among = np.sort(np.argsort(unsure.value, kind="stable")[: UNSURE * count])
        rows = subset(rows, among)
    known = None if labelled is None else as_rows(labelled, n_features=rows.shape[1])
    found = _k_centre(rows, count, known)
    return Taken(among[found.rows], found.distance, found.near)


def _k_centre(x: Features, count: int, labelled: Features | None) -> Taken:
    """Take the farthest item again and again; without labelled ones the first is the middle."""
    distance, near = _to_labelled(x, labelled)
    taken: list[int] = []
    gaps, nears = [], []
    for at in range(count):
        row = int(distance.argmax()) if np.isfinite(distance).all() else _middle(x)
        taken.append(row)
        gaps.append(float(distance[row]))
        nears.append(int(near[row]))
        centre = unit_rows(x[row : row + 1])[0]
        for part in blocks(len(x)):
            own = np.sqrt(np.maximum(2.0 - 2.0 * (unit_rows(x[part]) @ centre), 0.0))
            closer = own < distance[part]
            distance[part] = np.where(closer, own, distance[part])
            near[part] = np.where(closer, -1 - at, near[part])
        distance[taken] = -1.0
    found = np.array(gaps)
    return Taken(
        np.array(taken, np.int64),
        np.where(np.isfinite(found), found, np.nan),
        np.array(nears, np.int64),
    )


def _to_labelled(x: Features, labelled: Features | None) -> tuple[FloatArray, Index]:
    """Return the distance of each item to the nearest labelled one, and which that is."""
    distance, near = np.full(len(x), np.inf), np.full(len(x), -1, np.int64)
    if labelled is None:
        return distance, near
    known = labelled if not isinstance(labelled, np.ndarray) else unit_rows(labelled)
    for part in blocks(len(x), 1024):
        similarity, index = nearest(x[part], known, 1, "cosine")
        distance[part] = np.sqrt(np.maximum(2.0 - 2.0 * similarity[:, 0], 0.0))
        near[part] = index[:, 0]
    return distance, near


def _middle(x: Features) -> int:
    """Return the item nearest to the mean of all."""
    total = np.zeros(x.shape[1])
    for part in blocks(len(x)):
        total += unit_rows(x[part]).sum(axis=0, dtype=np.float64)
    likeness: NDArray[np.float64] = np.concatenate(
        [unit_rows(x[part]) @ total for part in blocks(len(x))]
    )
    return int(likeness.argmax())


__all__ = ["UNSURE", "By", "Margins", "Taken", "margins", "take_next"]
