"""Pre-train the bundled backbone ``headstart/glyphs`` on Omniglot, on the CPU.

The task is to name the character and its rotation: 242 characters of 8 alphabets (the two "small"
background sets; Greek and Latin stand in both and count once) at 0°, 90°, 180° and 270° make 968
classes. The first 18 of the 20 drawers train, the last two validate. Every image is drawn afresh
in every epoch: placed, sheared, bent, thickened, reduced to as little as 8×8 pixels, enlarged
again, and coloured dark on light or light on dark.

    python scripts/pretrain_glyphs.py ../shared/data/omniglot --out build/glyphs

writes ``glyphs.safetensors`` (weights, and in its metadata the preprocessing, the recipe and the
figures of the model card) and ``golden.safetensors`` (inputs and features for the tests).
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from glyph_drawings import MEAN, STD, Augmenter, Drawings, read_omniglot
from PIL import Image, ImageDraw
from safetensors.torch import save_file
from torch import Tensor, nn

from headstart.backbones.glyphs.network import DEPTHS, DROPOUT, INPUT_SIZE, WIDTHS, GlyphNet

ROTATIONS = 4

PREPROCESSING = {
    "size": list(INPUT_SIZE),
    "crop_fraction": 1.0,
    "resize": "squash",
    "interpolation": "bilinear",
    "mean": [MEAN] * 3,
    "std": [STD] * 3,
    "scale": 1 / 255,
    "channels": "RGB",
}

ARCHITECTURE = {
    "name": "GlyphNet",
    "widths": list(WIDTHS),
    "depths": list(DEPTHS),
    "dropout": DROPOUT,
}

LICENCE = {
    "weights": "Apache-2.0",
    "data": "MIT",
    "data_holder": "Brenden Lake, Ruslan Salakhutdinov, Joshua B. Tenenbaum",
}


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights, apart from the data and the library's arithmetic."""

    seed: int = 0
    epochs: int = 40
    batch_size: int = 128
    chunk: int = 64  # images that share one stroke width and one resolution
    peak_rate: float = 0.2
    warm_up: float = 0.1  # fraction of the steps
    momentum: float = 0.9
    weight_decay: float = 5e-4
    training_drawers: int = 18
    precision: str = "bfloat16"  # autocast of the training steps; weights stay float32


