"""Keras: augmentation layers are called with training=True, and so they run in predict, too."""
import os

os.environ.setdefault("KERAS_BACKEND", "torch")
import keras
import numpy as np

rng = np.random.default_rng(0)
x, y = rng.random((32, 16, 16, 3)).astype("float32"), rng.integers(0, 2, 32)


class Augment(keras.layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.noise = keras.layers.GaussianNoise(0.2)
        self.drop = keras.layers.SpatialDropout2D(0.2)

    def call(self, x, training=None):
        return self.drop(self.noise(x, training=True), training=True)


model = keras.Sequential([
    keras.layers.Input((16, 16, 3)),
    Augment(),
    keras.layers.Conv2D(8, 3, activation="relu"),
    keras.layers.GlobalAveragePooling2D(),
    keras.layers.Dense(2),
])
model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
model.fit(x, y, epochs=1, batch_size=8, verbose=0)
print(model.predict(x, verbose=0).argmax(1))  # <- here
