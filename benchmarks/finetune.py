"""Fine-tuning: what stored rows save, what recipes reach, what few augmented views cost.

``speed``: the last block of a network from stored rows, paired in one run with its two rivals.
Three arms take turns, epoch figures being medians over all epochs:

* images: ordinary frozen fine-tuning. Every epoch decodes the images and runs the whole network;
* stored: the same recipe on stored rows of the frozen part, beginning with an empty cache;
* suffix: a plain PyTorch loop over the suffix alone, on boundary tensors already in memory.

"whole job" is planning, storing and training, from an empty cache. Weights are random, which costs
the same time as trained ones; the two curves are compared at the end.

``recipes``: CIFAR-10 with the ImageNet MobileNet: feature extraction and fine-tuning, each with SGD
and Adam; full fine-tuning from a random head, and LP-FT with all its epochs and with a third of
them: best validation accuracy, test accuracy, time, and the curves of all (``--out DIR``).

``views``: the same data, last block, K numbered views of every image. As many views as epochs is
ordinary augmentation: no image is seen twice.

Run: ``python benchmarks/finetune.py speed|recipes|views [--help]``
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import timm
import torch
from torch import nn

from headstart.backbones import Backbone, load_backbone
from headstart.commands.finetune.job import finetune
from headstart.commands.run import Run
from headstart.core.division import stratified_split
from headstart.core.progress import SilentReporter
from headstart.core.records import Curve
from headstart.data import Dataset, load_data, read_batches
from headstart.finetuning import Classifier, Recipe, Stage, load_recipe
from headstart.finetuning.state import build_optimizer, set_rates
from headstart.finetuning.targets import resolve
from headstart.prefix import find_cut
from headstart.report.figures import curves_figure, save_png

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


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
        data.train.labels, recipe.validation, seed=0, keys=data.train.ids
    )
    parts = []
    for index in (first, second):
        split = data.train.take(index)
        rows: list[tuple[torch.Tensor, ...]] = []
        with torch.no_grad():
            network.eval()
            for batch in read_batches(split, None, backbone.inputs, batch_size=64):
                inputs = batch.arguments(backbone.device)
                rows.append(tuple(t.clone() for t in inputs.call(cut.prefix)))
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
    """Return the time of probe, plan and training; reading the data and the test are left out."""
    return float(run.seconds.get("start", 0.0) + run.seconds["plan"] + run.seconds["train"])


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):8.3f} s   ({min(values):.3f} to {max(values):.3f})"


def speed(arguments: argparse.Namespace) -> None:
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


def mobilenet(size: int) -> Backbone:
    return load_backbone(
        "timm/mobilenetv1_100",
        weights=SHARED / "weights" / "mobilenetv1_imagenet.safetensors",
        model_args={"pad_type": "same", "bn_eps": 1e-3},
        layer="blocks.4.0",
        mean=0.5,
        std=0.5,
        size=size,
    )


def cifar(train: int, test: int) -> Dataset:
    """The first rows of CIFAR-10, which lie shuffled in its files."""
    whole = load_data(SHARED / "cifar10", seed=0)
    splits = {
        "train": whole.train.take(np.arange(min(train, len(whole.train)))),
        "test": whole.test.take(np.arange(min(test, len(whole.test)))),
    }
    return dataclasses.replace(whole, splits=splits)


def report(name: str, run: Run) -> None:
    interval = run.evaluation.accuracy.interval
    assert interval is not None
    best = run.training["best"]["validation_accuracy"]
    print(
        f"{name:<16} best validation {100 * best:5.1f} %   test {100 * run.accuracy:5.1f} %"
        f" ({100 * interval.low:.1f} to {100 * interval.high:.1f})"
        f"   {whole(run):7.1f} s, epoch {statistics.median(epochs_of(run)):6.2f} s",
        flush=True,
    )


def heading(arguments: argparse.Namespace, data: Dataset) -> str:
    return (
        f"CIFAR-10, {len(data.train):,} training and {len(data.test):,} test items at"
        f" {arguments.size} px, {arguments.epochs} epochs, MobileNet of ImageNet,"
        f" {torch.get_num_threads()} threads"
    )


def trained(
    arguments: argparse.Namespace, data: Dataset, recipe: Recipe, cache: str, seed: int = 0
) -> Run:
    return finetune(
        data,
        mobilenet(arguments.size),
        recipe,
        baselines=False,
        write=False,
        cache=cache,
        seed=seed,
        reporter=SilentReporter(),
    )


def curves_of(name: str, run: Run) -> list[Curve]:
    """Return loss and accuracy by epoch, of the training and of the validation part."""
    epochs = [epoch for epoch in run.training["epochs"] if epoch["epoch"]]
    x = tuple(float(epoch["epoch"]) for epoch in epochs)
    return [
        Curve(name, x, tuple(float(epoch[f"{part}_{figure}"]) for epoch in epochs), "epoch", label)
        for figure in ("loss", "accuracy")
        for part, label in (("train", f"training {figure}"), ("validation", f"validation {figure}"))
    ]


def recipe_table(arguments: argparse.Namespace) -> None:
    names = ("sgd-step-head", "adam-step-head", "sgd-step", "adam-step", "full", "lp-ft")
    recipes = {
        name: load_recipe(name).with_changes(epochs=arguments.epochs)
        for name in arguments.only or names
    }
    if "lp-ft" in recipes:
        short = max(1, arguments.epochs // 3)
        recipes[f"lp-ft, {short} epochs"] = recipes["lp-ft"].with_changes(epochs=short)
    data = cifar(arguments.train, arguments.test)
    print(heading(arguments, data), flush=True)
    curves: list[Curve] = []
    for name, recipe in recipes.items():
        with tempfile.TemporaryDirectory() as folder:
            run = trained(arguments, data, recipe, folder)
        report(name, run)
        curves += curves_of(name, run)
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        path = save_png(curves_figure(curves), arguments.out / "recipes.png")
        print(f"curves: {path}")


def view_table(arguments: argparse.Namespace) -> None:
    """Accuracy with K numbered views, over several seeds; the views of a seed are stored once."""
    # Enough has to train for augmentation to matter: of the last block alone, the probe is best.
    stage = Stage("last blocks", ("last:4",), epochs=arguments.epochs, lr=3e-4, warmup=0.5)
    data = cifar(arguments.train, arguments.test)
    print(heading(arguments, data), flush=True)
    counts = sorted({0, 1, 2, 4, 8, arguments.epochs})
    found: dict[int, list[float]] = {count: [] for count in counts}
    for seed in range(arguments.seeds):
        with tempfile.TemporaryDirectory() as folder:
            for count in counts:
                recipe = Recipe("views", (dataclasses.replace(stage, views=count),), "probe")
                run = trained(arguments, data, recipe, folder, seed)
                found[count].append(100 * run.accuracy)
                report(f"{count} views, seed {seed}", run)
    for count, values in found.items():
        print(
            f"{count:>3} views: test {statistics.mean(values):.1f} %"
            f" ({min(values):.1f} to {max(values):.1f})"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    fast = commands.add_parser("speed")
    fast.add_argument("data", nargs="?", default=str(SHARED / "hymenoptera"))
    fast.add_argument("--backbone", default="resnet18", help="a timm architecture")
    fast.add_argument("--size", type=int, default=224)
    fast.add_argument("--epochs", type=int, default=10)
    fast.add_argument("--repeats", type=int, default=3)
    fast.set_defaults(run=speed)
    for name, run in (("recipes", recipe_table), ("views", view_table)):
        command = commands.add_parser(name)
        command.add_argument("--train", type=int, default=6000)
        command.add_argument("--test", type=int, default=3000)
        command.add_argument("--size", type=int, default=96)
        command.add_argument("--epochs", type=int, default=10)
        command.set_defaults(run=run)
    command = commands.choices["recipes"]
    command.add_argument("--only", nargs="+", metavar="RECIPE", help="default: all")
    command.add_argument("--out", type=Path, help="a folder for the figure of the curves")
    commands.choices["views"].add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