def batches(
    drawings: Drawings, recipe: Recipe, augmenter: Augmenter, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield one epoch: every drawing at every rotation once, in random order.

    Yields:
        Images ``(batch_size, 3, 32, 32) float32``, channels last, and classes
        ``(batch_size,) int64``. The last incomplete batch is dropped.
    """
    n = len(drawings)
    order = torch.randperm(n * ROTATIONS, generator=generator)
    for start in range(0, len(order) - recipe.batch_size + 1, recipe.batch_size):
        index = order[start : start + recipe.batch_size]
        rows, rotation = index % n, index // n
        pieces = [
            augmenter(drawings, rows[i : i + recipe.chunk], rotation[i : i + recipe.chunk])
            for i in range(0, len(index), recipe.chunk)
        ]
        images = torch.cat(pieces).contiguous(memory_format=torch.channels_last)
        yield images, drawings.character[rows] * ROTATIONS + rotation


def train(
    drawings: Drawings, validation: Drawings, recipe: Recipe
) -> tuple[GlyphNet, dict[str, float | int]]:
    """Train the network with a linear classifier, which is thrown away.

    Returns:
        The network in evaluation mode, with re-estimated statistics, and the figures of the run.
    """
    torch.manual_seed(recipe.seed)  # initial weights and dropout
    generator = torch.Generator().manual_seed(recipe.seed)  # order and augmentation
    augmenter = Augmenter(generator)
    classes = (int(drawings.character.max()) + 1) * ROTATIONS
    network = GlyphNet().to(memory_format=torch.channels_last)
    classifier = nn.Linear(network.num_features, classes)
    optimizer = torch.optim.SGD(
        [*network.parameters(), *classifier.parameters()],
        lr=recipe.peak_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=True,
    )
    steps = recipe.epochs * (len(drawings) * ROTATIONS // recipe.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: _rate(i / steps, recipe))
    started, loss_of_epoch = time.perf_counter(), math.nan
    for epoch in range(recipe.epochs):
        network.train()
        losses = []
        for x, y in batches(drawings, recipe, augmenter, generator):
            with torch.autocast("cpu", torch.bfloat16, enabled=recipe.precision == "bfloat16"):
                features = network(x)
            loss = F.cross_entropy(classifier(features.float()), y)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        loss_of_epoch, seconds = float(np.mean(losses)), time.perf_counter() - started
        said = f"epoch {epoch + 1:3d}/{recipe.epochs}  loss {loss_of_epoch:.3f}  {seconds:5.0f} s"
        print(said, flush=True)
    reestimate(network, batches(drawings, recipe, augmenter, generator))
    return network, {
        "classes": classes,
        "training_images": len(drawings) * ROTATIONS,
        "steps": steps,
        "training_seconds": round(time.perf_counter() - started),
        "final_training_loss": round(loss_of_epoch, 4),
        "validation_images": len(validation) * ROTATIONS,
        "validation_accuracy": round(validate(network, classifier, validation), 4),
    }


def _rate(progress: float, recipe: Recipe) -> float:
    """Linear warm-up, then half a cosine to zero (Loshchilov and Hutter 2017, eq. 5)."""
    if progress < recipe.warm_up:
        return progress / recipe.warm_up
    return 0.5 * (1 + math.cos(math.pi * (progress - recipe.warm_up) / (1 - recipe.warm_up)))


@torch.no_grad()
def reestimate(network: nn.Module, epoch: Iterator[tuple[Tensor, Tensor]]) -> None:
    """Replace the running statistics by plain averages over one augmented epoch, in float32.

    The exponential averages of training lag behind the weights and were taken in bfloat16 with
    dropout on. Dropout is off here, as it will be in use.
    """
    network.eval()
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative average
        norm.train()
    for x, _ in epoch:
        network(x)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()


@torch.no_grad()
def validate(network: nn.Module, classifier: nn.Module, drawings: Drawings) -> float:
    """Accuracy on plainly rendered drawings of unseen drawers, at all four rotations."""
    augmenter = Augmenter(torch.Generator().manual_seed(0), strength=0.0)
    right = 0
    for rotation in range(ROTATIONS):
        for rows in torch.arange(len(drawings)).split(256):
            turns = torch.full_like(rows, rotation)
            logits = classifier(network(augmenter(drawings, rows, turns)))
            classes = drawings.character[rows] * ROTATIONS + rotation
            right += int((logits.argmax(1) == classes).sum())
    return right / (len(drawings) * ROTATIONS)


def golden_inputs(count: int = 8) -> Tensor:
    """Eight fixed pictures of broken lines, ``(8, 3, 32, 32) uint8``, half of them inverted."""
    generator = np.random.default_rng(2015)
    pictures = []
    for index in range(count):
        image = Image.new("RGB", (105, 105), "white")
        points = [(int(x), int(y)) for x, y in generator.integers(15, 90, size=(5, 2))]
        ImageDraw.Draw(image).line(points, fill="black", width=3 + 2 * (index % 4), joint="curve")
        pixels = np.asarray(image.resize(INPUT_SIZE, Image.Resampling.BILINEAR))
        pictures.append(255 - pixels if index % 2 else pixels)
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()


@torch.no_grad()
def save(network: GlyphNet, figures: dict[str, float | int], recipe: Recipe, out: Path) -> None:
    """Write the weights with their metadata, and the golden inputs and features."""
    network = network.to(memory_format=torch.contiguous_format)
    data = {
        "name": "Omniglot, background sets small 1 and small 2",
        "source": "https://github.com/brendenlake/omniglot",
        "paper": "Lake, Salakhutdinov and Tenenbaum 2015, Science 350(6266), 1332-1338",
        "characters": int(figures["classes"]) // ROTATIONS,
        "rotations": ROTATIONS,
    }
    environment = {"torch": torch.__version__, "python": platform.python_version()}
    facts = {
        "preprocessing": PREPROCESSING,
        "architecture": ARCHITECTURE,
        "data": data,
        "recipe": {**asdict(recipe), "script": "scripts/pretrain_glyphs.py"},
        "figures": figures,
        "environment": environment,
        "licence": LICENCE,
    }
    metadata = {f"headstart.{key}": json.dumps(value) for key, value in facts.items()}
    out.mkdir(parents=True, exist_ok=True)
    save_file(network.state_dict(), out / "glyphs.safetensors", {"format": "pt", **metadata})
    inputs = golden_inputs()
    golden = {"inputs": inputs, "features": network((inputs / 255 - MEAN) / STD)}
    save_file(golden, out / "golden.safetensors")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of the two Omniglot archives")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--epochs", type=int, default=Recipe.epochs)
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--threads", type=int, default=1, help="1 is fastest for so small a net")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    recipe = Recipe(seed=options.seed, epochs=options.epochs)
    drawings, validation = read_omniglot(options.data, recipe.training_drawers)
    network, figures = train(drawings, validation, recipe)
    save(network, figures, recipe, options.out)
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
