"""Similar items: the rows of a feature set that are nearest to others, or to rows of its own.

The search is exact and reads the rows in blocks; memory is a block's. For millions of rows
:class:`~headstart.store.search_index.SearchIndex` proposes candidates, and the same similarities
are computed for those alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from headstart.core.errors import StoreError
from headstart.core.nearest import METRICS, Metric, Rows, mean_row, nearest_rows
from headstart.core.wording import count, quoted
from headstart.store.layout import PackedIds, pack_ids, unpack_ids

QUERIES = 512
"""So many queries are compared at a time."""
_EXTRA = 16


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The rows that are most similar to some queries, best first.

    Attributes:
        rows: ``(m, k) int64``, positions in the feature set; −1 where there are fewer.
        similarity: ``(m, k) float64``: cosines, or minus squared distances; −inf where there are
            fewer.
        packed: ``(n, 2) uint64``, the ids of the feature set.
        recall: of an index, the share of the true ten nearest that it finds; None: exact.
    """

    rows: NDArray[np.int64]
    similarity: NDArray[np.float64]
    packed: PackedIds
    recall: float | None = None

    @property
    def ids(self) -> tuple[tuple[str, ...], ...]:
        """For every query the ids of its neighbours, best first."""
        return tuple(tuple(unpack_ids(self.packed[each[each >= 0]])) for each in self.rows)


class Candidates(Protocol):
    """Proposes rows that may be near: an index."""

    recall: float

    def candidates(self, queries: NDArray[Any], k: int) -> NDArray[np.int64]:
        """Return ``(m, k) int64`` row numbers, −1 where there are fewer."""


def neighbours(
    rows: Rows,
    packed: PackedIds,
    queries: object,
    k: int = 10,
    *,
    metric: Metric = "cosine",
    centre: bool = False,
    index: Candidates | None = None,
) -> Neighbours:
    """Return the k most similar rows to each query.

    Args:
        rows: ``(n, d)``, read in slices.
        packed: ``(n, 2) uint64``, their ids.
        queries: rows ``(m, d)`` or one row ``(d,)``; or an id of these rows, or several. An item is
            no neighbour of its own, nor are its copies, which have its id.
        k: how many, at most n.
        metric: ``cosine``, or ``euclidean``: minus the squared distance.
        centre: take the mean of all rows out first, which is one more pass over them: features of
            images share a large common part, which makes everything look alike.
        index: proposes candidates, of which the same similarities are computed; None: exact.

    Raises:
        StoreError: there are no rows; an id is not among them; the queries have another width, or
            are not finite; or k is below 1.
    """
    if metric not in METRICS:
        raise StoreError(f"there is no metric '{metric}'", hint="use 'cosine' or 'euclidean'")
    if not len(rows):
        raise StoreError("there are no rows to search")
    if k < 1:
        raise StoreError(f"k must be at least 1, not {k}")
    own = _positions(queries, packed)
    if own is None:
        asked = np.atleast_2d(np.asarray(queries))
        known = None
    else:
        asked = np.stack([np.asarray(rows[int(i) : int(i) + 1])[0] for i in own])
        known = packed[own]
    _check(asked, np.asarray(rows[0:1]).shape[1])
    middle = mean_row(rows) if centre else None
    k = min(k, len(rows))
    found = np.full((len(asked), k), -1, dtype=np.int64)
    similarity = np.full((len(asked), k), -np.inf)
    for start in range(0, len(asked), QUERIES):
        part = slice(start, start + QUERIES)
        without = None if known is None else known[part]
        if index is None:
            values, where = _exact(rows, packed, asked[part], k, metric, middle, without)
        else:
            values, where = _proposed(rows, packed, asked[part], k, metric, middle, without, index)
        found[part, : where.shape[1]], similarity[part, : where.shape[1]] = where, values
    return Neighbours(found, similarity, packed, None if index is None else index.recall)


def _exact(
    rows: Rows,
    packed: PackedIds,
    asked: NDArray[Any],
    k: int,
    metric: Metric,
    middle: NDArray[np.float64] | None,
    without: PackedIds | None,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    def among(start: int, stop: int) -> NDArray[np.bool_]:
        assert without is not None
        return np.asarray((packed[None, start:stop] != without[:, None]).any(axis=2))

    allowed = None if without is None else among
    return nearest_rows(asked, rows, k, metric, centre=middle, among=allowed)


def _proposed(
    rows: Rows,
    packed: PackedIds,
    asked: NDArray[Any],
    k: int,
    metric: Metric,
    middle: NDArray[np.float64] | None,
    without: PackedIds | None,
    index: Candidates,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Compare each query with the rows that an index proposes, and with no others."""
    proposed = index.candidates(asked, min(len(packed), 2 * k + _EXTRA))
    found = np.full((len(asked), k), -1, dtype=np.int64)
    similarity = np.full((len(asked), k), -np.inf)
    for at, candidates in enumerate(proposed):
        some = np.unique(candidates[candidates >= 0])
        if without is not None:
            some = some[(packed[some] != without[at]).any(axis=1)]
        if not len(some):
            continue
        gathered = np.asarray(rows[some])
        values, where = nearest_rows(
            asked[at : at + 1], gathered, min(k, len(some)), metric, centre=middle
        )
        found[at, : len(where[0])], similarity[at, : len(where[0])] = some[where[0]], values[0]
    return similarity, found


def _positions(queries: object, packed: PackedIds) -> NDArray[np.int64] | None:
    """Return where the ids are that are asked for; None where the queries are no ids."""
    if isinstance(queries, str):
        queries = [queries]
    if not isinstance(queries, Sequence) or not len(queries) or not isinstance(queries[0], str):
        return None
    wanted = pack_ids(list(queries))
    kind = np.dtype([("a", np.uint64), ("b", np.uint64)])
    whole = np.ascontiguousarray(packed).view(kind)[:, 0]
    order = np.argsort(whole, kind="stable")
    asked = np.ascontiguousarray(wanted).view(kind)[:, 0]
    place = np.searchsorted(whole, asked, sorter=order)
    where = order[np.minimum(place, len(order) - 1)]
    missing = [key for key, i, own in zip(queries, where, asked, strict=True) if whole[i] != own]
    if missing:
        raise StoreError(
            f"{count(len(missing), 'id')} not among the {len(packed):,} rows: {quoted(missing, 3)}",
            hint="give features (m, d) for items that are not among them",
        )
    return where.astype(np.int64)


def _check(asked: NDArray[Any], width: int) -> None:
    if asked.ndim != 2 or asked.dtype.kind not in "fiu" or asked.shape[1] != width:
        raise StoreError(
            f"expected queries of shape (m, {width:,}), found {asked.shape} of {asked.dtype}",
            hint="use features of the same backbone, layer and pooling",
        )
    if not np.isfinite(asked).all():
        raise StoreError("expected finite queries, found NaN or infinity")


__all__ = ["Candidates", "Neighbours", "neighbours"]
