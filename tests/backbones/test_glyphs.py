"""The bundled backbone: its weights, what they say about themselves, and what they are worth."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from headstart.backbones.glyphs import (
    BLOCKS,
    GlyphNet,
    glyphs_card,
    glyphs_metadata,
    load_glyphs,
    weights_file,
)
from headstart.backbones.tensor_file import METADATA_KEY, inputs_in
from headstart.data.preprocessing import Preprocessing

GOLDEN = Path(__file__).parent / "golden" / "glyphs.safetensors"


@pytest.fixture
def network() -> GlyphNet:
    return load_glyphs()


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    return load_file(GOLDEN)


def preprocessing() -> Preprocessing:
    return Preprocessing(**glyphs_metadata()["preprocessing"])


@torch.no_grad()
def test_features_are_the_golden_ones(network: GlyphNet, golden: dict[str, Tensor]) -> None:
    features = network(preprocessing().normalise(golden["inputs"]))
    torch.testing.assert_close(features, golden["features"], rtol=1e-4, atol=1e-5)
    distances = torch.cdist(features, features) + torch.eye(len(features)) * 1e9
    assert distances.min() > 0.1  # the golden pictures differ, so a constant network would fail


@torch.no_grad()
def test_shapes(network: GlyphNet, golden: dict[str, Tensor]) -> None:
    x = preprocessing().normalise(golden["inputs"])
    maps = network.forward_features(x)
    assert maps.shape == (8, network.num_features, 4, 4)
    torch.testing.assert_close(network(x), maps.mean((2, 3)))


def test_size_of_network_and_file(network: GlyphNet) -> None:
    assert 250_000 <= sum(p.numel() for p in network.parameters()) <= 350_000
    with weights_file() as path:
        assert path.stat().st_size <= 1_500_000
        assert load_file(path).keys() == network.state_dict().keys()


def test_all_tensors_are_real_float32_on_the_cpu(network: GlyphNet) -> None:
    for name, tensor in network.state_dict().items():
        assert tensor.device.type == "cpu", name
        assert tensor.isfinite().all(), name
        wanted = torch.int64 if name.endswith("num_batches_tracked") else torch.float32
        assert tensor.dtype == wanted, name


def test_blocks_exist_in_forward_order(network: GlyphNet) -> None:
    calls: list[str] = []
    handles = [
        network.get_submodule(name).register_forward_hook(lambda *_, name=name: calls.append(name))
        for name in BLOCKS
    ]
    try:
        network(torch.zeros(1, 3, 32, 32))
    finally:
        for handle in handles:
            handle.remove()
    assert tuple(calls) == BLOCKS


def test_modes_matter_and_eval_is_deterministic(
    network: GlyphNet, golden: dict[str, Tensor]
) -> None:
    assert any(isinstance(m, nn.BatchNorm2d) for m in network.modules())
    assert any(isinstance(m, nn.Dropout) and m.p > 0 for m in network.modules())
    assert not any(m.training for m in network.modules())
    x = preprocessing().normalise(golden["inputs"])
    with torch.no_grad():
        first = network(x)
        assert torch.equal(first, network(x))
        # One image alone gives what it gives in the batch: nothing depends on its neighbours.
        torch.testing.assert_close(network(x[:1]), first[:1], rtol=1e-4, atol=1e-5)
        for module in network.modules():
            if isinstance(module, nn.Dropout):
                module.train()
        assert not torch.allclose(first, network(x), rtol=1e-2)  # dropout alone
        for module in network.eval().modules():
            if isinstance(module, nn.BatchNorm2d):
                module.train()
        assert not torch.allclose(first, network(x), rtol=1e-2)  # batch statistics alone


def test_two_loads_share_nothing() -> None:
    one, other = load_glyphs(), load_glyphs()
    with torch.no_grad():
        one.stem.conv.conv.weight.zero_()
    assert other.stem.conv.conv.weight.abs().sum() > 0


def test_loading_leaves_the_random_state_alone() -> None:
    before = torch.get_rng_state()
    load_glyphs()
    assert torch.equal(before, torch.get_rng_state())


def test_metadata_is_complete() -> None:
    facts = glyphs_metadata()
    assert facts.keys() == {
        "architecture",
        "data",
        "environment",
        "figures",
        "licence",
        "preprocessing",
        "recipe",
    }
    assert facts["licence"]["data"] == "MIT"
    assert isinstance(facts["recipe"]["seed"], int)
    assert facts["data"]["characters"] * facts["data"]["rotations"] == facts["figures"]["classes"]
    built = GlyphNet(
        facts["architecture"]["widths"],
        facts["architecture"]["depths"],
        facts["architecture"]["dropout"],
    )
    shapes = {name: tensor.shape for name, tensor in built.state_dict().items()}
    loaded = {name: tensor.shape for name, tensor in load_glyphs().state_dict().items()}
    assert shapes == loaded


def test_preprocessing_travels_in_the_weights_file() -> None:
    with weights_file() as path:
        assert inputs_in(path, Preprocessing) == glyphs_metadata()["preprocessing"]
    assert METADATA_KEY == "headstart.preprocessing"
    assert preprocessing().size == (32, 32)


def test_card_tells_the_figures_of_the_weights() -> None:
    card, facts = glyphs_card(), glyphs_metadata()
    figures = facts["figures"]
    parameters = sum(p.numel() for p in load_glyphs().parameters())
    for text in (
        f"{parameters:,}",
        f"{100 * figures['validation_accuracy']:.1f} %",
        f"{figures['classes']} classes",
        f"{facts['recipe']['epochs']} epochs",
        f"seed {facts['recipe']['seed']}",
    ):
        assert text in card, text
    for word in ("Lake", "Salakhutdinov", "Tenenbaum", "MIT", "Limits"):
        assert word in card
    assert not re.search(r"TODO|FIXME|\?\?\?", card)


@dataclass(frozen=True)
class Digits:
    """Every second image of scikit-learn's digits: raw, as network inputs, and its label."""

    raw: np.ndarray
    x: Tensor
    labels: np.ndarray


