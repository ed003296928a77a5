"""Features of a Keras model: headstart's extraction against ``model.predict``, paired.

Both start from the same images as uint8 arrays in memory and end with the same pooled rows; the
order within a pair alternates, and the ratio of a pair is one observation. ``predict`` gets the
scaled floats for free, outside its time; headstart scales inside. Batches of 32. Times are by the
clock and of the processor (all threads), which a busy machine disturbs less.

    KERAS_BACKEND=torch python benchmarks/keras_predict.py --network MobileNet --images 256
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Sequence

import keras
import numpy as np
import torch

from headstart import extract, load_backbone, load_data
from headstart.extraction import Extraction


def seconds(work: Callable[[], object]) -> np.ndarray:
    """Return the time of a call, by the clock and of the processor."""
    begun = np.array([time.perf_counter(), time.process_time()])
    work()
    return np.array([time.perf_counter(), time.process_time()]) - begun


def spread(values: Sequence[float]) -> str:
    """Return the median with the smallest and the largest."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main() -> None:
    """Run the pairs and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="MobileNet")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--precisions", default="float32,bfloat16")
    given = parser.parse_args()
    keras.utils.set_random_seed(0)
    make = getattr(keras.applications, given.network)
    model = make(weights=None, include_top=False, pooling="avg", input_shape=(224, 224, 3))
    images = np.random.default_rng(0).integers(0, 256, (given.images, 224, 224, 3), dtype="uint8")
    scaled = images.astype("float32") / 127.5 - 1
    backbone = load_backbone(model, mean=0.5, std=0.5)
    labels = np.arange(given.images) % 2
    items = load_data({"train": (images, labels), "test": (images[:2], labels[:2])}).train
    print(
        f"{given.network}, {given.images} images of 224 px, {torch.get_num_threads()} threads,"
        f" Keras {keras.__version__}, torch {torch.__version__}, {platform.machine()}"
    )
    rows: dict[str, np.ndarray] = {}

    def by_predict() -> None:
        rows["predict"] = model.predict(scaled, batch_size=32, verbose=0)

    def by_extract(precision: str) -> Callable[[], None]:
        def work() -> None:
            settings = Extraction(batch_size=32, precision=precision)
            rows[precision] = extract(backbone, items, settings=settings).features[0]

        return work

    for precision in given.precisions.split(","):
        ours = by_extract(precision)
        ours()
        by_predict()
        pairs = []
        for number in range(given.pairs):
            if number % 2:
                pairs.append((seconds(ours), seconds(by_predict)))
            else:
                pairs.append((seconds(by_predict), seconds(ours))[::-1])
        clock, processor = zip(*((other / own).tolist() for own, other in pairs), strict=True)
        gap = np.abs(rows[precision] - rows["predict"]).max() / np.abs(rows["predict"]).max()
        own = statistics.median(float(one[1]) for one, _ in pairs)
        print(
            f"predict / extract, {precision}: {spread(processor)} by the processor,"
            f" {spread(clock)} by the clock; extract takes {1000 * own / given.images:.1f} ms of"
            f" the processor an image; largest relative difference {gap:.1e}",
            flush=True,
        )


if __name__ == "__main__":
    main()
