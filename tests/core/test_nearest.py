"""The rows most similar to others, whatever these lie around."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from headstart.core.nearest import nearest_rows

K = 4


@pytest.mark.parametrize("among", [False, True], ids=["all", "some"])
@pytest.mark.parametrize("block", [None, 37])
@pytest.mark.parametrize("offset", [0.0, 100.0, -3000.0])
def test_distances_are_those_of_double_precision(
    offset: float, block: int | None, among: bool
) -> None:
    """Features far from zero, that differ by little, once lost their neighbours to rounding."""
    rows = (np.random.default_rng(0).normal(size=(200, 16)) * 0.1 + offset).astype(np.float32)
    other = np.arange(200) % 3 != 0

    def allowed(start: int, stop: int) -> np.ndarray:
        return np.broadcast_to(other[start:stop], (30, stop - start)).copy()

    found, where = nearest_rows(
        rows[:30], rows, K, "euclidean", block=block, among=allowed if among else None
    )
    expected = cdist(rows[:30].astype(np.float64), rows.astype(np.float64), "sqeuclidean")
    expected[:, ~other if among else np.zeros(200, bool)] = np.inf
    assert (where == np.argsort(expected, axis=1)[:, :K]).all()
    np.testing.assert_allclose(-found, np.sort(expected, axis=1)[:, :K], rtol=1e-3, atol=1e-5)
    assert (found <= 0).all()
