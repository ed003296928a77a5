"""Features of ``headstart/glyphs`` against raw pixels on scikit-learn's digits, few-shot.

    python benchmarks/glyphs_on_digits.py

Every repetition trains on 10 images a class and tests on all others; the training sets of
different repetitions are disjoint. Each contender is a logistic regression whose regularisation,
and whether to standardise, are chosen by 5-fold cross-validation inside the training set. The
features are taken four ways, which differ only in where batch normalisation takes its statistics:

- running statistics: what ``eval()`` does, and what headstart does unless told otherwise;
- batch statistics, images in random order: ``train()`` without its dropout;
- batch statistics, test images in class order: a folder read class by class;
- ``train()`` as it is: batch statistics, random order, dropout on.

The interval is Student's t over the paired differences to raw pixels.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file
from scipy import stats
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from headstart.backbones.glyphs import glyphs_metadata, load_glyphs
from headstart.data.preprocessing import Preprocessing

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]
BATCH = 32
GRID = {
    "scale": [StandardScaler(), "passthrough"],
    "classify__C": [0.001, 0.01, 0.1, 1.0, 10.0],
}


def inputs(images: NDArray[np.float64]) -> Tensor:
    """Digits ``(n, 8, 8)``, ink 0..16, as preprocessed inputs ``(n, 3, 32, 32) float32``."""
    preprocessing = Preprocessing(**glyphs_metadata()["preprocessing"])
    greys = np.round(images * (255 / 16)).astype(np.uint8)
    pixels = [preprocessing.geometry(Image.fromarray(grey).convert("RGB")) for grey in greys]
    return preprocessing.normalise(torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2))


@torch.no_grad()
def features(
    network: nn.Module, x: Tensor, order: Integers, *, batch_norm: bool, dropout: bool
) -> Floats:
    """Features ``(n, d) float32``, computed in batches of 32 in the given order.

    Args:
        network: the backbone; its mode is set and its running statistics stay as they are.
        x: ``(n, 3, 32, 32) float32``.
        order: a permutation of the rows; the result is in the order of ``x`` all the same.
        batch_norm: take the statistics of each batch instead of the running ones.
        dropout: leave dropout on.
    """
    network.eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train(batch_norm)
            module.momentum = 0.0  # batch statistics normalise; the running ones do not move
        elif isinstance(module, nn.Dropout):
            module.train(dropout)
    result: Floats | None = None
    for rows in np.array_split(order, -(-len(order) // BATCH)):
        values = network(x[torch.from_numpy(rows)]).numpy()
        if result is None:
            result = np.empty((len(x), values.shape[1]), np.float32)
        result[rows] = values
    assert result is not None
    return result


def disjoint_training_sets(
    labels: Integers, per_class: int, repetitions: int, seed: int
) -> Iterator[Integers]:
    """Yield ``repetitions`` disjoint sets of rows with ``per_class`` rows of every class."""
    generator = np.random.default_rng(seed)
    order = {int(c): generator.permutation(np.flatnonzero(labels == c)) for c in np.unique(labels)}
    most = min(len(rows) for rows in order.values()) // per_class
    if repetitions > most:
        raise SystemExit(f"only {most} disjoint training sets of {per_class} a class exist")
    for i in range(repetitions):
        yield np.concatenate([rows[i * per_class : (i + 1) * per_class] for rows in order.values()])


def probe(train: Floats, train_labels: Integers, test: Floats, test_labels: Integers) -> float:
    """Accuracy of a logistic regression whose settings are chosen inside the training set."""
    pipeline = Pipeline([("scale", "passthrough"), ("classify", LogisticRegression(max_iter=300))])
    search = GridSearchCV(pipeline, GRID, cv=5)
    with warnings.catch_warnings():
        # The least regularised candidates need not converge; they are compared as they are.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return float(search.fit(train, train_labels).score(test, test_labels))


def contenders(
    network: nn.Module, images: NDArray[np.float64], labels: Integers, seed: int
) -> dict[str, tuple[Floats, Floats]]:
    """Name → (rows to train on, rows to test on), each ``(n, d) float32`` over all images."""
    x = inputs(images)
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    by_class = np.argsort(labels, kind="stable")
    pixels = (images / 16).reshape(len(images), -1).astype(np.float32)
    running = features(network, x, shuffled, batch_norm=False, dropout=False)
    batch = features(network, x, shuffled, batch_norm=True, dropout=False)
    ordered = features(network, x, by_class, batch_norm=True, dropout=False)
    torch.manual_seed(seed)
    train_mode = features(network, x, shuffled, batch_norm=True, dropout=True)
    return {
        "raw pixels": (pixels, pixels),
        "running statistics (eval)": (running, running),
        "batch statistics, shuffled": (batch, batch),
        "batch statistics, test in class order": (batch, ordered),
        "train() as it is, shuffled": (train_mode, train_mode),
    }


def interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """95 % t-interval of the mean."""
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)


def run(
    network: nn.Module, *, skip: int, per_class: int, repetitions: int, seed: int
) -> dict[str, NDArray[np.float64]]:
    """Accuracies in percent, one a repetition, by contender."""
    digits = load_digits()
    images, labels = digits.images[skip:], digits.target[skip:].astype(np.int64)
    rows = contenders(network, images, labels, seed)
    accuracies: dict[str, list[float]] = {name: [] for name in rows}
    for train in disjoint_training_sets(labels, per_class, repetitions, seed):
        test = np.setdiff1d(np.arange(len(labels)), train)
        for name, (fit_on, test_on) in rows.items():
            score = probe(fit_on[train], labels[train], test_on[test], labels[test])
            accuracies[name].append(100 * score)
    return {name: np.array(values) for name, values in accuracies.items()}


def show(accuracies: dict[str, NDArray[np.float64]], say: Callable[[str], None] = print) -> None:
    """Print the table: mean accuracy, and the paired difference to raw pixels."""
    base = accuracies["raw pixels"]
    say(f"{'inputs of the classifier':40s} {'accuracy':>8s}   difference to raw pixels, 95 %")
    for name, values in accuracies.items():
        line = f"{name:40s} {values.mean():8.2f}"
        if name != "raw pixels":
            low, high = interval(values - base)
            line += f"   {(values - base).mean():+6.2f}  [{low:+.2f}, {high:+.2f}]"
        say(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--per-class", type=int, default=10, help="training images of each class")
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--skip", type=int, default=0, help="leave out the first images")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--weights", type=Path, help="other weights of the same network")
    options = parser.parse_args()
    network = load_glyphs()
    if options.weights:
        network.load_state_dict(load_file(options.weights))
    accuracies = run(
        network,
        skip=options.skip,
        per_class=options.per_class,
        repetitions=options.repetitions,
        seed=options.seed,
    )
    print(f"{options.repetitions} repetitions, {options.per_class} training images a class")
    show(accuracies)


if __name__ == "__main__":
    main()
