"""Figures that a transferred backbone has to beat, on the same test items."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from headstart.core.division import few_per_class
from headstart.core.progress import Reporter
from headstart.core.records import Baseline
from headstart.data import Preprocessing, Split, read_batches
from headstart.evaluation import accuracy_score
from headstart.heads import choose_linear

SMALL_SIDE = 64
"""Images up to this many pixels a side get the raw-pixel baseline."""

PIXEL_SIDE = 32
PIXEL_ROWS = 5_000
"""The raw-pixel baseline is there for orientation: 5,000 training images at 32 px are enough."""


def majority_baseline(train: NDArray[np.int64], test: Split) -> Baseline:
    """Return the accuracy of always answering the most frequent training class."""
    most = int(np.bincount(train).argmax())
    predicted = np.full(len(test), most, dtype=np.int64)
    return Baseline(
        "majority class",
        f"always '{test.classes[most]}', the most frequent class of the training split",
        accuracy_score(test.labels, predicted),
    )


def pixel_baseline(train: Split, test: Split, *, seed: int, reporter: Reporter) -> Baseline | None:
    """Return the accuracy of logistic regression on raw pixels; None where images are large.

    Images of up to 64 pixels a side are taken at 32×32 or, if smaller, at their own size. At most
    5,000 training images are used, drawn with ``seed``, class by class.
    """
    side = _common_side(test)
    if side is None or len(np.unique(train.labels)) < 2:
        return None
    rows = np.arange(len(train))
    if len(train) > PIXEL_ROWS:
        each = max(1, PIXEL_ROWS // len(np.unique(train.labels)))
        rows = few_per_class(train.labels, each, seed=(seed, 1))
    small = Preprocessing(
        size=(side, side),
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        resize="squash",
        interpolation="bilinear",
    )
    x_train = _pixels(train.take(rows), small, reporter)
    x_test = _pixels(test, small, reporter)
    choice = choose_linear(
        x_train,
        train.labels[rows],
        len(train.classes),
        seed=seed,
        folds=3,
        grid=(1e-4, 1e-3, 1e-2, 1e-1, 1.0),
    )
    used = f"{len(rows):,} training images" if len(rows) < len(train) else "all training images"
    return Baseline(
        "raw pixels",
        f"logistic regression on {side}×{side} pixels, {used}",
        accuracy_score(test.labels, choice.head.predict(x_test)),
    )


def _common_side(split: Split) -> int | None:
    """Return the side for the pixel baseline, or None if a look at 16 images finds large ones."""
    places = np.linspace(0, len(split) - 1, num=min(16, len(split)), dtype=np.int64)
    largest = max(max(split.image(int(i)).size) for i in places)
    return None if largest > SMALL_SIDE else min(largest, PIXEL_SIDE)


def _pixels(split: Split, small: Preprocessing, reporter: Reporter) -> NDArray[np.float32]:
    height, width = small.size
    pixels = np.empty((len(split), height * width * 3), dtype=np.float32)
    with reporter.task("read pixels for the baseline", len(split), "images") as task:
        for batch in read_batches(split, None, small, batch_size=256):
            values = batch.pixels.reshape(len(batch), -1).numpy()
            pixels[batch.indices] = values.astype(np.float32) / 255.0
            task.advance(len(batch))
    return pixels
