"""A small network that "was pre-trained" on coloured pictures, and pictures to plant faults in."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from headstart.backbones import Backbone, load_backbone
from headstart.cache import FeatureCache
from headstart.data import Dataset, Preprocessing, load_data
from headstart.extraction import Extraction
from headstart.freezing import reestimate
from headstart.study import CompareConfig, run_study

SIDE = 32
RIGHT = Preprocessing(size=SIDE, mean=0.5, std=0.5)


def pictures(count: int, *, side: int = SIDE, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Three classes told by the direction of stripes; reddish, with fine detail."""
    rng = np.random.default_rng(seed)
    y = np.arange(count) % 3
    row, column = np.mgrid[:side, :side] * (32 / side)
    phase, noise = rng.uniform(0, 6, count), rng.normal(0, 22, (count, side, side, 3))
    light = rng.uniform(0.75, 1.25, (count, 1, 1, 1))
    waves = np.stack(
        [
            np.sin(0.9 * (row, column, (row + column) / 1.4)[kind] + shift)
            for kind, shift in zip(y, phase, strict=True)
        ]
    )
    colour, swing = np.array([170.0, 110.0, 50.0]), np.array([30.0, 45.0, 15.0])
    x = light * (colour + swing * waves[..., None]) + noise
    return np.clip(x, 0, 255).astype(np.uint8), y


class PlantedNet(nn.Module):
    """Three convolutions with batch norm, dropout in between."""

    def __init__(self, dropout: float = 0.2, norm: bool = True) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = (
            nn.Conv2d(i, o, 3, stride=s, padding=1, bias=False)
            for i, o, s in ((3, 12, 1), (12, 16, 2), (16, 24, 2))
        )
        self.norm1, self.norm2, self.norm3 = (
            nn.BatchNorm2d(c) if norm else nn.GroupNorm(4, c) for c in (12, 16, 24)
        )
        self.drop = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm1(self.conv1(x)).relu()
        x = self.drop(self.norm2(self.conv2(x)).relu())
        return self.norm3(self.conv3(x)).relu().mean((2, 3))


def planted(
    preprocessing: Preprocessing = RIGHT, *, dropout: float = 0.0, norm: bool = True
) -> Backbone:
    """The network, its statistics those of ``pictures`` under the right preprocessing."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = PlantedNet(dropout, norm)
    if norm:
        x, _ = pictures(96, seed=99)
        pixels = torch.from_numpy(x).permute(0, 3, 1, 2)
        reestimate(net, [RIGHT.normalise(pixels)])
    return load_backbone(net, inputs=preprocessing)


def picture_data(*, side: int = SIDE, train: int = 90, test: int = 60) -> Dataset:
    """Pictures with a test split of their own."""
    return load_data(
        {"train": pictures(train, side=side, seed=1), "test": pictures(test, side=side, seed=2)}
    )


QUICK = Extraction(batch_size=16, device="cpu")


def quick(configs: object = None, **values: object) -> CompareConfig:
    """Two repetitions."""
    return CompareConfig(**{"configs": configs, "repeats": 2, **values})  # type: ignore[arg-type]


@pytest.fixture
def cache(tmp_path) -> FeatureCache:
    return FeatureCache(tmp_path / "cache")


@pytest.fixture
def study(cache):
    """``study(configs, backbone=..., data=..., on_bad=..., reporter=..., **settings)``."""

    def run(configs, *, backbone=None, data=None, **settings):
        own = {
            name: settings.pop(name)
            for name in ("on_bad", "reporter", "extraction")
            if name in settings
        }
        return run_study(
            data or picture_data(),
            backbone or planted(),
            quick(configs, **settings),
            cache=cache,
            **{"extraction": QUICK, **own},
        )

    return run