@pytest.fixture(scope="module")
def digits() -> Digits:
    images, labels = load_digits(return_X_y=True)
    images, labels = images[::2] / 16, labels[::2]
    greys = np.round(images * 255).astype(np.uint8).reshape(-1, 8, 8)
    geometry = preprocessing().geometry
    pixels = np.stack([geometry(Image.fromarray(grey).convert("RGB")) for grey in greys])
    x = preprocessing().normalise(torch.from_numpy(pixels).permute(0, 3, 1, 2))
    return Digits(images, x, labels)


@torch.no_grad()
def features_in_order(network: GlyphNet, x: Tensor, order: np.ndarray) -> np.ndarray:
    rows = torch.from_numpy(order)
    return torch.cat([network(x[part]) for part in rows.split(32)])[rows.argsort()].numpy()


def few_shot_accuracy(train_on: np.ndarray, test_on: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Accuracy with ten images a class, four times, of a standardised logistic regression."""
    scores = []
    for seed in range(4):
        generator = np.random.default_rng(seed)
        rows = [generator.permutation(np.flatnonzero(labels == c))[:10] for c in range(10)]
        train = np.concatenate(rows)
        test = np.setdiff1d(np.arange(len(labels)), train)
        head = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500))
        head.fit(train_on[train], labels[train])
        scores.append(head.score(test_on[test], labels[test]))
    return np.array(scores)


def test_features_beat_raw_pixels_with_ten_images_a_class(
    network: GlyphNet, digits: Digits
) -> None:
    order = np.arange(len(digits.labels))
    features = features_in_order(network, digits.x, order)
    inverted = features_in_order(network, -digits.x, order)
    raw = few_shot_accuracy(digits.raw, digits.raw, digits.labels)
    gain = few_shot_accuracy(features, features, digits.labels) - raw
    assert gain.mean() > 0.04
    # Either polarity will do: the weights know dark on light and light on dark.
    assert (few_shot_accuracy(inverted, inverted, digits.labels) - raw).mean() > 0.04


def test_batch_statistics_in_class_order_destroy_the_features(
    network: GlyphNet, digits: Digits
) -> None:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train()
    shuffled = np.random.default_rng(0).permutation(len(digits.labels))
    by_class = np.argsort(digits.labels, kind="stable")
    mixed = features_in_order(network, digits.x, shuffled)
    sorted_ = features_in_order(network, digits.x, by_class)
    assert few_shot_accuracy(mixed, mixed, digits.labels).mean() > 0.85
    assert few_shot_accuracy(mixed, sorted_, digits.labels).mean() < 0.5


def test_metadata_values_are_json() -> None:
    with weights_file() as path, safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    assert metadata.pop("format") == "pt"
    for key, value in metadata.items():
        assert key.startswith("headstart."), key
        json.loads(value)
