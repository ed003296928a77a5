"""The contract of backbones, freezing and extraction over the architectures of Keras.

The reference is Keras's own: a layer's features are the mean over the positions of what
``keras.Model(inputs, layer.output)`` computes, item by item.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import headstart
from headstart import extract, load_backbone
from headstart.backbones import Backbone, features_of
from headstart.backbones.groups import block_groups, param_groups
from headstart.core.errors import BackboneError, BadFilesError
from headstart.data import load_items
from headstart.extraction import Extraction
from headstart.extraction.engines import EngineUnfitError
from headstart.extraction.engines.eager import arranged, faithful_copy
from headstart.extraction.engines.folding import close, folded
from headstart.extraction.precision import autocast
from headstart.freezing import blend, drift, reestimate
from headstart.modules.keras_contract import as_module
from tests.keras_models import MODELS, keras, settled

APPLICATIONS = {
    "MobileNet": 32, "MobileNetV2": 32, "MobileNetV3Small": 64, "EfficientNetB0": 32,
    "EfficientNetV2B0": 64, "ResNet50": 32, "ResNet50V2": 32, "DenseNet121": 32, "Xception": 71,
    "InceptionV3": 75, "InceptionResNetV2": 75, "ConvNeXtTiny": 32, "VGG16": 32,
}  # fmt: skip
SMALL = ("mobilenet", "blocks", "residual", "attention", "nested", "subclassed")
FAST = ("MobileNetV2", *SMALL)
SCALED = ("EfficientNetB0", "EfficientNetV2B0", "MobileNetV3Small", "ConvNeXtTiny", "nested")
"""Networks that scale their inputs themselves."""

LONG = [pytest.mark.slow, pytest.mark.walk(keep=3)]
every = pytest.mark.parametrize(
    "name",
    [name if name in FAST else pytest.param(name, marks=LONG) for name in (*SMALL, *APPLICATIONS)],
)


def model_of(name: str) -> Any:
    if name in MODELS:
        return MODELS[name]()
    shape = (APPLICATIONS[name], APPLICATIONS[name], 3)
    make = getattr(keras.applications, name)
    model = make(weights=None, include_top=False, input_shape=shape)
    # Its gates multiply: with kernels of a usual size, its features reach 1e3 and rounding grows.
    return model if name == "EfficientNetV2B0" else settled(model)


def backbone_of(name: str, model: Any = None) -> Backbone:
    own = {"mean": 0.5, "std": 0.5} if name not in SCALED else {"scale": 1, "mean": 0, "std": 1}
    size = APPLICATIONS.get(name, 32 if name in ("mobilenet", "nested") else 16)
    return load_backbone(model_of(name) if model is None else model, size=size, **own)


def some(layers: list[str], most: int = 4) -> list[str]:
    chosen = layers[:: max(1, len(layers) // most)]
    return [*chosen, *([layers[-1]] if layers[-1] not in chosen else [])]


def split_of(count: int, side: int = 16, seed: int = 0) -> Any:
    return load_items(
        np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype="uint8")
    )


def check_layers(name: str, choose: Callable[[list[str]], list[str]]) -> None:
    model = model_of(name)
    backbone = backbone_of(name, model)
    probe = backbone.probe(3)
    pixels = probe.args[0].permute(0, 2, 3, 1)
    for layer in choose([layer.name for layer in backbone.layers]):
        at = backbone.at(layer)
        with torch.no_grad():
            if at.layout.channels is None:
                with pytest.raises(BackboneError, match="cannot be found"):
                    features_of([at], probe)
                continue
            (rows,) = features_of([at], probe)
            alone = torch.cat([features_of([at], probe[i : i + 1])[0] for i in range(3)])
        scale = float(rows.abs().max()) or 1.0
        assert float((rows - alone).abs().max()) <= 1e-4 * scale, layer
        if "." in layer or not hasattr(model, "inputs") or layer not in own_names(model):
            continue
        inner = keras.Model(model.inputs, model.get_layer(layer).output)
        expected = torch.as_tensor(inner.predict(pixels.numpy(), verbose=0))
        if expected.ndim > 2:
            axes = tuple(range(1, expected.ndim - 1))
            expected = expected.mean(axes)
        assert rows.shape == expected.shape, layer
        assert float((rows - expected).abs().max()) <= 1e-4 * scale, layer


def own_names(model: Any) -> set[str]:
    return {layer.name for layer in model.layers}


@every
def test_some_layers(name: str) -> None:
    check_layers(name, some)


@pytest.mark.slow
@pytest.mark.walk(keep=1)
@pytest.mark.parametrize("name", ["MobileNet", "VGG16", "residual", "ResNet50"])
def test_every_layer(name: str) -> None:
    check_layers(name, lambda layers: layers)


@every
def test_identity_blocks_groups_and_copies(name: str) -> None:
    one = backbone_of(name)
    other = dataclasses.replace(one, module=copy.deepcopy(one.module))
    assert one.identity() == other.identity()
    names = {part for part, _ in one.module.named_modules()}
    assert one.blocks
    assert set(one.blocks) <= names
    groups = block_groups(one.module)
    listed = [parameter for group in groups for parameter in group.parameters]
    assert sorted(listed) == sorted(key for key, _ in one.module.named_parameters())
    assert len({group.name for group in groups}) == len(groups)
    rates = param_groups(one.module, lr=1.0, decay=0.5)
    assert sum(len(group["params"]) for group in rates) == len(listed)
    probe = one.probe(2)
    with torch.no_grad():
        before = one.features(probe)
        assert torch.equal(other.features(probe), before)
        next(p for p in other.module.parameters() if p.ndim >= 2).add_(0.01)
        assert torch.equal(one.features(probe), before)
    assert one.identity() != other.identity()


@every
def test_frozen_stays_and_the_rest_trains(name: str) -> None:
    model = model_of(name)
    tree = as_module(model)
    groups = block_groups(tree)
    held = [part for group in groups[: len(groups) // 2] for part in group.modules] or ["first"]
    trains = (
        {key for group in groups[-1:] for key in group.parameters} if len(groups) > 1 else set()
    )
    handle = headstart.freeze(model, dict.fromkeys(held, "frozen"))
    before = {k: v.detach().clone() for k, v in (*tree.named_parameters(), *tree.named_buffers())}
    probe = backbone_of(name, model).probe(4).args[0].permute(0, 2, 3, 1)
    optimizer = torch.optim.SGD([p for p in tree.parameters() if p.requires_grad], lr=1e-2)
    tree.train()(probe).float().square().mean().backward()
    optimizer.step()
    after = {k: v.detach() for k, v in (*tree.named_parameters(), *tree.named_buffers())}
    moved = {key for key, value in after.items() if not torch.equal(before[key], value)}
    assert not {key for key in moved if key in handle.plan.frozen}
    assert not trains or moved & trains
    assert handle.verify().holds
    handle.release()


@every
def test_statistics_as_a_choice(name: str) -> None:
    model = model_of(name)
    tree = as_module(model)
    backbone = backbone_of(name, model)
    norms = [key for key, _ in tree.named_buffers() if key.endswith("running_mean")]
    batches = [backbone.probe(6).args[0].permute(0, 2, 3, 1)]
    if not norms:
        with pytest.raises(headstart.HeadstartError, match="running statistics"):
            reestimate(model, batches)
        return
    saved = {key: buffer.clone() for key, buffer in tree.named_buffers()}
    done = reestimate(model, batches)
    exact = {key: buffer.clone() for key, buffer in tree.named_buffers()}
    assert all(not torch.equal(saved[key], exact[key]) for key in norms)
    assert max(layer.mean_shift for layer in drift(model, batches)) < 1e-2
    blend(model, done, 0.0)
    assert all(torch.allclose(tree.get_buffer(key), saved[key]) for key in norms)
    blend(model, done, 1.0)
    assert all(torch.allclose(tree.get_buffer(key), exact[key]) for key in norms)


@every
def test_rows_do_not_depend_on_the_size_of_batches(name: str) -> None:
    backbone = backbone_of(name)
    split = split_of(5, side=APPLICATIONS.get(name, 16))
    whole = extract(backbone, split).features[0]
    for size in (1, 3):
        rows = extract(backbone, split, settings=Extraction(batch_size=size)).features[0]
        np.testing.assert_allclose(rows, whole, rtol=1e-3, atol=1e-4 * np.abs(whole).max())


@every
def test_the_copy_for_fast_passes_gives_the_rows_of_the_network(name: str) -> None:
    """At layers all over the network, without a change to the user's model."""
    model = model_of(name)
    backbone = backbone_of(name, model)
    backbone.module.eval()
    cuts = [backbone.at(layer, "none") for layer in some([x.name for x in backbone.layers])]
    before = [np.asarray(v).copy() for v in model.variables]
    kinds = [type(part).__name__ for part in backbone.module.modules()]
    probe = arranged(backbone.probe(3))
    with torch.inference_mode():
        expected = features_of(cuts, probe)
        if name == "subclassed":
            with pytest.raises(EngineUnfitError, match="its own call"):
                folded(cuts, probe, "float32")
            return
        copies = folded(cuts, probe, "float32")
        assert close(expected, features_of(copies, probe), 1e-4)
    made = [type(part).__name__ for part in copies[0].module.modules()]
    assert ("ImageLayer" in made) is (name != "blocks")  # there, all lies inside of layers
    assert kinds == [type(part).__name__ for part in backbone.module.modules()]
    after = [np.asarray(v) for v in model.variables]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_the_copy_in_half_precision() -> None:
    backbone = backbone_of("MobileNetV2")
    backbone.module.eval()
    probe = arranged(backbone.probe(4))
    with torch.inference_mode(), autocast("bfloat16", torch.device("cpu")):
        expected = features_of([backbone], probe)
        (copied,) = faithful_copy([backbone], probe, "bfloat16")
        assert close(expected, features_of([copied], probe), 5e-2)


