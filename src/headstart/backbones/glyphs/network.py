"""The network behind ``headstart/glyphs``: a small ResNet.

It is built to be small and yet to hold everything that makes frozen backbones tricky: batch
normalisation (whose statistics follow the mode) and dropout inside the trunk (which makes features
random in training mode). Weights and preprocessing live in ``glyphs.safetensors`` beside this file.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

WIDTHS = (32, 64, 128)
DEPTHS = (1, 1, 1)
DROPOUT = 0.1
INPUT_SIZE = (32, 32)


class ConvNorm(nn.Sequential):
    """A bias-free convolution and its batch normalisation (children ``conv`` and ``norm``)."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False
        )
        self.norm = nn.BatchNorm2d(out_channels)


class Stem(nn.Module):
    """The first 3×3 convolution, stride 2: ``(n, 3, h, w)`` → ``(n, c, h/2, w/2)``."""

    def __init__(self, out_channels: int) -> None:
        super().__init__()
        self.conv = ConvNorm(3, out_channels, kernel=3, stride=2)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``(n, 3, h, w) float32`` to ``(n, c, h/2, w/2) float32``, non-negative."""
        return self.act(self.conv(x))  # type: ignore[no-any-return]


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions with dropout between them, added to a shortcut.

    He et al. 2016 (CVPR), §3.3, option B: the shortcut is the identity where shapes agree and a
    1×1 convolution where they do not. The dropout stands between the two convolutions, as in
    Zagoruyko and Komodakis 2016, §2.4, so it never touches the shortcut.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: 1, or 2 to halve height and width.
        dropout: probability with which an activation is zeroed in training mode.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.conv1 = ConvNorm(in_channels, out_channels, kernel=3, stride=stride)
        self.act1 = nn.ReLU()
        self.dropout = nn.Dropout(dropout)
        self.conv2 = ConvNorm(out_channels, out_channels, kernel=3, stride=1)
        self.shortcut: nn.Module = (
            nn.Identity()
            if stride == 1 and in_channels == out_channels
            else ConvNorm(in_channels, out_channels, kernel=1, stride=stride)
        )
        self.act2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(n, in, h, w) float32`` to ``(n, out, h/stride, w/stride)``, non-negative."""
        residual = self.conv2(self.dropout(self.act1(self.conv1(x))))
        return self.act2(residual + self.shortcut(x))  # type: ignore[no-any-return]


class GlyphNet(nn.Module):
    """A ResNet of about 0.3 M parameters for 32×32 images of characters.

    Children in forward order: ``stem``, ``stage1``, ``stage2``, ``stage3`` (sequences of residual
    blocks: ``stage1.0``, ``stage1.1``, …) and ``pool``. There is no classifier: the network is a
    backbone. Any height and width that are multiples of 16 work; it was trained at 32×32.

    Args:
        widths: channels of the three stages; the last is the length of the feature vector.
        depths: residual blocks of the three stages.
        dropout: probability of the dropout inside every residual block.

    Attributes:
        num_features: length of the feature vector.
    """

    def __init__(
        self,
        widths: Sequence[int] = WIDTHS,
        depths: Sequence[int] = DEPTHS,
        dropout: float = DROPOUT,
    ) -> None:
        super().__init__()
        self.num_features = widths[2]
        self.stem = Stem(widths[0])
        self.stage1 = _stage(widths[0], widths[0], depths[0], stride=1, dropout=dropout)
        self.stage2 = _stage(widths[0], widths[1], depths[1], stride=2, dropout=dropout)
        self.stage3 = _stage(widths[1], widths[2], depths[2], stride=2, dropout=dropout)
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the last feature map.

        Args:
            x: ``(n, 3, 32, 32) float32``, preprocessed images.

        Returns:
            ``(n, num_features, 4, 4) float32``, non-negative.
        """
        return self.stage3(self.stage2(self.stage1(self.stem(x))))  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        """Return one feature vector an image: the average over the last feature map.

        Args:
            x: ``(n, 3, 32, 32) float32``, preprocessed images.

        Returns:
            ``(n, num_features) float32``, non-negative.
        """
        return torch.flatten(self.pool(self.forward_features(x)), start_dim=1)


def _stage(
    in_channels: int, out_channels: int, depth: int, *, stride: int, dropout: float
) -> nn.Sequential:
    """Build ``depth`` residual blocks; the first changes channels and resolution."""
    first = ResidualBlock(in_channels, out_channels, stride, dropout)
    rest = (ResidualBlock(out_channels, out_channels, 1, dropout) for _ in range(depth - 1))
    return nn.Sequential(first, *rest)
