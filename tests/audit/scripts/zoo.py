"""What the scripts of this folder share: pictures, and "pre-trained" weights, without a network.

The pictures are pieces of the two photographs that scikit-learn brings along. The weights are
random, and their running statistics are those of the pictures, normalised as each network expects:
what an audit looks at, modes, statistics and scales, is as in a trained network. They are made once,
in a process of their own, and kept in the temporary folder.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import nn

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
FOLDER = Path(tempfile.gettempdir()) / f"headstart-audit-scripts-{os.getuid()}-2"


@functools.cache
def photographs() -> list[np.ndarray]:
    """Return the two photographs, ``(427, 640, 3) uint8``."""
    from sklearn.datasets import load_sample_images

    return list(load_sample_images().images)


def photos(split: str = "train", n: int = 32, size: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Return ``(n, size, size, 3) uint8`` pictures of a temple or a flower, and labels."""
    rng = np.random.default_rng({"train": 0, "val": 1, "test": 2}[split])
    both = photographs()
    # Train, validation and test pictures come from different parts of the photographs.
    low, high = {"train": (0.0, 0.6), "val": (0.6, 0.8), "test": (0.8, 1.0)}[split]
    labels = rng.permutation(np.arange(n) % 2)
    found = []
    for label in labels:
        image = both[label]
        image = image[:, int(low * 640) : int(high * 640)]
        side = 96
        top = rng.integers(0, image.shape[0] - side)
        left = rng.integers(0, image.shape[1] - side)
        piece = torch.tensor(image[top : top + side, left : left + side]).permute(2, 0, 1)
        small = nn.functional.interpolate(piece[None].float(), size=(size, size), mode="area")[0]
        found.append(small.permute(1, 2, 0).numpy().round().astype(np.uint8))
    return np.stack(found), labels


def tensors(split: str = "train", n: int = 32, size: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ``(n, 3, size, size) float32`` pictures in 0..1, and labels."""
    images, labels = photos(split, n, size)
    return torch.tensor(images).permute(0, 3, 1, 2).float() / 255, torch.tensor(labels)


def cifar10(split: str = "train", n: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Return CIFAR-10, ``(n, 32, 32, 3) uint8``, where it is on the machine; else the pictures."""
    table = Path(__file__).parents[4] / "shared" / "data" / "cifar10" / f"{split}.parquet"
    if not table.is_file():
        return photos(split, n)
    import io

    import pyarrow.parquet as pq
    from PIL import Image

    rows = next(pq.ParquetFile(table).iter_batches(n)).to_pylist()
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    images = [np.asarray(Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB")) for row in rows]
    return np.stack(images), np.array([names.index(row["label"]) for row in rows])


class Block(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.relu = nn.ReLU()
        self.down = (
            nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))
            if stride > 1
            else nn.Identity()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + self.down(x))


class ResNet8(nn.Module):
    """A small ResNet for 32×32 pictures: 64 features, then ``fc``."""

    def __init__(self, classes: int = 10, width: int = 16, dropout: float = 0.0) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.layer1 = Block(width, width, 1)
        self.layer2 = Block(width, 2 * width, 2)
        self.layer3 = Block(2 * width, 4 * width, 2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(4 * width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(self.dropout(self.flatten(self.avgpool(x))))


def _build(name: str) -> tuple[nn.Module, int, tuple[tuple[float, ...], tuple[float, ...]]]:
    imagenet = (IMAGENET_MEAN, IMAGENET_STD)
    if name == "resnet8":  # pre-trained on 32×32, ImageNet's mean and deviation
        return ResNet8(), 32, imagenet
    if name in ("resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5"):
        import torchvision

        return torchvision.models.get_model(name), 64, imagenet
    import timm

    model = timm.create_model(name)
    config = model.pretrained_cfg
    return model, config["input_size"][-1], (config["mean"], config["std"])


def weights(name: str) -> dict[str, torch.Tensor]:
    """Return a state dict of ``resnet8``, of a torchvision or of a timm network."""
    path = FOLDER / f"{name}.pth"
    if not path.exists():
        subprocess.run([sys.executable, __file__, name], check=True)
    return torch.load(path, weights_only=True)


def keras_weights() -> list[np.ndarray]:
    """Return the weights of a Keras convolution (8 of 3×3) and batch norm, for inputs in -1..1."""
    kernel = np.random.default_rng(0).normal(0, 0.2, (3, 3, 3, 8)).astype("float32")
    images = torch.tensor(photos("train", 64)[0]).permute(0, 3, 1, 2) / 127.5 - 1
    maps = nn.functional.conv2d(images, torch.tensor(kernel).permute(3, 2, 0, 1))
    var, mean = torch.var_mean(maps, dim=(0, 2, 3))
    ones = np.ones(8, "float32")
    return [kernel, ones, 0 * ones, mean.numpy(), var.numpy()]


def make(name: str) -> None:
    """Write the weights of a network, its running statistics those of the pictures."""
    torch.manual_seed(0)
    model, size, (mean, std) = _build(name)
    images, _ = tensors("train", 64, size)
    images = (images - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # the plain average of what it sees
    model.train()
    with torch.no_grad():
        for part in images.split(32):
            model(part)
    for norm in norms:
        norm.num_batches_tracked.fill_(10_000)
    FOLDER.mkdir(exist_ok=True)
    temporary = FOLDER / f"{name}.{os.getpid()}"
    torch.save(model.state_dict(), temporary)
    temporary.replace(FOLDER / f"{name}.pth")


if __name__ == "__main__":
    for each in sys.argv[1:]:
        make(each)
