"""A run reads new data as it read its own: with the same values of black and white."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import headstart
from headstart.commands.fit.options import FIT
from headstart.commands.invocation import Call


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


def test_printed_commands_for_other_data_do_not_carry_where_a_table_keeps_its_images() -> None:
    overrides = {"image_folder": "x", "image_suffix": ".png", "value_range": (0, 4095)}
    call = Call(FIT, "train.csv", *FIT.settle(overrides, None, None, None, "headstart/glyphs"))
    assert "--image-folder x --image-suffix .png --value-range 0,4095" in call.again()
    other = call.with_run("predict", Path("run"), "NEW_IMAGES", table=Path("p.csv"))
    assert "--image" not in other
    assert "--value-range" not in other
