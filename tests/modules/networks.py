"""Networks whose layers are laid out in ways that their class does not tell."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Attend(nn.Module):
    def __init__(self, width: int, heads: int = 2, *, batch_first: bool) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=batch_first)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


class Tower(nn.Module):
    """An image tower as CLIP's first one: (tokens, items, channels) inside."""

    def __init__(self, width: int = 24, depth: int = 2, registers: int = 0, last: bool = False):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 4, 4, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(width))
        self.registers = nn.Parameter(torch.randn(registers, width))
        self.positional_embedding = nn.Parameter(torch.randn(17 + registers, width))
        self.ln_pre = nn.LayerNorm(width)
        self.blocks = nn.Sequential(*(Attend(width, batch_first=False) for _ in range(depth)))
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.randn(width, 10))
        self.last = last

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x).flatten(2).transpose(1, 2)
        own = torch.cat([self.class_embedding[None], self.registers]).expand(len(x), -1, -1)
        x = torch.cat([x, own] if self.last else [own, x], dim=1) + self.positional_embedding
        x = self.blocks(self.ln_pre(x).permute(1, 0, 2)).permute(1, 0, 2)
        return self.ln_post(x[:, -len(self.registers) - 1 if self.last else 0]) @ self.proj


class Late(nn.Module):
    """A class token joins halfway, as in CaiT."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, width, 4, 4)
        self.early = Attend(width, batch_first=True)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.late = Attend(width, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.early(self.embed(x).flatten(2).transpose(1, 2))
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)
        return self.late(x)[:, 0]


class Stages(nn.Module):
    """Patches are pooled between two stages, and the class token is carried on, as in PiT."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, width, 4, 4)
        self.cls_token = nn.Parameter(torch.randn(1, 1, width))
        self.first = Attend(width, batch_first=True)
        self.pool, self.carry = nn.Conv2d(width, 40, 2, 2), nn.Linear(width, 40)
        self.second = Attend(40, batch_first=True)
        self.norm = nn.LayerNorm(40)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2)
        x = self.first(torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1))
        patches = self.pool(x[:, 1:].transpose(1, 2).unflatten(2, (4, 4))).flatten(2)
        x = torch.cat([self.carry(x[:, :1]), patches.transpose(1, 2)], dim=1)
        return self.norm(self.second(x))[:, 0]


class Windows(nn.Module):
    """Windows of a map become rows: side by side, or one run of all items after the other."""

    def __init__(self, strided: bool) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 24, 4, 4)
        self.inner = nn.Linear(24, 20)
        self.out = nn.Linear(20, 12)
        self.strided = strided

    def forward(self, x: Tensor) -> Tensor:
        n = len(x)
        x = self.embed(x).unflatten(2, (2, 2)).unflatten(4, (2, 2))  # n c 2 2 2 2
        order = (2, 4, 0, 3, 5, 1) if self.strided else (0, 2, 4, 3, 5, 1)
        x = self.inner(x.permute(order).reshape(4 * n, 4, 24))
        sizes = (4, n) if self.strided else (n, 4)
        return self.out(x.mean(1).unflatten(0, sizes).mean(0 if self.strided else 1))


class ChannelsLast(nn.Module):
    """A map that is (n, h, w, c) in one place, and (n, c, h, w) around it."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 2, 2)
        self.norm = nn.LayerNorm(12)
        self.mlp = nn.Sequential(nn.Linear(12, 20), nn.GELU(), nn.Dropout(0.5), nn.Linear(20, 12))
        self.gamma = nn.Parameter(torch.full((12,), scale))
        self.branch = nn.Identity()
        self.tail = nn.Conv2d(12, 10, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.mlp(self.norm(x.permute(0, 2, 3, 1))) * self.gamma
        x = x + self.branch(y.permute(0, 3, 1, 2))
        return self.tail(x).flatten(2).mean(2)


class Mixer(nn.Module):
    """Mixes tokens by linear layers, as MLP-Mixer does."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 24, 4, 4)
        self.norm1 = nn.LayerNorm(24)
        self.tokens = nn.Sequential(nn.Linear(16, 10), nn.GELU(), nn.Linear(10, 16))
        self.mlp = nn.Sequential(nn.LayerNorm(24), nn.Linear(24, 40), nn.GELU(), nn.Linear(40, 24))
        self.block = nn.Identity()
        self.norm = nn.LayerNorm(24)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2)
        x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return self.norm(self.block(x + self.mlp(x))).mean(1)


class Recurrent(nn.Module):
    """The rows of an image as steps."""

    def __init__(self, kind: type[nn.RNNBase] = nn.LSTM, *, batch_first: bool = True) -> None:
        super().__init__()
        self.rnn = kind(48, 20, batch_first=batch_first, bidirectional=True)
        self.drop = nn.Dropout(0.1)
        self.head = nn.Linear(40, 6)
        self.first = batch_first

    def forward(self, x: Tensor) -> Tensor:
        steps = x.permute(0, 2, 1, 3).flatten(2)
        steps = self.drop(self.rnn(steps if self.first else steps.transpose(0, 1))[0])
        return self.head(steps).mean(1 if self.first else 0)
