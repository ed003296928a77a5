"""What is known of rows that are divided: their content, and which of them are never parted."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from headstart.core.errors import HeadError

Index = NDArray[np.int64]
Keys = Sequence[Hashable] | NDArray[np.generic]


@dataclass(frozen=True, eq=False)
class RowKeys(Sequence[str]):
    """Keys of rows among which near copies have been looked for: they are keys themselves.

    Attributes:
        kept: n keys, equal for copies and for near copies.
        contents: n keys, equal for copies alone.
    """

    kept: tuple[str, ...]
    contents: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.kept)

    def __iter__(self) -> Iterator[str]:
        return iter(self.kept)

    def __getitem__(self, row: Any) -> Any:
        return self.kept[row]

    def take(self, rows: NDArray[Any]) -> RowKeys:
        """Return the keys of some rows, by indices."""
        chosen = np.asarray(rows).tolist()
        return RowKeys(
            tuple(self.kept[row] for row in chosen), tuple(self.contents[row] for row in chosen)
        )


def take_keys(keys: Keys | None, rows: NDArray[Any]) -> Keys | None:
    """Return the keys of the rows at some indices; None where there are none."""
    if keys is None:
        return None
    if isinstance(keys, RowKeys):
        return keys.take(rows)
    if hasattr(keys, "to_numpy"):  # a series of pandas is indexed by its labels
        keys = keys.to_numpy()
    return [keys[row] for row in np.asarray(rows).tolist()]


def content_order(keys: Keys, labels: ArrayLike | None = None) -> Index:
    """Return the order of rows by content, and by label where copies have several: ``(n,) int64``.

    What visits rows in this order depends on what they hold, not on how files are named or sorted.
    Near copies are told apart.
    """
    of, distinct = numbered(keys.contents if isinstance(keys, RowKeys) else keys)
    place = np.empty(len(distinct), np.int64)
    by_text = np.argsort(np.array([str(key) for key in distinct]), kind="stable")
    place[by_text] = np.arange(len(distinct))
    return np.lexsort((np.zeros(len(of)) if labels is None else np.asarray(labels), place[of]))


@dataclass(frozen=True, eq=False)
class Units:
    """Rows that are never parted.

    Attributes:
        of: ``(n,) int64``, the unit of each row, numbered by first occurrence.
        keys: one of each unit, which its place follows from.
        contents: ``(n,) int64``, the number of the content of each row; copies count once.
    """

    of: Index
    keys: Sequence[Hashable]
    contents: Index

    @property
    def in_parts(self) -> bool:
        """Whether some unit holds several contents."""
        return len(np.unique(self.contents)) > len(self.keys)

    def contents_by_class(self, labels: np.ndarray) -> tuple[Index, Index, Index]:
        """Return ``(unit, class, number of contents)`` of each pair of unit and class that occurs.

        Classes are numbered from 0 in ascending order; pairs are sorted by unit, then class.
        """
        classes, y = np.unique(labels, return_inverse=True)
        different = np.unique(np.stack([self.of, y, self.contents]), axis=1)
        pair, count = np.unique(different[0] * len(classes) + different[1], return_counts=True)
        unit, label = np.divmod(pair, len(classes))
        return unit, label, count

    def sizes_and_classes(self, labels: np.ndarray) -> tuple[Index, np.ndarray]:
        """Return the contents of each unit, and its class: that of most, of several the first."""
        unit, label, count = self.contents_by_class(labels)
        best = np.lexsort((label, -count, unit))
        own = label[best[np.unique(unit[best], return_index=True)[1]]]
        size = np.bincount(unit, count, minlength=len(self.keys)).astype(np.int64)
        return size, np.unique(labels)[own]

    def take(self, rows: Index) -> Units:
        """Return the units of some rows."""
        kept, first, of = np.unique(self.of[rows], return_index=True, return_inverse=True)
        order = np.argsort(first, kind="stable")
        place = np.argsort(order, kind="stable")
        return Units(place[of], [self.keys[kept[i]] for i in order], self.contents[rows])


def units_among(n: int, keys: Keys | None = None, groups: Keys | None = None) -> Units:
    """Return what is never parted among n rows: those linked by equal key or equal group.

    Raises:
        ValueError: there are not n keys.
        HeadError: there are not n groups, or some are missing.
    """
    if keys is not None and len(keys) != n:
        raise ValueError(f"{n} labels but {len(keys)} keys")
    if groups is not None:
        _require_groups(groups, n)
    if keys is None and groups is None:
        return Units(np.arange(n), range(n), np.arange(n))
    one = keys if keys is not None else groups
    assert one is not None
    of, names = numbered(one)
    contents = of if keys is not None else np.arange(n)
    if keys is None or groups is None:
        return Units(of, names, contents)
    joined = _joined(of, numbered(groups)[0])
    first: dict[int, Hashable] = {}
    for unit, name in zip(joined.tolist(), (names[i] for i in of), strict=True):
        known = first.get(unit)
        first[unit] = name if known is None or str(name) < str(known) else known
    return Units(joined, list(first.values()), contents)


def _require_groups(groups: Keys, n: int) -> None:
    shape = tuple(getattr(groups, "shape", (len(groups),)))
    if shape != (n,):
        found = f"{shape[0]:,}" if len(shape) == 1 else f"an array of shape {shape}"
        raise HeadError(f"expected one group per row ({n:,}), found {found}")
    values = groups.tolist() if isinstance(groups, np.ndarray) else groups
    missing = [i for i, value in enumerate(values) if value is None or value != value]
    if missing:
        raise HeadError(
            f"expected a group for every row, found none (None or NaN) for {len(missing):,} of"
            f" {n:,} (the first is row {missing[0]})",
            hint="give such a row a group of its own, or remove it",
        )


def numbered(values: Keys) -> tuple[Index, list[Hashable]]:
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
    return numbered(component[a])[0]


__all__ = [
    "Index",
    "Keys",
    "RowKeys",
    "Units",
    "content_order",
    "numbered",
    "take_keys",
    "units_among",
]
