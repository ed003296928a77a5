"""Keras: only some layers are set untrainable, and the batch norms are not among them."""
import os

os.environ.setdefault("KERAS_BACKEND", "torch")
import keras
import numpy as np

rng = np.random.default_rng(0)
x, y = rng.random((32, 16, 16, 3)).astype("float32"), rng.integers(0, 2, 32)
base = keras.Sequential([
    keras.layers.Input((16, 16, 3)),
    keras.layers.Conv2D(8, 3),
    keras.layers.BatchNormalization(scale=False, center=False),
    keras.layers.ReLU(),
    keras.layers.GlobalAveragePooling2D(),
])
for layer in base.layers:
    layer.trainable = False
model = keras.Sequential([base, keras.layers.Dense(2)])
model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
model.fit(x, y, epochs=1, batch_size=8, verbose=0)
