"""Numbered views are pure functions of item, number, seed and recipe."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from headstart.core.errors import ConfigError
from headstart.data import (
    ColourJitter,
    Flip,
    Preprocessing,
    RandomResizedCrop,
    Rotation,
    View,
    load_items,
    numbered_views,
    read_batches,
)
from headstart.data.decoding import image_of
from tests.data.conftest import Pictures

PREPROCESSING = Preprocessing((20, 24), 0.5, 0.5)
IMAGE = Image.fromarray(np.random.default_rng(1).integers(0, 256, (50, 70, 3), dtype=np.uint8))
ALL = (RandomResizedCrop(), Flip(), Flip(vertical=True), Rotation(), ColourJitter(hue=0.1))
KEY = "00" * 16


def pixels(view: View, key: str = KEY) -> np.ndarray:
    return view.geometry(IMAGE, key, PREPROCESSING)


def test_view_zero_is_the_image_itself() -> None:
    np.testing.assert_array_equal(pixels(View()), PREPROCESSING.geometry(IMAGE))
    assert View(0, seed=1).describe() == View(0, recipe=ALL).describe() == {"number": 0}


def test_a_view_repeats_and_everything_it_depends_on_matters() -> None:
    base = View(1, 0, ALL)
    np.testing.assert_array_equal(pixels(base), pixels(View(1, 0, ALL)))
    assert pixels(base).shape == (20, 24, 3)
    for view, key in ((View(2, 0, ALL), KEY), (View(1, 1, ALL), KEY), (base, "ff" * 16)):
        assert (pixels(view, key) != pixels(base)).mean() > 0.5


def test_views_are_the_same_on_every_machine() -> None:
    """The random numbers are pinned; a change of them must change ``RULES``."""
    view = View(3, 5, (RandomResizedCrop(), Flip()))
    assert view.recipe[0].box((500, 375), view._rng(KEY, 0)) == (92, 20, 383, 275)  # type: ignore[union-attr]
    assert view._rng(KEY, 1).random() == pytest.approx(0.16894956275191664, abs=1e-15)


def test_changing_one_step_leaves_the_random_numbers_of_the_others() -> None:
    crop = RandomResizedCrop()
    mirrored = pixels(View(1, 0, (crop, Flip(1.0))))
    plain = pixels(View(1, 0, (crop, Flip(0.0))))
    np.testing.assert_array_equal(mirrored, plain[:, ::-1])


@pytest.mark.parametrize("step", ALL, ids=lambda step: type(step).__name__)
def test_every_step_does_something_and_keeps_the_size(step: object) -> None:
    results = [pixels(View(n, 0, (step,))) for n in range(1, 9)]  # type: ignore[arg-type]
    assert {r.shape for r in results} == {(20, 24, 3)}
    assert {r.dtype for r in results} == {np.dtype(np.uint8)}
    assert len({r.tobytes() for r in results}) > 1


def test_steps_of_no_strength_do_nothing() -> None:
    idle = (Flip(0.0), Rotation(0.0), ColourJitter(0, 0, 0, 0))
    np.testing.assert_array_equal(pixels(View(1, 0, idle)), PREPROCESSING.geometry(IMAGE))


@given(st.integers(1, 500), st.integers(1, 500), st.integers(0, 10**6))
def test_crops_lie_inside_and_keep_their_bounds(width: int, height: int, seed: int) -> None:
    left, top, right, bottom = RandomResizedCrop().box((width, height), random.Random(seed))
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    if min(width, height) > 50 and 0.8 < width / height < 1.25:
        assert 0.33 < (right - left) * (bottom - top) / (width * height) <= 1
        assert 0.7 < (right - left) / (bottom - top) < 1.4


def test_batches_of_a_view(pictures: Pictures, tmp_path: Path) -> None:
    split = load_items(pictures.write(tmp_path))
    view = numbered_views(2, seed=9, recipe=ALL)[1]
    one, many = (
        torch.cat(
            [
                b.collated.args[0]
                for b in read_batches(split, None, PREPROCESSING, view=view, **options)
            ]
        )
        for options in ({"batch_size": 12, "workers": 1}, {"batch_size": 5, "workers": 4})
    )
    assert torch.equal(one, many)
    expected = [
        view.geometry(image_of(split.content(i)), split.ids[i], PREPROCESSING) for i in range(12)
    ]
    np.testing.assert_array_equal(one.permute(0, 2, 3, 1).numpy(), np.stack(expected))


def test_descriptions_are_json_and_tell_views_apart() -> None:
    family = [
        *numbered_views(3, recipe=ALL),
        *numbered_views(3),
        *numbered_views(3, seed=1),
        View(1, 0, (Rotation(5),)),
    ]
    texts = {json.dumps(view.describe(), sort_keys=True) for view in family}
    assert len(texts) == 10
    assert json.loads(json.dumps(family[0].describe())) == family[0].describe()


def test_all_faults_are_reported_together() -> None:
    with pytest.raises(ConfigError) as caught:
        View(
            -1,
            0,
            (Flip(2.0), RandomResizedCrop((0.5, 0.1)), Rotation(fill=300), ColourJitter(hue=0.7)),
        )
    assert len(caught.value.faults) == 6
    assert "Flip: probability must lie in [0, 1], not 2.0" in str(caught.value)
