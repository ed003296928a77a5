"""Keras: base(x, training=False) in a functional model, then everything is unfrozen."""
import os

os.environ.setdefault("KERAS_BACKEND", "torch")
import keras
import numpy as np

rng = np.random.default_rng(0)
x, y = rng.random((32, 16, 16, 3)).astype("float32"), rng.integers(0, 2, 32)

base = keras.Sequential([
    keras.layers.Input((16, 16, 3)),
    keras.layers.Conv2D(8, 3),
    keras.layers.BatchNormalization(),
    keras.layers.ReLU(),
])
inputs = keras.Input((16, 16, 3))
h = base(inputs, training=False)  # keep batch norm in inference mode
h = keras.layers.GlobalAveragePooling2D()(h)
model = keras.Model(inputs, keras.layers.Dense(2)(h))
base.trainable = True
model.compile(keras.optimizers.Adam(1e-5), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
model.fit(x, y, epochs=1, batch_size=8, verbose=0)  # <- here
