"""Keras networks for images of 1, 4 and 13 channels: filters as timm makes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from headstart.backbones import load_backbone
from headstart.backbones.families.keras_channels import channels_of, takes_channels_last
from headstart.commands.fit.job import fit
from headstart.core.errors import BackboneError
from headstart.core.progress import SilentReporter
from tests.keras_models import keras, mobilenet

ALIKE: dict[str, Any] = {"mean": 0.5, "std": 0.5}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("keras") / "mobile.weights.h5"
    mobilenet().save_weights(file)
    return file


def loaded(weights: Path, channels: int, **options: Any) -> Any:
    args = {"alpha": 0.25, "input_shape": [32, 32, channels]}
    return load_backbone("keras/MobileNet", weights=weights, model_args=args, **options)


def rows(backbone: Any, x: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return backbone.module(x).numpy()


@pytest.mark.parametrize("channels", [1, 4, 13])
def test_filters_are_those_of_timm(weights: Path, channels: int) -> None:
    from timm.models import adapt_input_conv

    colours, made = loaded(weights, 3, **ALIKE), loaded(weights, channels, **ALIKE)
    assert made.inputs.kind == "bands"
    assert made.inputs.in_channels == channels
    theirs, own = colours.module.state_dict(), made.module.state_dict()
    assert list(theirs) == list(own)
    for name, tensor in own.items():
        wanted = theirs[name]
        if wanted.shape != tensor.shape:
            wanted = adapt_input_conv(channels, wanted.permute(3, 2, 0, 1)).permute(2, 3, 1, 0)
        assert torch.equal(tensor, wanted), name
    x = torch.rand(2, 1, 32, 32)
    if channels == 1:
        np.testing.assert_allclose(
            rows(made, x), rows(colours, x.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5
        )


def test_mean_and_deviation_of_other_channels_are_asked_for(weights: Path) -> None:
    with pytest.raises(BackboneError, match=r"with 13 channels is not known.*their mean, std"):
        loaded(weights, 13)


def test_a_network_that_normalises_colours_is_refused(tmp_path: Path) -> None:
    model = keras.applications.EfficientNetB0(
        weights=None, include_top=False, input_shape=(32, 32, 3)
    )
    model.save_weights(tmp_path / "e.weights.h5")
    with pytest.raises(BackboneError, match=r"normalization/mean' of .* is for three colours"):
        load_backbone(
            "keras/EfficientNetB0", weights=tmp_path / "e.weights.h5",
            model_args={"input_shape": [32, 32, 4]}, **ALIKE,
        )  # fmt: skip


SHAPES = {
    (28, 28, 1): (True, 1), (1, 28, 28): (False, 1), (64, 64, 13): (True, 13),
    (13, 64, 64): (False, 13), (None, None, 13): (True, 13), (5, None, None): (False, 5),
    (28, 28, 64): (True, 64), (48, 64, 13): (True, 13), (None, None, 3): (True, 3),
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_which_axis_are_the_channels(shape: tuple[int | None, ...]) -> None:
    last, channels = SHAPES[shape]
    model = keras.Sequential([keras.layers.Input(shape), keras.layers.Activation("relu")])
    assert takes_channels_last(model) == last
    assert channels_of(model) == channels


@pytest.mark.parametrize("channels", [1, 13])
def test_a_model_of_other_channels_is_taken_as_it_is(channels: int, tmp_path: Path) -> None:
    layers = [
        keras.layers.Input((16, 16, channels)), keras.layers.Rescaling(1 / 255),
        keras.layers.Conv2D(6, 3), keras.layers.GlobalAveragePooling2D(),
    ]  # fmt: skip
    model = keras.Sequential(layers)
    backbone = load_backbone(model)
    x = np.random.default_rng(0).random((4, 16, 16, channels)).astype(np.float32)
    batch = backbone.inputs.collate([backbone.inputs.sample(image) for image in x])
    found = rows(backbone, backbone.inputs.finish(batch).args[0])
    expected = model(x * 255).detach().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    model.save(tmp_path / "m.keras")
    many = np.tile(x, (4, 1, 1, 1))
    run = fit((many, np.arange(16) % 2), str(tmp_path / "m.keras"), head="lda", write=False,
              cache=tmp_path / "c", reporter=SilentReporter(), baselines=False)  # fmt: skip
    assert run.backbone.inputs.in_channels == channels
