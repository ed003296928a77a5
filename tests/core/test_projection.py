"""The plane in which rows differ most."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.core.projection import principal_plane


@pytest.mark.parametrize("shape", [(200, 10), (30, 100), (3, 5), (25_000, 40)])
def test_it_is_that_of_principal_components(shape: tuple[int, int]) -> None:
    n, d = shape
    generator = np.random.default_rng(0)
    scale = np.linspace(0.1, 1, d) ** 2
    scale[3], scale[-1] = 9, 6
    rows = (generator.normal(size=shape) * scale + 5).astype(np.float32)
    plane = principal_plane(rows)
    centred = rows[:: max(1, n // 200_000)].astype(np.float64)
    centred = centred - centred.mean(axis=0)
    _, s, axes = np.linalg.svd(centred, full_matrices=False)
    cosine = np.abs((plane.axes * axes[:2]).sum(axis=1))
    assert (cosine > (0.999 if plane.looked == n else 0.98)).all()
    shares = s[:2] ** 2 / (s**2).sum()
    np.testing.assert_allclose(plane.shares, shares, rtol=1e-3 if plane.looked == n else 0.05)
    np.testing.assert_allclose(
        plane.project(rows), (rows - plane.mean) @ plane.axes.T, atol=1e-3
    )  # fmt: skip
    again = principal_plane(rows)
    assert (again.axes == plane.axes).all()
    assert all(axis[np.abs(axis).argmax()] > 0 for axis in plane.axes)


@pytest.mark.parametrize(
    "rows", [np.ones((5, 3)), np.ones((1, 4)), np.arange(6.0)[:, None], np.empty((0, 4))]
)
def test_rows_with_fewer_directions(rows: np.ndarray) -> None:
    plane = principal_plane(rows.astype(np.float32))
    places = plane.project(rows.astype(np.float32))
    assert places.shape == (len(rows), 2)
    assert np.isfinite(places).all()
    assert plane.shares[1] == 0


def test_rows_that_sum_to_zero_exactly() -> None:
    """Inner products of few wide rows turn equal numbers into zero: no search may begin there."""
    drawn = np.random.default_rng(0).integers(-3, 4, (32, 100)).astype(np.float32)
    rows = np.concatenate([drawn, -drawn])
    values = np.linalg.svd(rows, compute_uv=False) ** 2
    np.testing.assert_allclose(principal_plane(rows).shares, values[:2] / values.sum(), rtol=1e-5)
    line = np.outer(np.arange(64) - 31.5, np.arange(100.0)).astype(np.float32)
    np.testing.assert_allclose(principal_plane(line).shares, (1, 0), atol=1e-6)
