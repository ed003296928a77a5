"""Preprocessing agrees with the pipelines the weights were trained with, pixel for pixel."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform
from torchvision.transforms import InterpolationMode
from torchvision.transforms._presets import ImageClassification

from headstart.core.errors import ConfigError
from headstart.data import Preprocessing

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZES = [(500, 375), (375, 500), (100, 100), (1000, 31), (224, 224), (232, 257), (33, 41)]
IMAGES = [
    Image.fromarray(np.random.default_rng(w).integers(0, 256, (h, w, 3), dtype=np.uint8))
    for w, h in SIZES
]


def pixels(preprocessing: Preprocessing, image: Image.Image) -> torch.Tensor:
    array = preprocessing.geometry(image)
    assert array.shape == (*preprocessing.size, 3)
    assert array.dtype == np.uint8
    return preprocessing.normalise(torch.from_numpy(array.copy()).permute(2, 0, 1)[None])[0]


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: f"{image.width}x{image.height}")
@pytest.mark.parametrize(("crop", "resize"), [(224, 256), (224, 232), (232, 232), (64, 71)])
def test_torchvision_presets(image: Image.Image, crop: int, resize: int) -> None:
    theirs = ImageClassification(
        crop_size=crop, resize_size=resize, interpolation=InterpolationMode.BILINEAR
    )(image)
    ours = Preprocessing(crop, MEAN, STD, crop_fraction=crop / resize, interpolation="bilinear")
    torch.testing.assert_close(pixels(ours, image), theirs, rtol=0, atol=2e-6)


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: f"{image.width}x{image.height}")
@pytest.mark.parametrize("fraction", [0.875, 0.9, 0.95, 1.0])
@pytest.mark.parametrize("mode", ["center", "squash"])
def test_timm_transforms(image: Image.Image, fraction: float, mode: str) -> None:
    theirs = create_transform(
        (3, 96, 96),
        interpolation="bicubic",
        mean=MEAN,
        std=STD,
        crop_pct=fraction,
        crop_mode=mode,
    )(image)
    resize = "squash" if mode == "squash" else "shortest"
    ours = Preprocessing(96, MEAN, STD, crop_fraction=fraction, resize=resize)
    torch.testing.assert_close(pixels(ours, image), theirs, rtol=0, atol=2e-6)


def test_an_image_of_the_right_size_is_not_resampled() -> None:
    ours = Preprocessing((257, 232), 0.0, 1.0, scale=1.0)
    np.testing.assert_array_equal(ours.geometry(IMAGES[5]), np.asarray(IMAGES[5]))


@pytest.mark.parametrize("size", [(40, 90), (90, 40)])
def test_oblong_inputs_fill_the_box_and_keep_the_aspect(size: tuple[int, int]) -> None:
    gradient = np.zeros((200, 200, 3), np.uint8)
    gradient[..., 0] = np.arange(200)
    gradient[..., 1] = np.arange(200)[:, None]
    out = Preprocessing(size, 0, 1).geometry(Image.fromarray(gradient)).astype(float)
    across, down = np.diff(out[20, 5:-5, 0]).mean(), np.diff(out[5:-5, 20, 1]).mean()
    assert across == pytest.approx(down, rel=0.05) == pytest.approx(200 / 90, rel=0.05)


def test_bgr_and_raw_samples() -> None:
    batch = torch.randint(0, 256, (2, 3, 4, 5), dtype=torch.uint8)
    ours = Preprocessing((4, 5), (104.0, 117.0, 123.0), 1.0, scale=1.0, channels="BGR")
    expected = batch.flip(1).float() - torch.tensor([104.0, 117.0, 123.0]).view(3, 1, 1)
    before = batch.clone()
    torch.testing.assert_close(ours.normalise(batch), expected)
    torch.testing.assert_close(batch, before)


def test_description_is_json_and_tells_everything_apart() -> None:
    base = Preprocessing(32, 0.5, 0.5)
    others = [
        Preprocessing(33, 0.5, 0.5),
        Preprocessing(32, 0.4, 0.5),
        Preprocessing(32, 0.5, 0.4),
        Preprocessing(32, 0.5, 0.5, scale=1.0),
        Preprocessing(32, 0.5, 0.5, crop_fraction=0.9),
        Preprocessing(32, 0.5, 0.5, resize="squash"),
        Preprocessing(32, 0.5, 0.5, interpolation="bilinear"),
        Preprocessing(32, 0.5, 0.5, channels="BGR"),
    ]
    texts = {json.dumps(p.describe(), sort_keys=True) for p in [base, *others]}
    assert len(texts) == len({str(p) for p in [base, *others]}) == 9
    assert json.loads(json.dumps(base.describe())) == base.describe()
    assert base.describe()["decoder"]["library"].startswith("pillow ")
    assert base == Preprocessing((32, 32), (0.5,), (0.5, 0.5, 0.5))


def test_all_faults_are_reported_together() -> None:
    with pytest.raises(ConfigError) as caught:
        Preprocessing(
            (0, 5),
            (0.5, 0.5),
            0.0,
            scale=-1,
            crop_fraction=1.5,
            interpolation="cubic",  # type: ignore[arg-type]
        )
    text = str(caught.value)
    assert len(caught.value.faults) == 6
    for word in ("size", "mean", "std", "scale", "crop_fraction", "bicubic"):
        assert word in text
