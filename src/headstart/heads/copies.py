"""Copies and near copies among training rows: what no division may part."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import gammaincinv

from headstart.core.errors import HeadError
from headstart.core.fingerprints import fingerprint
from headstart.core.row_keys import (
    Index,
    Keys,
    RowKeys,
    units_among,
)
from headstart.core.wording import count
from headstart.evaluation.targets import FloatArray
from headstart.heads.contract import NEAR
from headstart.heads.features import Features, as_rows, blocks

_BY_CHANCE = 0.001
_PROJECTED = 64
_SCREEN = 0.9
_SAMPLE_ROWS = 2048
_BLOCK_ROWS = 2048
# Comparing all pairs of so many items takes about three seconds of one processor core.
_MOST_ITEMS = 20_000


@dataclass(frozen=True, eq=False)
class Together:
    """Which rows no division may part.

    Attributes:
        keys: of the rows.
        notes: what was found, one sentence each.
    """

    keys: RowKeys
    notes: tuple[str, ...] = ()


def row_keys(x: object) -> list[str]:
    """Return a digest of each row of features ``(n, d)``, by which copies are known.

    Equal numbers have equal digests, whatever their type.
    """
    features = as_rows(x)
    keys: list[str] = []
    for rows in blocks(len(features), _BLOCK_ROWS):
        # Adding 0 turns -0.0, which equals 0.0, into it.
        block = np.ascontiguousarray(features[rows], dtype=np.float64) + 0.0
        keys += [fingerprint(row.data) for row in block]
    return keys


def keep_together(
    labels: np.ndarray | None,
    *views: object,
    keys: Keys | None = None,
    names: Sequence[str] | None = None,
) -> Together:
    """Find what no division of training rows may part: copies, and near copies among the features.

    Near copies are what :func:`~headstart.heads.find_leaks` lists between two splits: items whose
    centred features have a cosine of 0.98 or more. They must also be nearer to each other than any
    two different items are likely to be: with few features, or classes that are narrow and far
    apart, nearly everything points the same way. A mirrored or strongly cropped copy is usually
    not seen. Beyond 20,000 different items only copies are looked for.

    Args:
        labels: class indices ``(n,)``; None where there are no classes.
        *views: features ``(n, d)`` of the same items, which are near copies if they are in any.
        keys: n content ids; None: the content of the rows of the first view. Rows of equal
            features are copies in either case. Those of an earlier call are returned unchanged.
        names: class names, for the notes.
    """
    if isinstance(keys, RowKeys):
        return Together(keys)
    contents = row_keys(views[0])
    own = contents if keys is None else [str(key) for key in keys]
    if keys is not None and len(keys) != len(contents):
        raise HeadError(f"expected one key per row ({len(contents):,}), found {len(keys):,}")
    unit = units_among(len(own), own, contents).of
    classes = np.zeros(len(unit), np.int64) if labels is None else np.asarray(labels)
    notes = [] if labels is None else _contradictions(unit, labels, names)
    first = np.unique(unit, return_index=True)[1]
    copies, near, limit = len(unit) - len(first), 0, ""
    linked = unit
    if len(first) > _MOST_ITEMS:
        limit = f"; near copies are not searched for among more than {_MOST_ITEMS:,} items"
    else:
        linked = _with_near_copies(unit, first, classes, views)
        if len(np.unique(linked)) < len(first) and not _divisible(classes, linked):
            linked = unit
        near = _near(linked, unit)
    found = [f"{count(copies, 'training item')} repeat{'s' * (copies == 1)} another"] * (copies > 0)
    if near:
        word = count(near, "training item") if not found else f"{near:,}"
        found.append(f"{word} nearly equal another (cosine of the features {NEAR:g} or more)")
    if found:
        notes.append(f"{' and '.join(found)}: such items are held out together{limit}")
    return Together(RowKeys(_representatives(own, linked), tuple(own)), tuple(notes))


@dataclass(frozen=True, eq=False)
class Distinct:
    """The different rows, in the order of their content.

    Attributes:
        rows: ``(m,) int64``, the first of each.
        counts: ``(m,) float64``, the summed weights of equal rows; None: 1 each.
        inverse: ``(n,) int64``, which of them each row equals.
    """

    rows: Index
    counts: FloatArray | None
    inverse: Index

    @property
    def merged(self) -> bool:
        """Whether some rows are equal."""
        return len(self.rows) < len(self.inverse)


def distinct_rows(
    x: object, keys: RowKeys, targets: np.ndarray, weights: FloatArray | None
) -> Distinct:
    """Return the rows that differ in content or target, each with its weight.

    A row that occurs twice and a row of weight 2 are one thing then. Rows of one key that have
    different features, such as views of an item, stay apart.

    Args:
        x: features ``(n, d)``.
        keys: n of them.
        targets: ``(n,)`` or ``(n, t)``.
        weights: ``(n,)``, or None where every row counts once.
    """
    target = np.unique(targets, axis=0, return_inverse=True)[1].ravel()
    content = np.unique(np.array(keys.contents), return_inverse=True)[1]
    digest = content
    if content.max() + 1 < len(content):
        digest = np.unique(np.array(row_keys(x)), return_inverse=True)[1]
    order = np.lexsort((target, digest, content))
    ordered = np.stack([content, digest, target])[:, order]
    first = np.append(True, (ordered[:, 1:] != ordered[:, :-1]).any(axis=0))
    inverse = np.empty(len(order), np.int64)
    inverse[order] = np.cumsum(first) - 1
    counts = weights
    if weights is not None or not first.all():
        counts = np.bincount(inverse, weights).astype(np.float64)
    return Distinct(order[first], counts, inverse)


def linked_groups(keys: Keys, groups: Keys | None) -> list[Hashable] | None:
    """Return groups in which rows of equal key are in one group, named by content."""
    if groups is None:
        return None
    units = units_among(len(keys), keys, groups)
    return [units.keys[unit] for unit in units.of.tolist()]


def units_left_out(keys: Keys, groups: Keys | None) -> Index:
    """Return the number of the unit of each row ``(n,)``, where one unit after the other is left
    out. Where all rows are copies of one item, they are left out one by one.

    Raises:
        HeadError: there is one group only.
    """
    of = units_among(len(keys), keys, groups).of
    if of.max() > 0:
        return of
    if groups is not None:
        raise HeadError(
            "expected at least two groups, found one",
            hint="rows of one group are left out together, so nothing would be left to train on",
        )
    return np.arange(len(of))


def members_of_several(units: Index) -> list[Index]:
    """Return the rows of each unit of two rows or more."""
    order = np.argsort(units, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(units[order])) + 1)
    return [rows for rows in members if len(rows) > 1]


def _with_near_copies(
    unit: Index, first: Index, classes: np.ndarray, views: Sequence[object]
) -> Index:
    """Return the unit of each row once near copies are linked.

    A class whose items would all be linked is narrow as a whole: its own links are left out, since
    nothing of it could be held out.
    """
    pairs = np.concatenate([near_copies(as_rows(x), classes, first) for x in views])
    linked = _linked(unit, pairs)
    narrow = [
        label
        for label in np.unique(classes[pairs])
        if len(np.unique(linked[classes == label])) == 1
    ]
    if narrow:
        inside = np.isin(classes[pairs], narrow).all(axis=1)
        linked = _linked(unit, pairs[~inside])
    return linked


def near_copies(x: Features, labels: np.ndarray, first: Index) -> np.ndarray:
    """Return pairs of rows that are near copies, ``(m, 2) int64``; see :func:`keep_together`.

    Args:
        x: checked features ``(n, d)``.
        labels: class indices ``(n,)``.
        first: ascending indices of the rows to compare, one of each content.
    """
    z, residual = _centred(x, labels, first)
    n = len(z)
    spread = float(np.einsum("nd,nd->", residual, residual, dtype=np.float64)) / n
    if n < 3 or spread <= 0:
        return np.empty((0, 2), np.int64)
    limit = 2 * spread * _nearest_by_chance(residual)
    unit = z / np.maximum(np.sqrt(np.einsum("nd,nd->n", z, z)), 1e-30)[:, None]
    screened, level = unit, NEAR - 1e-6
    if z.shape[1] > 2 * _PROJECTED:
        # A random projection keeps cosines up to 0.005 at 0.98; what passes is looked at in full.
        matrix = np.random.default_rng(0).normal(size=(z.shape[1], _PROJECTED)).astype(np.float32)
        screened = unit @ matrix
        screened /= np.maximum(np.linalg.norm(screened, axis=1, keepdims=True), 1e-30)
        level = _SCREEN
    found = []
    for rows in blocks(n, _BLOCK_ROWS):
        similar = screened[rows] @ screened[rows.start :].T
        a, b = np.nonzero(similar >= level)
        a, b = (a + rows.start)[a < b], (b + rows.start)[a < b]
        for part in blocks(len(a), 65536):
            found.append(_confirmed(unit, z, a[part], b[part], limit))
    pairs = np.concatenate(found) if found else np.empty((0, 2), np.int64)
    return np.asarray(first[pairs])


def _confirmed(
    unit: FloatArray, z: FloatArray, a: np.ndarray, b: np.ndarray, limit: float
) -> np.ndarray:
    """Return those of the pairs ``(a, b)`` whose features confirm it, ``(m, 2)``."""
    cosine = np.einsum("nd,nd->n", unit[a], unit[b])
    gap = z[a] - z[b]
    near = (cosine >= NEAR) & (np.einsum("nd,nd->n", gap, gap) <= limit)
    return np.stack([a[near], b[near]], axis=1)


def _centred(x: Features, labels: np.ndarray, first: Index) -> tuple[FloatArray, FloatArray]:
    """Return rows less their mean, and less the means of their classes, ``(m, d) float32`` each.

    Where no class has two rows, the second are less the common mean only.
    """
    rows = np.array(x[first], dtype=np.float64)
    rows -= rows.mean(axis=0)
    classes, y = np.unique(labels[first], return_inverse=True)
    if len(classes) == len(first):
        return rows.astype(np.float32), rows.astype(np.float32)
    means = np.zeros((len(classes), rows.shape[1]))
    np.add.at(means, y, rows)
    counts = np.bincount(y)
    means /= counts[:, None]
    # Less the class mean, a row keeps (m - 1) / m of its variance.
    inflation = np.sqrt(counts / np.maximum(counts - 1, 1))[y]
    residual = (rows - means[y]) * inflation[:, None]
    return rows.astype(np.float32), residual[counts[y] > 1].astype(np.float32)


def _nearest_by_chance(residual: FloatArray) -> float:
    """Return how near, by squared distance over twice the variance, no two different items come.

    For normal residuals in r dimensions that ratio is a chi-square over its r degrees of freedom.
    An item is nearer to some other one than the bound in one of 1,000 cases. The dimension is that
    of a spectrum with the same first two moments.
    """
    some = residual[:: -(-len(residual) // _SAMPLE_ROWS)].astype(np.float64)
    m = len(some)
    if m < 3:
        return 0.0
    gram = some @ some.T
    trace = float(np.trace(gram)) / m
    np.fill_diagonal(gram, 0.0)
    dimension = trace**2 / max(float((gram**2).sum()) / (m * (m - 1)), 1e-300)
    dimension = float(np.clip(dimension, 1.0, residual.shape[1]))
    chance = _BY_CHANCE / len(residual)
    return float(2 * gammaincinv(dimension / 2, chance) / dimension)


def _linked(unit: Index, pairs: np.ndarray) -> Index:
    """Return the unit of each row once near copies are linked, ``(n,) int64``."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ends = unit[pairs]
    total = int(unit.max()) + 1
    links = coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(total, total))
    return np.asarray(connected_components(links, directed=False)[1][unit], dtype=np.int64)


