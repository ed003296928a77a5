"""A run reads new data as it read its own: with the same values of black and white."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import headstart


@pytest.fixture
def deep(tmp_path: Path) -> Path:
    """Drawings of two classes with 12 bits used, in 16-bit PNGs."""
    rng = np.random.default_rng(0)
    for name, side in (("left", slice(0, 8)), ("right", slice(8, 16))):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(12):
            pixels = rng.integers(0, 600, (16, 16)).astype(np.uint16)
            pixels[:, side] += 3000
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{i}.png")
    return tmp_path / "data"


def test_predict_and_evaluate_read_values_as_the_run_did(deep: Path, tmp_path: Path) -> None:
    options = {"cache": tmp_path / "cache"}
    run = headstart.fit(
        deep, "headstart/glyphs", value_range=(0, 4095), out=tmp_path / "run", **options
    )
    given = headstart.predict(deep, run, value_range=(0, 4095), **options)
    for trained in (run, tmp_path / "run"):
        said = headstart.predict(deep, trained, **options)
        assert said.origins == given.origins
        np.testing.assert_array_equal(said.probabilities, given.probabilities)
        assert said.cache.misses == 0
    other = headstart.predict(deep, run, value_range=(0, 65535), **options)
    assert np.abs(other.probabilities - given.probabilities).max() > 0
    assert headstart.evaluate(
        deep, tmp_path / "run", include_training=True, **options
    ).accuracy.value == pytest.approx(1.0)
