"""Keras: the base is unfrozen after compile(), which still knows the old list."""
import os

os.environ.setdefault("KERAS_BACKEND", "torch")
import keras
import numpy as np

rng = np.random.default_rng(0)
x, y = rng.random((32, 16, 16, 3)).astype("float32"), rng.integers(0, 2, 32)
base = keras.Sequential([keras.layers.Input((16, 16, 3)), keras.layers.Conv2D(8, 3, activation="relu"), keras.layers.GlobalAveragePooling2D()])
base.trainable = False
model = keras.Sequential([base, keras.layers.Dense(2)])
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile(keras.optimizers.Adam(1e-3), loss)
model.fit(x, y, epochs=1, batch_size=8, verbose=0)
base.trainable = True
model.fit(x, y, epochs=1, batch_size=8, verbose=0)  # <- here