def _representatives(texts: Sequence[str], linked: Index) -> tuple[str, ...]:
    """Return for each row the least key of its unit, whatever the order of the rows."""
    least: dict[int, str] = {}
    for unit, text in zip(linked.tolist(), texts, strict=True):
        least[unit] = min(text, least.get(unit, text))
    return tuple(least[unit] for unit in linked.tolist())


def _divisible(labels: np.ndarray, unit: Index) -> bool:
    """Return whether two classes are sure to be left to train on, whatever fold is held out."""
    pairs = np.unique(np.stack([unit, labels]), axis=1)
    alone = np.bincount(pairs[0])[pairs[0]] == 1  # units of one class
    _, different = np.unique(pairs[1, alone], return_counts=True)
    return int((different >= 2).sum()) >= min(2, len(np.unique(labels)))


def _near(linked: Index, unit: Index) -> int:
    """Return how many items nearly equal another."""
    pairs = np.unique(np.stack([linked, unit]), axis=1)
    several = np.bincount(pairs[0])[pairs[0]] > 1
    return int(several.sum())


def _contradictions(unit: Index, labels: np.ndarray, names: Sequence[str] | None) -> list[str]:
    """Return the note that copies of one item have different classes."""
    pairs = np.unique(np.stack([unit, np.asarray(labels)]), axis=1)
    several = np.flatnonzero(np.bincount(pairs[0]) > 1)
    if not len(several):
        return []
    classes = pairs[1, pairs[0] == several[0]][:2]
    shown = " and ".join(repr(names[c]) if names is not None else str(c) for c in classes)
    verb = "has copies" if len(several) == 1 else "have copies"
    return [
        f"{count(len(several), 'training item')} {verb} under different classes (such as {shown});"
        " one of the labels must be wrong"
    ]


__all__ = [
    "Distinct",
    "Together",
    "distinct_rows",
    "keep_together",
    "linked_groups",
    "members_of_several",
    "near_copies",
    "row_keys",
    "units_left_out",
]
