"""Keras networks for tests: small ones of every kind, and real ones with real weights."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

os.environ.setdefault("KERAS_BACKEND", "torch")
keras = pytest.importorskip("keras")

from headstart.backbones import Backbone, load_backbone  # noqa: E402
from headstart.modules.layers import call_order  # noqa: E402

LAST = "conv_pw_12_relu"
"""The layer of Keras's MobileNet up to which the real weights go."""


def settled(model: Any, seed: int = 0) -> Any:
    """Give batch norms statistics that say something, and kernels of a usual size."""
    rng = np.random.default_rng(seed)
    for layer in model._flatten_layers(include_self=False):
        for variable in (*layer._trainable_variables, *layer._non_trainable_variables):
            shape = tuple(variable.shape)
            if variable.name in {"moving_variance", "gamma"}:
                variable.assign(rng.uniform(0.5, 1.5, shape))
            elif variable.name in {"moving_mean", "beta", "bias"}:
                variable.assign(rng.normal(0, 0.1, shape))
            elif len(shape) >= 2:
                depthwise = type(layer).__name__.startswith("Depthwise")
                fan_in = np.prod(shape[:2] if depthwise else shape[:-1])
                variable.assign(rng.normal(0, np.sqrt(2 / fan_in), shape))
    return model


def mobilenet(**options: Any) -> Any:
    """Return a small MobileNet, which has a batch norm behind every convolution."""
    arguments = {"input_shape": (32, 32, 3), "alpha": 0.25, **options}
    model = keras.applications.MobileNet(weights=None, include_top=False, **arguments)
    return settled(model)


@keras.saving.register_keras_serializable("tests")
class Block(keras.layers.Layer):
    """A layer of layers, of which Keras's graph shows nothing; its call has no ``training``."""

    def __init__(self, width: int = 6, rate: float = 0.5, **options: Any) -> None:
        super().__init__(**options)
        self.width, self.rate = width, rate
        self.conv = keras.layers.Conv2D(width, 3, padding="same", name="conv")
        self.norm = keras.layers.BatchNormalization(name="norm")
        self.drop = keras.layers.Dropout(rate, seed=1, name="drop")

    def build(self, shape: tuple[int | None, ...]) -> None:
        self.conv.build(shape)
        self.norm.build((*shape[:-1], self.width))

    def call(self, x: Any) -> Any:
        return self.drop(keras.ops.relu(self.norm(self.conv(x))))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "width": self.width, "rate": self.rate}


def blocks() -> Any:
    """Return a sequential model with layers of layers."""
    return settled(
        keras.Sequential(
            [
                keras.Input((16, 16, 3)),
                Block(name="first"),
                Block(8, name="second"),
                keras.layers.GlobalAveragePooling2D(name="pool"),
                keras.layers.Dense(4, name="dense"),
            ]
        )
    )


def residual() -> Any:
    """Return a functional model with a skip, an operation that is no layer, a seeded dropout."""
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(6, 3, padding="same", name="stem")(inputs)
    y = keras.layers.BatchNormalization(name="norm")(x)
    y = keras.layers.Conv2D(6, 3, padding="same", activation="relu", name="branch")(y)
    x = keras.layers.Dropout(0.3, seed=2, name="drop")(x + y)
    x = keras.layers.GroupNormalization(3, name="group")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return settled(keras.Model(inputs, keras.layers.Dense(5, name="dense")(x)))


def attention() -> Any:
    """Return a transformer over patches: tokens, layer norm, multi-head attention."""
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(8, 4, strides=4, name="patches")(inputs)
    x = keras.layers.Reshape((16, 8), name="tokens")(x)
    y = keras.layers.LayerNormalization(name="norm")(x)
    y = keras.layers.MultiHeadAttention(2, 4, dropout=0.1, name="attention")(y, y)
    x = keras.layers.Add(name="sum")([x, y])
    x = keras.layers.Dense(8, activation="gelu", name="mlp")(x)
    return settled(keras.Model(inputs, keras.layers.GlobalAveragePooling1D(name="pool")(x)))


def nested() -> Any:
    """Return thread 001's model: augmentation, rescaling, a base in inference mode, a head."""
    base = mobilenet(input_shape=(32, 32, 3))
    base.name = "base"
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.RandomFlip("horizontal", seed=3, name="flip")(inputs)
    x = keras.layers.Rescaling(1 / 127.5, offset=-1, name="scale")(x)
    x = base(x, training=False)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    x = keras.layers.Dropout(0.2, name="drop")(x)
    return keras.Model(inputs, keras.layers.Dense(1, name="head")(x))


class Subclassed(keras.Model):
    """A model with a call of its own."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.first = Block(name="first")
        self.pool = keras.layers.GlobalAveragePooling2D(name="pool")
        self.dense = keras.layers.Dense(3, name="dense")

    def call(self, x: Any, training: bool | None = None) -> Any:
        return self.dense(self.pool(self.first(x, training=training)))


def subclassed() -> Any:
    """Return a built model with a call of its own."""
    model = Subclassed(name="own")
    model(np.zeros((1, 16, 16, 3), "float32"))
    return settled(model)


MODELS = {
    "mobilenet": mobilenet,
    "blocks": blocks,
    "residual": residual,
    "attention": attention,
    "nested": nested,
    "subclassed": subclassed,
}


def side(model: Any) -> int:
    """Return the side of the images that a model of :data:`MODELS` takes."""
    return (
        32
        if isinstance(getattr(model, "input_shape", None), tuple) and model.input_shape[1] == 32
        else 16
    )


def images(model: Any, count: int = 4, seed: int = 0) -> torch.Tensor:
    """Return ``(n, h, w, 3)`` inputs."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(count, side(model), side(model), 3, generator=generator)
    rescaled = any(type(layer).__name__ == "Rescaling" for layer in getattr(model, "layers", ()))
    return 255 * x if rescaled else x


def timm_mobilenet(weights: Path) -> Backbone:
    """Return timm's MobileNet with the real weights, cut where they end."""
    return load_backbone(
        "timm/mobilenetv1_100",
        weights=weights,
        model_args={"pad_type": "same", "bn_eps": 1e-3},
        layer="blocks.4.0",
        mean=0.5,
        std=0.5,
    )


def real_mobilenet(weights: Path, **options: Any) -> Any:
    """Return ``keras.applications.MobileNet`` with the real weights up to :data:`LAST`."""
    arguments = {"input_shape": (224, 224, 3), **options}
    model = keras.applications.MobileNet(weights=None, include_top=False, **arguments)
    source = timm_mobilenet(weights)
    targets = iter([layer for layer in model.layers if layer.weights])
    modules = dict(source.module.named_modules())
    order = call_order(source.module, *source.probe().args)
    for name, _, _ in order:
        module = modules[name]
        if isinstance(module, nn.Conv2d):
            axes = (2, 3, 0, 1) if module.groups > 1 else (2, 3, 1, 0)
            next(targets).set_weights([module.weight.detach().permute(axes).numpy()])
        elif hasattr(module, "running_mean"):
            tensors = (module.weight, module.bias, module.running_mean, module.running_var)
            next(targets).set_weights([tensor.detach().numpy() for tensor in tensors])
        if name == source.layer:
            return model
    raise AssertionError(f"{source.layer} did not run")
