"""Small networks of the shapes that real ones have, with random weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from headstart.backbones import Backbone, load_backbone


class Block(nn.Module):
    """A residual block with batch norms, an in-place activation and dropout."""

    def __init__(self, width: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)
        self.drop = nn.Dropout2d(dropout)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.bn1(self.conv1(x)))
        return self.act(x + self.drop(self.bn2(self.conv2(y))))


class Residual(nn.Module):
    """A stem, three residual blocks, and a part behind them that a cut leaves out."""

    def __init__(self, width: int = 8, dropout: float = 0.0) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, stride=2, padding=1)
        self.blocks = nn.Sequential(*(Block(width, dropout) for _ in range(3)))
        self.tail = nn.Linear(width, 7)

    def forward(self, x: Tensor) -> Tensor:
        return self.tail(self.blocks(self.stem(x)).mean(dim=(2, 3)))


def residual(
    layer: str | None = "blocks", *, seed: int = 0, dropout: float = 0.0, size: int = 16
) -> Backbone:
    """A backbone whose batch norms have statistics that differ from 0 and 1."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = Residual(dropout=dropout)
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.running_mean.normal_(0, 0.2)
                part.running_var.uniform_(0.5, 1.5)
                nn.init.uniform_(part.weight, 0.5, 1.5)
    return load_backbone(module, layer=layer, mean=0.5, std=0.25, size=size)
