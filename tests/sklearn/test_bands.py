"""Arrays of 13 bands of 16 bits in the estimators."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import cross_val_score

from headstart.sklearn import FeatureExtractor, InputError, TransferClassifier

GLYPHS = "headstart/glyphs"
CHOSEN: dict[str, Any] = {"bands": (8, 4, 3), "mean": 0.4, "std": 0.3}


def scenes(n: int = 40) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 3000, (n, 20, 24, 13), dtype=np.uint16)
    y = np.arange(n) % 2
    x[:, :, :, 7] += (y * 5000)[:, None, None].astype(np.uint16)
    return x, y


def test_bands_are_chosen_and_their_bits_kept() -> None:
    x, y = scenes()
    model = TransferClassifier(GLYPHS, value_range=(0, 10000), backbone_args=CHOSEN, cache=False)
    assert cross_val_score(model, x, y, cv=2).mean() > 0.9
    first = np.ascontiguousarray(x.transpose(0, 3, 1, 2))  # bands first
    args: dict[str, Any] = {"value_range": (0, 10000), "backbone_args": CHOSEN, "cache": False}
    one, other = (FeatureExtractor(GLYPHS, **args).fit_transform(v) for v in (x, first))
    np.testing.assert_allclose(one, other, atol=1e-6)
    half = FeatureExtractor(GLYPHS, **args).fit_transform(list(x[:3]))
    np.testing.assert_allclose(one[:3], half, atol=1e-4)


def test_what_is_measured_is_measured_on_what_is_fitted() -> None:
    x, y = scenes()
    args = {**CHOSEN, "mean": "train", "std": "train"}
    model = FeatureExtractor(GLYPHS, value_range=(0, 10000), backbone_args=args, cache=False)
    fitted = clone(model).fit(x[y == 0], y[y == 0])
    inputs = fitted.backbone_.inputs
    assert inputs.mean[0] == pytest.approx(x[y == 0][..., 7].mean() / 10000, abs=0.02)
    assert fitted.transform(x[:2]).shape[0] == 2
    assert clone(fitted).fit(x[y == 1]).backbone_.inputs.mean[0] > inputs.mean[0] + 0.3


def test_what_nothing_says_is_asked_for() -> None:
    x, _ = scenes(4)
    with pytest.raises(InputError, match="value_range"):
        FeatureExtractor(GLYPHS, backbone_args=CHOSEN, cache=False).fit(x)
    with pytest.raises(InputError, match="13 bands"):
        FeatureExtractor(GLYPHS, value_range=(0, 10000), cache=False).fit(x)


def test_a_network_of_13_channels_takes_floats_and_flat_rows() -> None:
    x, _ = scenes(6)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(13, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    )
    args: dict[str, Any] = {"in_channels": 13, "size": (20, 24), "mean": 0.0, "std": 1.0}
    shares = (x / 10000).astype(np.float32)
    found = FeatureExtractor(net, backbone_args=args, cache=False).fit_transform(shares)
    with torch.no_grad():
        expected = net(torch.from_numpy(shares.transpose(0, 3, 1, 2))).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    flat = FeatureExtractor(net, backbone_args=args, cache=False, image_shape=(20, 24, 13))
    np.testing.assert_allclose(flat.fit_transform(shares.reshape(6, -1)), expected, atol=1e-5)
