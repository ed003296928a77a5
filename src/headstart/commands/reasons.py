"""Why a head is wrong: the training items of both classes that a mistake is nearest to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.core.nearest import Rows, nearest_rows
from headstart.store.layout import PackedIds

NEAREST = 3
"""So many of each class."""


@dataclass(frozen=True)
class Near:
    """A training item that an item is near to.

    Attributes:
        at: its position among the training items.
        similarity: the cosine of the centred features.
    """

    at: int
    similarity: float


@dataclass(frozen=True)
class Reason:
    """The training items that an item is nearest to, the nearest first.

    Attributes:
        true: of its own class; empty where the class is not known, or has no other item.
        predicted: of the class that was predicted.
        any: of any class, where items have no single one.
    """

    true: tuple[Near, ...] = ()
    predicted: tuple[Near, ...] = ()
    any: tuple[Near, ...] = ()


def reasons(
    asked: NDArray[Any],
    train: Rows,
    *,
    centre: NDArray[np.float64],
    packed: PackedIds,
    own: PackedIds,
    labels: NDArray[np.int64] | None = None,
    true: NDArray[np.int64] | None = None,
    predicted: NDArray[np.int64] | None = None,
    k: int = NEAREST,
) -> tuple[Reason, ...]:
    """Return for every item the training items that it is nearest to.

    Args:
        asked: ``(m, d)``, the features of the items.
        train: ``(n, d)``, those of the training items, read in blocks.
        centre: ``(d,)``, the mean of these.
        packed: ``(n, 2) uint64``, their ids.
        own: ``(m, 2) uint64``, those of the items, which are not found for themselves.
        labels: ``(n,)``, the classes of the training items; None: they have no single one.
        true, predicted: ``(m,)``, of the items.
        k: how many of each.
    """
    if not len(asked) or not len(train):
        return tuple(Reason() for _ in range(len(asked)))

    def nearest(of: NDArray[np.int64] | None) -> list[tuple[Near, ...]]:
        def among(start: int, stop: int) -> NDArray[np.bool_]:
            allowed = (packed[None, start:stop] != own[:, None]).any(axis=2)
            if of is not None and labels is not None:
                allowed &= labels[None, start:stop] == of[:, None]
            return np.asarray(allowed)

        values, where = nearest_rows(asked, train, min(k, len(train)), centre=centre, among=among)
        return [
            tuple(Near(int(i), float(v)) for i, v in zip(places, row, strict=True) if i >= 0)
            for places, row in zip(where, values, strict=True)
        ]

    if labels is None or predicted is None:
        return tuple(Reason(any=near) for near in nearest(None))
    of_true = nearest(true) if true is not None else [()] * len(asked)
    of_predicted = nearest(predicted)
    return tuple(Reason(a, b) for a, b in zip(of_true, of_predicted, strict=True))


__all__ = ["NEAREST", "Near", "Reason", "reasons"]
