"""Transfer learning in Keras, with a base that really stays in inference mode.

The workflow of Keras's own guide: augmentation in training only, rescaling, a frozen base in
inference mode, pooling, dropout, one ``Dense`` unit; then unfreezing from the top with batch norm
still in inference mode. headstart adds two lines to each stage: one that freezes and one that
proves it.

    KERAS_BACKEND=torch python examples/keras_transfer_learning.py FOLDER BASE.keras

FOLDER holds ``train`` and ``val`` with a folder for each of two classes. BASE.keras is a
convolutional base without its classifier that takes pixels scaled to -1..1.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

import headstart


class Photos(keras.utils.PyDataset):
    """Batches of photographs, from a data frame with the columns ``file`` and ``label``."""

    def __init__(self, frame: pd.DataFrame, size: int, batch: int = 32, seed: int | None = None):
        super().__init__()
        self.frame, self.size, self.batch = frame, size, batch
        self.order = np.arange(len(frame))
        self.rng = None if seed is None else np.random.default_rng(seed)
        self.on_epoch_end()

    def __len__(self) -> int:
        return -(-len(self.frame) // self.batch)

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        rows = self.frame.iloc[self.order[number * self.batch : (number + 1) * self.batch]]
        side = (self.size, self.size)
        images = [
            keras.utils.img_to_array(
                keras.utils.load_img(
                    file, target_size=side, interpolation="bilinear", keep_aspect_ratio=True
                )
            )
            for file in rows["file"]
        ]
        return np.stack(images), rows["label"].to_numpy("float32")[:, None]

    def on_epoch_end(self) -> None:
        """Shuffle the training items."""
        if self.rng is not None:
            self.rng.shuffle(self.order)


def frame_of(folder: Path) -> pd.DataFrame:
    """List a folder with one folder per class, as a data frame."""
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir())
    rows = [
        (str(file), number)
        for number, name in enumerate(classes)
        for file in sorted((folder / name).iterdir())
    ]
    return pd.DataFrame(rows, columns=["file", "label"])


def build(base: Any, size: int) -> Any:
    """Put augmentation, rescaling, pooling, dropout and a head around a base.

    Augmentation layers are active in training only.
    """
    side = base.input_shape[1]
    inputs = keras.Input((size, size, 3))
    x = keras.layers.RandomFlip("horizontal", seed=0)(inputs)
    x = keras.layers.CenterCrop(side, side)(x)
    x = keras.layers.Rescaling(scale=1 / 127.5, offset=-1)(x)
    x = base(x, training=False)
    x = keras.layers.GlobalAveragePooling2D()(x)
    # Features of one scale: without this the head needs several times as many epochs.
    x = keras.layers.BatchNormalization(center=False, scale=False, momentum=0.9)(x)
    x = keras.layers.Dropout(0.2)(x)
    return keras.Model(inputs, keras.layers.Dense(1, name="head")(x))


def train(model: Any, data: Photos, epochs: int, rate: float) -> None:
    """Compile, which a change of what trains asks for, and fit."""
    model.compile(
        keras.optimizers.Adam(rate),
        keras.losses.BinaryCrossentropy(from_logits=True),
        metrics=[keras.metrics.BinaryAccuracy(threshold=0.0)],
    )
    model.fit(data, epochs=epochs, verbose=2)


def accuracy(model: Any, data: Photos) -> float:
    """Return the share of items on the right side of zero."""
    scores = np.concatenate([model.predict_on_batch(data[i][0]) for i in range(len(data))])
    return float(((scores[:, 0] > 0) == data.frame["label"].to_numpy()).mean())


def run(
    base: Any,
    training: pd.DataFrame,
    test: pd.DataFrame,
    size: int = 256,
    *,
    epochs: int = 10,
    thaw: Sequence[str] = (),
) -> tuple[Any, list[float]]:
    """Train the head on the frozen base, then thaw the named layers, one stage each.

    Returns:
        The model, and the accuracy on ``test`` after every stage.
    """
    model = build(base, size)  # images of `size` pixels, cropped to what the base takes
    data, held_out = Photos(training, size, seed=0), Photos(test, size)

    frozen = headstart.freeze(model, {base: "frozen"})
    print(frozen.plan)
    train(model, data, epochs, rate=3e-3)
    print(frozen.verify())  # weights and statistics of the base, bit by bit
    found = [accuracy(model, held_out)]

    for number in range(len(thaw)):
        # Batch norm stays in inference mode in the layers that train, in spite of `fit`.
        layers = dict.fromkeys(
            (f"{base.name}.{name}" for name in thaw[: number + 1]), "trainable-fixed-norm"
        )
        frozen = headstart.freeze(model, {base: "frozen", **layers})
        train(model, data, epochs=1, rate=1e-5)
        print(frozen.verify())
        found.append(accuracy(model, held_out))
    frozen.release()
    return model, found


def main() -> None:
    """Run the workflow from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("base", type=Path)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--thaw", nargs="*", default=[], help="layers, the last first")
    given = parser.parse_args()
    keras.utils.set_random_seed(0)
    base = keras.saving.load_model(given.base, compile=False)
    frames = frame_of(given.folder / "train"), frame_of(given.folder / "val")
    _, found = run(base, *frames, given.size, thaw=given.thaw)
    print("accuracy after each stage:", ", ".join(f"{value:.1%}" for value in found))


if __name__ == "__main__":
    main()