def test_a_network_built_again_by_name_has_the_same_key() -> None:
    """Keras numbers layers without a name from the start of the process."""
    options = {"weights": None, "input_shape": (75, 75, 3)}
    keras.layers.Conv2D(3, 3)
    keys = []
    for _ in range(2):
        keras.utils.set_random_seed(0)
        backbone = load_backbone("keras/InceptionV3", model_args=options)
        keys.append(backbone.identity())
        assert any(layer.name == "conv2d_93" for layer in backbone.layers)
    assert keys[0] == keys[1]
    assert keras.layers.Conv2D(3, 3).name != "conv2d"  # the user's own numbers go on


@pytest.mark.parametrize("name", [name for name in SMALL if name != "nested"])
def test_every_pooling(name: str) -> None:
    backbone = backbone_of(name)
    layer = backbone.layers[0].name
    probe = backbone.probe(2)
    with torch.no_grad():
        whole = backbone.at(layer, "none").features(probe)
        if whole.ndim < 4:
            return
        positions = whole.flatten(1, -2)
        for pooling, expected in {
            "avg": positions.mean(1),
            "gem": positions.clamp(min=1e-6).pow(3).mean(1).pow(1 / 3),
        }.items():
            found = backbone.at(layer, pooling).features(probe)
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
        with pytest.raises(BackboneError):
            backbone.at(layer, "cls").features(probe)


def test_unreadable_items(tmp_path: Path) -> None:
    from PIL import Image

    backbone = backbone_of("blocks")
    rng = np.random.default_rng(0)
    for number in range(3):
        pixels = rng.integers(0, 256, (20, 24, 3), dtype="uint8")
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    (tmp_path / "1.png").write_bytes(b"not an image")
    split = load_items(tmp_path)
    with pytest.raises(BadFilesError, match=r"1\.png"):
        extract(backbone, split)
    assert extract(backbone, split, on_bad="skip").indices.tolist() == [0, 2]
