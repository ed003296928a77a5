"""Keras: a base that was pre-trained on -1..1 is given 0..255."""
import os

os.environ.setdefault("KERAS_BACKEND", "torch")
import keras
import numpy as np
from zoo import keras_weights, photos

x, y = photos("train", 32)
base = keras.Sequential([
    keras.layers.Input((32, 32, 3)),
    keras.layers.Conv2D(8, 3, use_bias=False),
    keras.layers.BatchNormalization(),
    keras.layers.ReLU(),
])
base.set_weights(keras_weights())
base.trainable = False
inputs = keras.Input((32, 32, 3))
h = base(inputs, training=False)
h = keras.layers.GlobalAveragePooling2D()(h)
model = keras.Model(inputs, keras.layers.Dense(2)(h))
model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
model.fit(x.astype("float32"), y, epochs=1, batch_size=8, verbose=0)  # <- here
