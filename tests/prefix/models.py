"""Small models of every family, and small ones that are hard to cut."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headstart.freezing import FreezePolicy, freeze
from headstart.prefix import Cut, boundary_tensors, to_array


class UNet(nn.Module):
    """An encoder and a decoder with skip connections between them."""

    def __init__(self) -> None:
        super().__init__()
        self.down1 = block(3, 8)
        self.down2 = block(8, 16)
        self.down3 = block(16, 32)
        self.up2 = block(32 + 16, 16)
        self.up1 = block(16 + 8, 8)
        self.drop = nn.Dropout2d(0.2)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        one = self.down1(x)
        two = self.down2(F.max_pool2d(one, 2))
        three = self.down3(F.max_pool2d(two, 2))
        up = F.interpolate(three, size=two.shape[2:])
        up = self.up2(torch.cat([up, two], 1))
        up = F.interpolate(up, size=one.shape[2:])
        up = self.up1(torch.cat([up, one], 1))
        return self.head(self.drop(up)).mean((2, 3))


def block(inside: int, outside: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inside, outside, 3, padding=1, bias=False),
        nn.BatchNorm2d(outside),
        nn.ReLU(inplace=True),
    )


@dataclass(frozen=True)
class Family:
    """A model, its images, and the stage that is tested on it."""

    make: Callable[[], nn.Module]
    size: int
    stage: Mapping[str, str | FreezePolicy]
    boundary: int = 1


FAMILIES: dict[str, Family] = {
    "resnet18": Family(
        lambda: timm.create_model("resnet18", num_classes=2),
        48,
        {"": "frozen", "layer4": "trainable", "fc": "trainable"},
    ),
    "mobilenetv1": Family(
        # Padding as in TensorFlow is code around the convolutions, and the rate of dropout is
        # applied by the model's own forward: F.dropout(x, p, self.training).
        lambda: timm.create_model(
            "mobilenetv1_100", num_classes=2, pad_type="same", bn_eps=1e-3, drop_rate=0.3
        ),
        48,
        {
            "": FreezePolicy(stochastic="on"),
            "blocks": "frozen",
            "blocks.4": "trainable-fixed-norm",
            "classifier": "trainable",
        },
    ),
    "vit": Family(
        lambda: timm.create_model(
            "vit_tiny_patch16_224", num_classes=2, img_size=48, depth=4, drop_path_rate=0.2
        ),
        48,
        {"": "frozen", "blocks.3": "trainable", "norm": "trainable", "head": "trainable"},
    ),
    "convnext": Family(
        lambda: timm.create_model("convnext_atto", num_classes=2, drop_path_rate=0.2),
        64,
        {"": "frozen", "stages.3": "trainable", "head": "trainable"},
    ),
    "unet": Family(
        UNet,
        16,
        {"": "trainable", "down1": "frozen", "down2": "frozen", "down3": "frozen"},
        boundary=3,
    ),
}


def settled(model: nn.Module, size: int) -> nn.Module:
    """Give batch norms statistics that are not those of a fresh layer."""
    generator = torch.Generator().manual_seed(1)
    model.train()
    with torch.no_grad():
        for _ in range(2):
            model(torch.randn(4, 3, size, size, generator=generator))
    return model


def made(family: Family) -> nn.Module:
    """Make a model of a family with fixed weights, under the contract of its stage."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = settled(family.make(), family.size)
    freeze(model, family.stage)
    return model


def images(count: int, size: int, seed: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, size, size, generator=generator)


def twin(model: nn.Module) -> nn.Module:
    """Copy a model with its contract."""
    return copy.deepcopy(model)


def same_state(left: nn.Module, right: nn.Module) -> bool:
    """Whether two models hold the same bits."""
    ours, theirs = left.state_dict(), right.state_dict()
    return ours.keys() == theirs.keys() and all(
        torch.equal(value, theirs[name]) for name, value in ours.items()
    )


def stored(cut: Cut, batch: Tensor) -> tuple[Tensor, ...]:
    """Compute boundary rows, and take them through arrays as a store does."""
    rows = zip(cut.prefix(batch), cut.boundary, strict=True)
    return boundary_tensors(cut.boundary, {spec.name: to_array(row, spec) for row, spec in rows})
