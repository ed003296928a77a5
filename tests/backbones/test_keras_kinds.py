"""Kinds of Keras models that nobody planned for: every cut, the head attached, and what is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import headstart
from headstart import HeadstartError, load_backbone
from headstart.core.errors import BackboneError
from headstart.core.progress import SilentReporter
from headstart.modules.keras_layers import graph_of, output_in
from tests.backbones.test_keras import squares
from tests.keras_models import Subclassed, keras, settled

layers = keras.layers
INPUTS = {"size": 16, "mean": 0.5, "std": 0.5}


def augmented() -> Any:
    """Augmentation and rescaling inside, an operation that is no layer, a sum of two paths."""
    inputs = keras.Input((16, 16, 3))
    x = layers.RandomZoom(0.1, name="zoom")(layers.RandomFlip(name="flip")(inputs))
    x = layers.Rescaling(1 / 255, name="scale")(x)
    x = layers.Conv2D(8, 3, name="conv")(x)
    x = layers.BatchNormalization(name="norm")(x)
    y = layers.SeparableConv2D(8, 3, padding="same", name="separable")(keras.ops.silu(x))
    x = layers.SpatialDropout2D(0.2, name="drop")(layers.Concatenate(name="both")([x, y]))
    return keras.Model(inputs, layers.GlobalMaxPooling2D(name="pool")(x))


def two_deep() -> Any:
    """A model in a model in a model, one of them with a dot in its name."""
    a, b, inputs = (
        keras.Input((None, None, 3)),
        keras.Input((None, None, 3)),
        keras.Input((16, 16, 3)),
    )
    x = layers.BatchNormalization(name="norm")(layers.Conv2D(5, 3, name="conv")(a))
    inner = keras.Model(a, x, name="inner.1")
    middle = keras.Model(b, layers.ReLU(name="relu")(inner(b)), name="middle")
    x = layers.GlobalAveragePooling2D(name="pool")(middle(inputs, training=False))
    return keras.Model(inputs, layers.Dense(3, name="dense")(x))


def mixed() -> Any:
    """Layers that compute in bfloat16 on weights in float32."""
    half: dict[str, Any] = {"dtype": "mixed_bfloat16"}
    inputs = keras.Input((16, 16, 3))
    x = layers.Conv2D(8, 3, name="conv", **half)(inputs)
    x = layers.BatchNormalization(name="norm", **half)(x)
    x = layers.GlobalAveragePooling2D(name="pool", **half)(x)
    return keras.Model(inputs, layers.Dense(4, name="dense", dtype="float32")(x))


def normed() -> Any:
    """Every norm that is no batch norm."""
    inputs = keras.Input((16, 16, 3))
    x = layers.SpectralNormalization(layers.Conv2D(6, 3, name="conv"), name="spectral")(inputs)
    x = layers.GroupNormalization(2, name="group")(x)
    x = layers.UnitNormalization(name="unit")(layers.LayerNormalization(name="layer")(x))
    x = layers.Flatten(name="flat")(layers.PReLU(name="prelu")(x))
    return keras.Model(inputs, layers.Dense(3, name="dense")(x))


def recurrent() -> Any:
    """Rows of images as a sequence."""
    inputs = keras.Input((16, 16, 3))
    x = layers.Reshape((16, 48), name="rows")(inputs)
    x = layers.Bidirectional(layers.LSTM(5, return_sequences=True), name="both")(x)
    return keras.Model(inputs, layers.GRU(4, name="last")(x))


def over_time() -> Any:
    """A layer applied to slices of its input."""
    inputs = keras.Input((16, 16, 3))
    x = layers.Reshape((4, 4, 16, 3), name="slices")(inputs)
    x = layers.TimeDistributed(layers.Conv2D(4, 3, name="conv"), name="times")(x)
    return keras.Model(inputs, layers.GlobalAveragePooling3D(name="pool")(x))


KINDS = {f.__name__: f for f in (augmented, two_deep, mixed, normed, recurrent, over_time)}
every = pytest.mark.parametrize("kind", KINDS)


def given(kind: str) -> dict[str, Any]:
    return {"size": 16} if kind == "augmented" else INPUTS


@every
def test_every_cut_has_features_or_one_line(kind: str) -> None:
    model = settled(KINDS[kind]())
    backbone = load_backbone(model, **given(kind))
    probe = backbone.probe(2)
    pixels = probe.args[0].permute(0, 2, 3, 1)
    own = {layer.name: layer for layer in model.layers}
    said = []
    for layer in backbone.layers:
        with torch.no_grad():
            try:
                rows = backbone.at(layer.name, "avg").features(probe).float()
            except HeadstartError as error:
                said.append(str(error))
                assert len(backbone.at(layer.name, "none").features(probe)) == 2
                continue
            if layer.name not in own:
                continue
            expected = keras.Model(model.inputs, output_in(graph_of(model), own[layer.name]))(
                pixels, training=False
            ).float()
            if expected.ndim > 2:
                expected = expected.mean(tuple(range(1, expected.ndim - 1)))
        torch.testing.assert_close(
            rows, expected, rtol=1e-2 if kind == "mixed" else 1e-4, atol=1e-5
        )
    assert not [line for line in said if "\n" in line or "pooling=" not in line]
    assert len(said) <= 4


@every
def test_fit_attach_and_freeze(kind: str, tmp_path: Path) -> None:
    model = settled(KINDS[kind]())
    options = {**given(kind), "cache": tmp_path, "reporter": SilentReporter()}
    test = squares(20, 1)
    run = headstart.fit(
        {"train": squares(40), "test": test}, model, head="linear", write=False, **options
    )
    predicted = headstart.predict(test[0], run, cache=tmp_path, reporter=SilentReporter())
    found = run.to_keras().predict(test[0].astype("float32"), verbose=0)
    assert np.allclose(found, predicted.probabilities, atol=2e-2 if kind == "mixed" else 1e-4)
    handle = headstart.freeze(model, {"": "frozen"})
    model.compile("sgd", "mse")
    x = test[0].astype("float32") / 255
    model.evaluate(x, np.zeros((20, *model.output_shape[1:]), "float32"), verbose=0)
    assert handle.verify().holds


def test_a_head_on_a_model_with_a_call_of_its_own(tmp_path: Path) -> None:
    model = Subclassed(name="own")
    model(np.zeros((1, 16, 16, 3), "float32"))
    settled(model)
    options = {"cache": tmp_path, "reporter": SilentReporter()}
    x, y = squares(20, 1)
    data = {"train": squares(40), "test": (x, y)}
    run = headstart.fit(data, model, head="linear", write=False, **options, **INPUTS)
    predicted = headstart.predict(x, run, **options)
    found = run.to_keras().predict(x.astype("float32"), verbose=0)
    assert np.allclose(found, predicted.probabilities, atol=1e-4)
    # A model inside another is a layer of its graph.
    whole = two_deep()
    run = headstart.fit(
        data, whole, layer="middle", head="linear", write=False, **options, **INPUTS
    )
    predicted = headstart.predict(x, run, **options)
    found = run.to_keras().predict(x.astype("float32"), verbose=0)
    assert np.allclose(found, predicted.probabilities, atol=1e-4)
    inner = headstart.fit(
        data, model, layer="first", head="linear", write=False, **options, **INPUTS
    )
    with pytest.raises(BackboneError, match="its own call, where a Keras graph cannot be cut"):
        inner.to_keras()


def test_what_a_class_needs_to_be_copied() -> None:
    class Plain(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.dense = layers.Dense(2)

        def call(self, x: Any) -> Any:
            return self.dense(keras.ops.mean(x, axis=(1, 2)))

    model = Plain()
    model(np.zeros((1, 16, 16, 3), "float32"))
    with pytest.raises(BackboneError, match=r"let __init__ pass others \(\*\*kwargs\)"):
        headstart.compare({"train": squares(20), "test": squares(10)}, model, write=False, **INPUTS)
