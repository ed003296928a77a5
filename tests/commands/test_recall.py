"""A backbone that is known from an earlier run is built only where it has to run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

import headstart
from headstart.backbones import Backbone
from headstart.backbones.glyphs import network
from headstart.cache import FeatureCache
from headstart.commands import recall
from headstart.commands.backbone_spec import BackboneSpec
from headstart.commands.recall import recalled_backbone
from headstart.core.errors import BackboneError
from headstart.modules.values import replaced_methods


@pytest.fixture(autouse=True)
def _from_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """What other tests of this process have replaced in libraries is not the subject."""
    known = replaced_methods()
    monkeypatch.setattr(recall, "library_is_patched", lambda: bool(replaced_methods() - known))


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names the sources of the networks that are built, in order."""
    names: list[str] = []
    load: Callable[..., Backbone] = BackboneSpec._load

    def counted(self: BackboneSpec, source: str, *args: object, **more: object) -> Backbone:
        names.append(str(source))
        return load(self, source, *args, **more)

    monkeypatch.setattr(BackboneSpec, "_load", counted)
    return names


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A file of weights for a network of timm."""
    import timm
    import torch

    torch.manual_seed(0)
    file = tmp_path / "weights.safetensors"
    save_file(timm.create_model("resnet10t", num_classes=0).state_dict(), file)
    return file


def _spec(file: Path, **more: object) -> BackboneSpec:
    return BackboneSpec(
        "timm/resnet10t", weights=str(file), size=32, mean=0.5, std=0.5, layer="layer1", **more
    )


def test_a_second_run_builds_no_network(built: list[str], tmp_path: Path) -> None:
    first = headstart.fit("digits", cache=tmp_path / "cache", write=False, baselines=False)
    assert built == ["headstart/glyphs"]
    second = headstart.fit("digits", cache=tmp_path / "cache", write=False, baselines=False)
    assert built == ["headstart/glyphs"]
    assert second.accuracy == first.accuracy
    assert second.fingerprints == first.fingerprints
    assert second.cache.misses == 0


def test_what_is_recalled_is_what_is_built(tmp_path: Path, weights: Path) -> None:
    store, spec = FeatureCache(tmp_path / "cache").store, _spec(weights)
    plain = recalled_backbone(spec, store)
    recalled = recalled_backbone(spec, store)
    assert "module" in vars(plain)
    assert "module" not in vars(recalled)
    assert recalled.identity() == plain.identity()
    assert recalled.feature_shape() == plain.feature_shape()
    for name in ("inputs", "notes", "about", "origin", "claimed", "layer", "pooling", "name"):
        assert getattr(recalled, name) == getattr(plain, name)
    assert "module" not in vars(recalled)
    rows = plain.features(plain.probe(3))
    assert np.array_equal(
        rows.detach().numpy(), recalled.features(recalled.probe(3)).detach().numpy()
    )
    assert recalled.identity() == plain.identity()


def test_a_built_network_that_was_changed_is_described_anew(tmp_path: Path, weights: Path) -> None:
    store, spec = FeatureCache(tmp_path / "cache").store, _spec(weights)
    before = recalled_backbone(spec, store).identity()
    recalled = recalled_backbone(spec, store)
    next(recalled.module.parameters()).data.mul_(2)
    assert recalled.identity() != before


def test_other_weights_in_the_same_file_are_not_recalled(
    built: list[str], tmp_path: Path, weights: Path
) -> None:
    store, spec = FeatureCache(tmp_path / "cache").store, _spec(weights)
    before = recalled_backbone(spec, store).identity()
    save_file({name: value * 2 for name, value in load_file(weights).items()}, weights)
    assert recalled_backbone(spec, store).identity()["weights"] != before["weights"]
    assert len(built) == 2


def test_weights_that_change_before_the_network_is_built_are_refused(
    tmp_path: Path, weights: Path
) -> None:
    store, spec = FeatureCache(tmp_path / "cache").store, _spec(weights)
    recalled_backbone(spec, store)
    recalled = recalled_backbone(spec, store)
    save_file({name: value * 2 for name, value in load_file(weights).items()}, weights)
    with pytest.raises(BackboneError, match="have changed since this run began"):
        _ = recalled.module


def test_settings_of_the_backbone_are_part_of_what_is_known(
    built: list[str], tmp_path: Path, weights: Path
) -> None:
    store = FeatureCache(tmp_path / "cache").store
    shapes = [
        recalled_backbone(_spec(weights, **more), store).identity()
        for more in ({}, {"pooling": "none"}, {"model_args": {"drop_rate": 0.1}}, {})
    ]
    assert len(built) == 3
    assert shapes[0] == shapes[3]
    assert shapes[0] != shapes[1]


def test_a_method_that_the_user_replaced_is_seen(
    built: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, spec = FeatureCache(tmp_path / "cache").store, BackboneSpec("headstart/glyphs")
    before = recalled_backbone(spec, store).identity()
    forward = network.GlyphNet.forward
    monkeypatch.setattr(network.GlyphNet, "forward", lambda self, x: 2 * forward(self, x))
    assert recalled_backbone(spec, store).identity() != before
    assert len(built) == 2


def test_ones_own_code_is_built_every_time(built: list[str], tmp_path: Path) -> None:
    code = tmp_path / "own.py"
    code.write_text("from torch import nn\ndef make():\n    return nn.Flatten()\n")
    spec = BackboneSpec(f"{code}:make", size=8, mean=0.5, std=0.5)
    store = FeatureCache(tmp_path / "cache").store
    for _ in range(2):
        assert "module" in vars(recalled_backbone(spec, store))
    assert len(built) == 2


def test_what_was_damaged_is_found_out_again(built: list[str], tmp_path: Path) -> None:
    store, spec = FeatureCache(tmp_path / "cache").store, BackboneSpec("headstart/glyphs")
    before = recalled_backbone(spec, store).identity()
    (file,) = (tmp_path / "cache" / "results" / "backbones").glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-3] + b"\0\0\0")
    assert recalled_backbone(spec, store).identity() == before
    assert len(built) == 2


def test_a_run_says_where_the_time_of_its_extraction_went(tmp_path: Path) -> None:
    first = headstart.fit("digits", cache=tmp_path / "cache", out=tmp_path / "run")
    said = json.loads((tmp_path / "run" / "run.json").read_text())["extraction"]
    assert said["items"] == first.cache.misses
    assert {"model", "write"} <= set(said["seconds"])
    assert "-bound: " in said["verdict"]
    headstart.fit("digits", cache=tmp_path / "cache", out=tmp_path / "run")
    assert "extraction" not in json.loads((tmp_path / "run" / "run.json").read_text())
