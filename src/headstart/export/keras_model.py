"""A Keras backbone and a head trained by headstart as one ``keras.Model``."""

from __future__ import annotations

from typing import Any

import numpy as np

from headstart.backbones import Backbone
from headstart.backbones.families.keras_channels import takes_channels_last
from headstart.core.errors import BackboneError, HeadError
from headstart.core.wording import first_line
from headstart.data import Preprocessing
from headstart.evaluation.targets import FloatArray
from headstart.heads import Head, LinearHead, PrototypeHead
from headstart.heads.prepared import PreparedHead
from headstart.modules.keras import KerasPart, load_keras
from headstart.modules.keras_layers import graph_of, output_in

_ACTIVATIONS = {"classification": "softmax", "multi-label": "sigmoid", "regression": "linear"}
"""What a model ends in, by task."""


def keras_model(backbone: Backbone, head: Head, *, pixels: bool = True) -> Any:
    """Attach a head to its Keras backbone.

    The model shares the layers of the backbone; training it trains them. Its last layer is a
    ``Dense`` with the head's weights, its temperature and, but for prototypes, its standardisation
    folded in.

    Args:
        backbone: a Keras backbone, cut at a layer of its own graph or at its output.
        head: a ``linear``, ``ridge``, ``lda`` or ``prototype`` head of any task that was trained on
            its features.
        pixels: whether the model takes RGB pixels of 0 to 255, resized to the backbone's size, and
            scales them itself; otherwise it takes what the backbone takes.

    Returns:
        A ``keras.Model`` from ``(n, h, w, 3)`` to probabilities ``(n, k)`` of classes or labels, or
        to the values of a regression.

    Raises:
        BackboneError: the backbone is no Keras model, its layer lies inside another layer, its
            pooling has no Keras layer, or its own call does not run on a symbolic input.
        HeadError: the head is of another kind.
    """
    if not isinstance(backbone.module, KerasPart):
        raise BackboneError(
            f"{backbone.name} is not a Keras model, so it cannot be exported as a keras.Model",
            hint="fit on a keras.Model, a .keras file or keras/NAME",
        )
    keras = load_keras()
    inner = head.inner if isinstance(head, PreparedHead) else head
    if not isinstance(inner, LinearHead | PrototypeHead):
        raise HeadError(
            f"a head of kind '{inner.kind}' has no Keras layers that predict as it does",
            hint="train head='linear' or 'ridge', and for classes 'lda' or 'prototype'",
        )
    model = backbone.module.keras_layer
    inputs, output = _graph(keras, backbone, model)
    last = "regression" if head.task == "regression" else "classifier"
    outputs = _headed(keras, head, inner, _pooled(keras, backbone, output))
    made = keras.Model(inputs, outputs, name=f"{model.name}_{last}")
    return _from_pixels(keras, backbone, made) if pixels else made


def _headed(keras: Any, head: Head, inner: LinearHead | PrototypeHead, row: Any) -> Any:
    """Attach the layers of a head to a symbolic row ``(n, d)``."""
    mean: FloatArray = np.zeros(head.n_features)
    scale: FloatArray = np.ones(head.n_features)
    if isinstance(head, PreparedHead):
        row = keras.layers.UnitNormalization(name="unit_length")(row)
        mean, scale = head.preparation.mean, head.preparation.scale
    if isinstance(inner, PrototypeHead):
        offset = -mean / scale - inner.centre
        row = keras.layers.Rescaling((1 / scale).tolist(), offset.tolist(), name="centred")(row)
        row = keras.layers.UnitNormalization(name="direction")(row)
        weight, bias = inner.prototypes.T, np.zeros(head.n_classes)
    else:
        mean, scale = mean + scale * inner.mean, scale * inner.scale
        weight = inner.weight / scale[:, None]
        bias = inner.bias - (mean / scale) @ inner.weight
    if head.task != "regression":
        weight, bias = weight / head.temperature, bias / head.temperature
    if head.task == "classification" and head.thresholds is not None:
        bias = bias - np.log(head.thresholds)  # corrected for the shares of classes
    # Nothing is known of classes without training items.
    bias = np.where(inner.present, bias, -1e9)
    dense = keras.layers.Dense(head.n_classes, activation=_ACTIVATIONS[head.task], name="head")
    outputs = dense(row)
    dense.set_weights([weight.astype("float32"), bias.astype("float32")])
    return outputs


def _graph(keras: Any, backbone: Backbone, model: Any) -> tuple[Any, Any]:
    """Return the symbolic inputs of a model, and what it computes of them up to the cut."""
    inputs = getattr(model, "inputs", None)
    part = dict(backbone.module.named_children()).get(backbone.layer or "")
    if backbone.layer is not None and not (inputs and isinstance(part, KerasPart)):
        raise BackboneError(
            f"layer '{backbone.layer}' is inside another layer, or inside a model with its own"
            " call, where a Keras graph cannot be cut",
            hint="choose a layer of the model's own graph, or no layer",
        )
    if isinstance(part, KerasPart):
        return inputs, output_in(graph_of(model), part.keras_layer)
    if inputs:
        return inputs, model.outputs[0]
    sides = getattr(backbone.inputs, "size", None)
    if sides is None:
        raise BackboneError(
            f"{model.name} does not say what it takes", hint="pass a functional keras.Model"
        )
    made = keras.Input((*sides, 3) if takes_channels_last(model) else (3, *sides), name="images")
    try:
        outputs = model(made)
    except Exception as error:
        raise BackboneError(
            f"{model.name} has a call of its own that does not run on a symbolic input:"
            f" {first_line(error)}",
            hint="write it with keras.ops, or use headstart.predict(data, run)",
        ) from error
    return made, keras.tree.flatten(outputs)[0]


def _pooled(keras: Any, backbone: Backbone, output: Any) -> Any:
    axes = len(output.shape)
    if axes == 2:
        return output
    if backbone.pooling == "avg" and axes in (3, 4) and not backbone.layout.special:
        pooling = {3: "GlobalAveragePooling1D", 4: "GlobalAveragePooling2D"}[axes]
        first = backbone.layout.channels == 1
        data_format = "channels_first" if first else "channels_last"
        return getattr(keras.layers, pooling)(data_format=data_format)(output)
    if backbone.pooling == "none":
        return keras.layers.Flatten()(output)
    raise BackboneError(
        f"pooling '{backbone.pooling}' of this layer has no Keras layer", hint="use pooling='avg'"
    )


def _from_pixels(keras: Any, backbone: Backbone, made: Any) -> Any:
    inputs = backbone.inputs
    if not isinstance(inputs, Preprocessing):
        raise BackboneError("only image backbones take pixels", hint="pass pixels=False")
    scale = inputs.scale / np.asarray(inputs.std)
    offset = -np.asarray(inputs.mean) / np.asarray(inputs.std)
    pixels = keras.Input((*inputs.size, 3), name="pixels")
    x = keras.ops.flip(pixels, axis=-1) if inputs.channels == "BGR" else pixels
    x = keras.layers.Rescaling(scale.tolist(), offset=offset.tolist(), name="scaling")(x)
    if len(made.inputs[0].shape) == 4 and made.inputs[0].shape[1] == 3 != made.inputs[0].shape[-1]:
        x = keras.layers.Permute((3, 1, 2))(x)
    return keras.Model(pixels, made(x), name=made.name)


__all__ = ["keras_model"]
