"""Small models with every kind of norm and every source of chance, for the freeze tests."""

from __future__ import annotations

from collections.abc import Callable

import timm.layers
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn


class UserNorm(nn.Module):
    """A user's own batch norm, which registers its buffers itself."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(features))
        self.register_buffer("running_mean", torch.zeros(features))
        self.register_buffer("running_var", torch.ones(features))

    def forward(self, x: Tensor) -> Tensor:
        shape = (1, -1) + (1,) * (x.ndim - 2)
        if self.training:
            axes = [0, *range(2, x.ndim)]
            mean, var = x.mean(axes), x.var(axes, unbiased=False)
            with torch.no_grad():
                self.running_mean.lerp_(mean, 0.1)
                self.running_var.lerp_(var, 0.1)
        else:
            mean, var = self.running_mean, self.running_var
        return (x - mean.view(shape)) / (var.view(shape) + 1e-5).sqrt() * self.scale.view(shape)


class FunctionalDropout(nn.Module):
    """Dropout without a dropout module."""

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.5, self.training)


class Attention(nn.Module):
    """Self-attention over positions, with attention dropout."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(width, 2, dropout=0.5, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(2).transpose(1, 2)
        out, _ = self.inner(rows, rows, rows, need_weights=False)
        return x + out.transpose(1, 2).reshape(x.shape)


class Flat(nn.Module):
    """Applies a layer that wants (n, c, l) to (n, c, h, w)."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.flatten(2)).reshape(x.shape)


class Deep(nn.Module):
    """Applies a layer that wants (n, c, d, h, w) to (n, c, h, w)."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.unsqueeze(2)).squeeze(2)


def lazy_norm() -> nn.Module:
    layer = nn.LazyBatchNorm2d()
    layer(torch.randn(2, 4, 3, 3))
    layer.reset_running_stats()
    return layer


NORMS: dict[str, Callable[[], nn.Module]] = {
    "BatchNorm1d": lambda: Flat(nn.BatchNorm1d(4)),
    "BatchNorm2d": lambda: nn.BatchNorm2d(4),
    "BatchNorm2d-cumulative": lambda: nn.BatchNorm2d(4, momentum=None),
    "BatchNorm3d": lambda: Deep(nn.BatchNorm3d(4)),
    "SyncBatchNorm": lambda: nn.SyncBatchNorm(4),
    "BatchNormAct2d": lambda: timm.layers.BatchNormAct2d(4),
    "InstanceNorm2d": lambda: nn.InstanceNorm2d(4, affine=True, track_running_stats=True),
    "LazyBatchNorm2d": lazy_norm,
    "UserNorm": lambda: UserNorm(4),
}
# Norms whose statistics nothing ever moves.
CONSTANT_NORMS: dict[str, Callable[[], nn.Module]] = {
    "torchvision-frozen": lambda: torchvision.ops.FrozenBatchNorm2d(4),
    "timm-frozen": lambda: timm.layers.FrozenBatchNormAct2d(4),
}
CHANCES: dict[str, Callable[[], nn.Module]] = {
    "Dropout": lambda: nn.Dropout(0.5),
    "Dropout1d": lambda: Flat(nn.Dropout1d(0.5)),
    "Dropout2d": lambda: nn.Dropout2d(0.5),
    "Dropout3d": lambda: Deep(nn.Dropout3d(0.5)),
    "AlphaDropout": lambda: nn.AlphaDropout(0.5),
    "FeatureAlphaDropout": lambda: nn.FeatureAlphaDropout(0.5),
    "timm-DropPath": lambda: timm.layers.DropPath(0.5),
    "timm-DropBlock2d": lambda: timm.layers.DropBlock2d(0.5, block_size=2),
    "torchvision-StochasticDepth": lambda: torchvision.ops.StochasticDepth(0.5, "row"),
    "torchvision-DropBlock2d": lambda: torchvision.ops.DropBlock2d(0.5, 3),
    "F.dropout": FunctionalDropout,
    "MultiheadAttention": lambda: Attention(4),
    "RReLU": nn.RReLU,
}


def off_zero(module: nn.Module) -> None:
    """Shift all parameters, so that weight decay moves those whose gradient happens to be 0.

    A shift that a later batch norm takes out again has no gradient but for rounding.
    """
    for parameter in module.parameters():
        parameter.data.add_(0.1)


class TwoParts(nn.Module):
    """An encoder of a convolution and one layer under test, and a decoder with dropout."""

    def __init__(self, layer: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), layer(), nn.Conv2d(4, 4, 1))
        off_zero(self.encoder)
        self.decoder = nn.Sequential(
            nn.Flatten(), nn.BatchNorm1d(4 * 36), nn.Dropout(0.5), nn.Linear(4 * 36, 2)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x))


class Ladder(nn.Sequential):
    """Layers with a shortcut each, so that no norm and no drop-path cuts the gradient off."""

    def forward(self, x: Tensor) -> Tensor:
        first, *others = self
        x = first(x)
        for layer in others:
            x = (x + layer(x)) / 2**0.5
        return x


class Everything(nn.Module):
    """All norms and all sources of chance in one part, for the dearer trainers."""

    def __init__(self) -> None:
        super().__init__()
        layers = [make() for make in {**NORMS, **CONSTANT_NORMS, **CHANCES}.values()]
        self.encoder = Ladder(nn.Conv2d(3, 4, 3, padding=1), *layers, nn.Conv2d(4, 4, 1))
        off_zero(self.encoder)
        self.decoder = nn.Sequential(
            nn.Flatten(), nn.BatchNorm1d(4 * 36), nn.Dropout(0.5), nn.Linear(4 * 36, 2)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.encoder(x)
        return self.decoder(x) + x.flatten(1)[:, :2]


def batch(seed: int = 0, count: int = 6) -> tuple[Tensor, Tensor]:
    """Images far from zero mean and unit variance, and labels."""
    generator = torch.Generator().manual_seed(seed)
    images = 3.0 + 2.0 * torch.randn(count, 3, 6, 6, generator=generator)
    return images, torch.arange(count) % 2
