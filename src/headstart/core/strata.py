"""What a division keeps in proportion where items have no class: several labels, or values.

Both turn targets into one small number an item, which :mod:`headstart.core.division` takes as it
takes classes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_LEAST = 10
"""Items that a stratum has; so many folds can take one each."""
_MOST = 10


def strata_of_memberships(memberships: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return for each item its rarest label, which is the one that a chance division would lose.

    That is the first step of iterative stratification (Sechidis, Tsoumakas and Vlahavas 2011), for
    all items at once. Labels of fewer than ten items, and items without any, stand together.

    Args:
        memberships: ``(n, k)``; above 0.5 an item has the label.

    Returns:
        ``(n,)``.
    """
    has = memberships > 0.5
    n, k = has.shape
    if not n or not k:
        return np.zeros(n, np.int64)
    counts = has.sum(axis=0)
    rarest = np.where(has, counts, n + 1).argmin(axis=1)
    return _merged(np.where(has.any(axis=1), rarest, k))


def strata_of_values(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return for each item which tenth of the values it lies in; with few items fewer parts.

    Several targets count through their first principal component, each at unit deviation.

    Args:
        values: ``(n, t)``, finite.

    Returns:
        ``(n,)``.
    """
    n, t = values.shape
    if not n or not t:
        return np.zeros(n, np.int64)
    line = values[:, 0]
    if t > 1:
        centred = values - values.mean(axis=0)
        spread = centred.std(axis=0)
        centred = centred / np.where(spread > 0, spread, 1.0)
        line = centred @ np.linalg.eigh(centred.T @ centred)[1][:, -1]
    parts = max(1, min(_MOST, n // _LEAST))
    edges = np.unique(np.quantile(line, np.arange(1, parts) / parts))
    return _merged(np.searchsorted(edges, line, side="right"))


def _merged(strata: NDArray[np.integer]) -> NDArray[np.int64]:
    """Number strata from 0; small ones become one, and join the largest if that is small too."""
    values, of, counts = np.unique(strata, return_inverse=True, return_counts=True)
    small = counts < _LEAST
    target = np.arange(len(values))
    if small.any():
        target[small] = np.flatnonzero(small)[0]
        if counts[small].sum() < _LEAST:
            target[small] = int(counts.argmax())
    return np.asarray(np.unique(target[of], return_inverse=True)[1].ravel(), dtype=np.int64)


__all__ = ["strata_of_memberships", "strata_of_values"]
