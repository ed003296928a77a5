"""Fine-tuning the last block from stored rows, paired in one run with its two rivals.

Three arms take turns, epoch figures being medians over all epochs of all repeats:

* images: ordinary frozen fine-tuning. Every epoch decodes the images and runs the whole network;
* stored: the same recipe on stored rows of the frozen part, beginning with an empty cache;
* suffix: a plain PyTorch loop over the suffix alone, on boundary tensors already in memory.

"whole job" is planning, storing and training, from an empty cache. Weights are random, which costs
the same time as trained ones; the two curves are compared at the end.

Run: ``python benchmarks/finetune.py [DATA] [--backbone resnet18] [--size 224] [--epochs 10]``
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import timm
import torch
from torch import nn

from headstart.backbones import Backbone, load_backbone
from headstart.cut import find_cut
from headstart.data import Dataset, load_data, read_batches, stratified_split
from headstart.jobs import Run, finetune
from headstart.progress import SilentReporter
from headstart.training import Classifier, Recipe, Stage
from headstart.training.optimizers import build_optimizer, set_rates
from headstart.training.targets import resolve

DEFAULT = Path(__file__).resolve().parents[2] / "shared" / "data" / "hymenoptera"


def make_backbone(name: str, size: int) -> Backbone:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = timm.create_model(name, num_classes=0)
    return load_backbone(module, mean=0.5, std=0.25, size=size)


def job(data: Dataset, arguments: argparse.Namespace, recipe: Recipe, stored: str) -> Run:
    with tempfile.TemporaryDirectory() as folder:
        return finetune(
            data,
            make_backbone(arguments.backbone, arguments.size),
            recipe,
            stored=stored,
            baselines=False,
            write=False,
            cache=folder,
            reporter=SilentReporter(),
        )


def suffix_epochs(data: Dataset, arguments: argparse.Namespace, recipe: Recipe) -> list[float]:
    """Time epochs of the suffix alone on tensors in memory, validation included."""
    backbone = make_backbone(arguments.backbone, arguments.size)
    network = Classifier(backbone, len(data.classes))
    (target,) = resolve(network, recipe)
    cut = find_cut(network, backbone.probe(4), target.freeze, measure=False)
    if not cut:
        raise SystemExit(f"nothing to compare: {cut}")
    first, second = stratified_split(
        data.train.labels, recipe.validation, seed=0, groups=data.train.ids
    )
    parts = []
    for index in (first, second):
        split = data.train.take(index)
        rows: list[tuple[torch.Tensor, ...]] = []
        with torch.no_grad():
            network.eval()
            for batch in read_batches(split, None, backbone.preprocessing, batch_size=64):
                pixels = backbone.preprocessing.normalise(batch.pixels)
                rows.append(tuple(t.clone() for t in cut.prefix(pixels)))
        tensors = tuple(torch.cat(column) for column in zip(*rows, strict=True))
        parts.append((tensors, torch.from_numpy(split.labels)))
    stage = recipe.stages[0]
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name in target.freeze.trainable)
    optimizer = build_optimizer(network, stage, target.rates)
    set_rates(optimizer, 1.0)
    times = []
    for epoch in range(stage.epochs):
        begun = time.perf_counter()
        # Running statistics, as the recipe says: evaluation mode is that, without dropout.
        (tensors, labels), held = parts
        order = torch.from_numpy(np.random.default_rng(epoch).permutation(len(labels)))
        for index in order.split(stage.batch_size):
            logits = cut.suffix(*(tensor.index_select(0, index) for tensor in tensors))
            loss = nn.functional.cross_entropy(logits, labels[index])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            for index in torch.arange(len(held[1])).split(2 * stage.batch_size):
                cut.suffix(*(tensor.index_select(0, index) for tensor in held[0]))
        times.append(time.perf_counter() - begun)
    return times


def epochs_of(run: Run) -> list[float]:
    return [float(e["seconds"]) for e in run.training["epochs"] if e["epoch"]]


def whole(run: Run) -> float:
    return float(run.seconds["plan"] + run.seconds["train"])


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):8.3f} s   ({min(values):.3f} to {max(values):.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="?", default=str(DEFAULT))
    parser.add_argument("--backbone", default="resnet18", help="a timm architecture")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    data = load_data(arguments.data, seed=0)
    stage = Stage("last block", ("last:1",), epochs=arguments.epochs, batch_size=32, lr=1e-4)
    recipe = Recipe("last-block", (stage,))
    print(
        f"{arguments.backbone} at {arguments.size} px, {len(data.train):,} training items,"
        f" {arguments.epochs} epochs, {arguments.repeats} repeats,"
        f" {torch.get_num_threads()} threads"
    )
    epochs: dict[str, list[float]] = {"images": [], "stored": [], "suffix": []}
    jobs: dict[str, list[float]] = {"images": [], "stored": []}
    ratios: dict[str, list[float]] = {"to suffix": [], "to images": [], "job": []}
    runs: dict[str, Run] = {}
    for repeat in range(arguments.repeats):
        one: dict[str, list[float]] = {}
        for arm in ("images", "stored", "suffix") if repeat % 2 else ("suffix", "stored", "images"):
            if arm == "suffix":
                one[arm] = suffix_epochs(data, arguments, recipe)
            else:
                runs[arm] = job(data, arguments, recipe, "off" if arm == "images" else "on")
                one[arm] = epochs_of(runs[arm])
                jobs[arm].append(whole(runs[arm]))
            epochs[arm] += one[arm]
        median = {arm: statistics.median(values) for arm, values in one.items()}
        ratios["to suffix"].append(median["stored"] / median["suffix"])
        ratios["to images"].append(median["images"] / median["stored"])
        ratios["job"].append(jobs["images"][-1] / jobs["stored"][-1])
    for arm, values in epochs.items():
        print(f"epoch, {arm:<8} {spread(values)}")
    for arm, values in jobs.items():
        print(f"whole job, {arm:<8} {spread(values)}")
    for name, values, bar in (
        ("epoch from stored rows / suffix alone", ratios["to suffix"], "at most 1.2"),
        ("epoch from images / from stored rows", ratios["to images"], "at least 4"),
        ("whole job from images / from stored rows", ratios["job"], "at least 2.5"),
    ):
        low, high = min(values), max(values)
        middle = statistics.median(values)
        print(f"{name:<42} {middle:6.2f}   ({low:.2f} to {high:.2f}; the bar is {bar})")
    losses = [[e["train_loss"] or 0.0 for e in run.training["epochs"]] for run in runs.values()]
    far = max(abs(a - b) for a, b in zip(*losses, strict=True))
    print(f"largest difference of a training loss between the two curves: {far:.2g}")


if __name__ == "__main__":
    main()
