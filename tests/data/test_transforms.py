"""Transforms of torchvision and Albumentations as numbered views: pure functions, kept rows."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms as v1
from torchvision.transforms import v2

import headstart
from headstart.core.errors import ConfigError
from headstart.data import Preprocessing, UndecodableError, transform_views

SIZE = Preprocessing((20, 24), mean=(0.5,) * 3, std=(0.5,) * 3)


def albumentations(*steps: str) -> Any:
    A = pytest.importorskip("albumentations")
    made = {
        "crop": lambda: A.RandomResizedCrop((20, 24), scale=(0.3, 1.0)),
        "flip": lambda: A.HorizontalFlip(p=0.5),
        "noise": lambda: A.GaussNoise(p=1.0),
        "function": lambda: A.Lambda(image=lambda image, **_: image),
    }
    return A.Compose([made[step]() for step in steps])


MAKERS = {
    "v2": lambda: v2.Compose([v2.RandomResizedCrop((20, 24)), v2.ColorJitter(0.4, 0.4)]),
    "v2 tensors": lambda: v2.Compose(
        [v2.ToImage(), v2.RandomHorizontalFlip(), v2.ToDtype(torch.float32, scale=True)]
    ),
    "v2 one": lambda: v2.RandAugment(num_ops=2),
    "v2 nested": lambda: v2.RandomApply([v2.RandomRotation(30), v2.GaussianBlur(3)], p=0.7),
    "v1": lambda: v1.Compose([v1.RandomCrop(16), v1.RandomHorizontalFlip()]),
    "albumentations": lambda: albumentations("crop", "flip", "noise"),
}


def picture(size: tuple[int, int] = (40, 30)) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 255, (*size[::-1], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("name", MAKERS)
def test_a_view_is_a_function_of_seed_number_and_item(name: str) -> None:
    image, keys = picture(), [f"item {i}" for i in range(12)]
    first, second = transform_views(MAKERS[name](), 2, seed=3)
    found = {key: first.geometry(image, key, SIZE) for key in keys}
    assert {pixels.shape for pixels in found.values()} == {(20, 24, 3)}
    assert {pixels.dtype for pixels in found.values()} == {np.dtype(np.uint8)}
    assert len({pixels.tobytes() for pixels in found.values()}) > 1
    # Another object, in another order, beside other threads and other draws: the same pixels.
    again, other = transform_views(MAKERS[name](), 2, seed=3)
    torch.rand(3), np.random.rand(3), random.random()
    with ThreadPoolExecutor(4) as pool:
        repeated = pool.map(lambda key: again.geometry(image, key, SIZE), reversed(keys))
        for key, pixels in zip(reversed(keys), repeated, strict=True):
            assert np.array_equal(pixels, found[key])
    assert any(not np.array_equal(other.geometry(image, k, SIZE), found[k]) for k in keys)
    (reseeded,) = transform_views(MAKERS[name](), 1, seed=4)
    assert any(not np.array_equal(reseeded.geometry(image, k, SIZE), found[k]) for k in keys)
    assert second.describe() == other.describe() != first.describe() != reseeded.describe()


@pytest.mark.parametrize("name", MAKERS)
def test_the_generators_of_a_program_do_not_notice(name: str) -> None:
    transform = MAKERS[name]()
    (view,) = transform_views(transform, 1)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    view.geometry(picture(), "a", SIZE)
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    assert before[:2] == after[:2]
    assert torch.equal(before[2], after[2])


def test_settings_are_part_of_the_key() -> None:
    said = [
        transform_views(transform, 1)[0].describe()
        for transform in (
            v2.ColorJitter(0.3), v2.ColorJitter(0.4), v2.Compose([v2.ColorJitter(0.3)]),
            v2.RandomRotation(10), v2.RandomRotation(10, expand=True), albumentations("flip"),
            albumentations("flip", "noise"),
        )
    ]  # fmt: skip
    assert len({str(each) for each in said}) == len(said)


class Mine:
    """A transform of one's own."""

    def __init__(self, degrees: float) -> None:
        self.degrees = degrees

    def __call__(self, image: Image.Image) -> Image.Image:
        return image.rotate(random.uniform(-self.degrees, self.degrees))

    def describe(self) -> dict[str, Any]:
        return {"degrees": self.degrees}


def test_a_transform_of_ones_own_says_what_it_does() -> None:
    one, other = (transform_views(Mine(d), 1)[0] for d in (10.0, 20.0))
    assert one.describe() != other.describe()
    assert one.geometry(picture(), "a", SIZE).shape == (20, 24, 3)
    nested = v2.Compose([Mine(5.0), v2.RandomHorizontalFlip()])
    assert "Mine" in str(transform_views(nested, 1)[0].describe())


@pytest.mark.parametrize(
    "make",
    [lambda: v2.Lambda(lambda image: image), lambda: (lambda image: image),
     lambda: albumentations("function"), lambda: v2.Compose([v2.Lambda(str)]), lambda: "flip"],
)  # fmt: skip
def test_what_does_not_say_what_it_does_is_refused(make: Any) -> None:
    with pytest.raises(ConfigError, match="does not say what it does"):
        transform_views(make(), 1)
    with pytest.raises(ConfigError, match="count must be 1 or more"):
        transform_views(v2.RandomHorizontalFlip(), 0)


def test_normalised_values_are_refused_with_the_reason() -> None:
    steps = [
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize([0.5] * 3, [0.1] * 3),
    ]
    (view,) = transform_views(v2.Compose(steps), 1)
    with pytest.raises(UndecodableError, match="drop the normalisation"):
        view.geometry(picture(), "a", SIZE)


def test_rows_of_views_are_kept(tmp_path: Any) -> None:
    draw = np.random.default_rng(0)
    x = draw.integers(0, 255, (12, 16, 16, 3), dtype=np.uint8)
    split = headstart.load_items(list(x))
    backbone, cache = headstart.load_backbone("headstart/glyphs"), headstart.FeatureCache(tmp_path)
    views = transform_views(v2.Compose([v2.RandomCrop(12), v2.ColorJitter(0.4)]), 2, seed=1)
    rows = [cache.features(backbone, split, view=view) for view in views]
    assert [each.use.misses for each in rows] == [12, 12]
    assert not np.array_equal(rows[0].rows, rows[1].rows)
    again = transform_views(v2.Compose([v2.RandomCrop(12), v2.ColorJitter(0.4)]), 2, seed=1)
    assert cache.features(backbone, split, view=again[1]).use.misses == 0
    other = transform_views(v2.Compose([v2.RandomCrop(11), v2.ColorJitter(0.4)]), 2, seed=1)
    assert cache.features(backbone, split, view=other[1]).use.misses == 12
