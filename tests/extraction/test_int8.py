"""Networks in int8: calibrated on training items alone, and then networks like any other."""

from __future__ import annotations

import copy
import importlib.util
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import headstart
from headstart.backbones import load_backbone
from headstart.cache import FeatureCache, describe_space
from headstart.cache.calibrated import calibrated_once
from headstart.commands.export.job import export
from headstart.commands.saved_run import open_run
from headstart.core.errors import BackboneError, ConfigError, HeadstartError, MissingExtraError
from headstart.core.progress import SilentReporter
from headstart.data import Preprocessing, load_items
from headstart.extraction import Extraction, extract
from headstart.extraction.int8 import Int8Network, calibrate, calibration_items
from headstart.extraction.precision import row_errors

INPUTS = Preprocessing(size=(32, 32), mean=(0.5,) * 3, std=(0.25,) * 3)
QUIET = SilentReporter()
needed = pytest.mark.skipif(
    importlib.util.find_spec("nncf") is None or importlib.util.find_spec("openvino") is None,
    reason="needs headstart[int8]",
)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 16, 3, groups=16), nn.ReLU6(), nn.Conv2d(16, 24, 1), nn.ReLU(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).mean((2, 3))


class Loops(Net):
    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        return x if x.sum() > -1e9 else -x


def images(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two classes: bright and dark, noisy squares."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    pixels = random.integers(0, 120, (count, 32, 32, 3)) + 120 * labels[:, None, None, None]
    return pixels.astype(np.uint8), labels


def split_of(count: int, seed: int = 0) -> Any:
    return load_items(images(count, seed))


@pytest.fixture(scope="module")
def made() -> Any:
    pytest.importorskip("nncf")
    return calibrate(load_backbone(Net().eval(), inputs=INPUTS), split_of(40))


@needed
def test_rows_are_near_those_in_float32_and_the_line_says_how_near(made: Any) -> None:
    backbone, split = load_backbone(Net().eval(), inputs=INPUTS), split_of(20, 1)
    exact = extract(backbone, split).features[0]
    rows = extract(made.backbone, split, settings=Extraction(precision="int8")).features[0]
    off = row_errors(torch.from_numpy(rows), torch.from_numpy(exact))
    assert 0 < float(off.max()) < 0.05
    assert str(made).startswith("precision int8: calibrated on 40 training images, whose rows ")
    assert 0 < made.off[0] <= made.off[1] < 0.05


@needed
def test_it_is_made_of_int8(made: Any) -> None:
    graph = made.backbone.module.graph.numpy().tobytes().decode()
    assert "FakeQuantize" in graph
    assert 'element_type="i8"' in graph


@needed
@pytest.mark.parametrize("batch_size", [1, 3, 8, 64])
def test_rows_are_the_same_whatever_the_batch_size_and_order(made: Any, batch_size: int) -> None:
    split = split_of(20, 1)
    settings = Extraction(precision="int8")
    one = extract(made.backbone, split, settings=settings).features[0]
    order = np.random.default_rng(0).permutation(20)
    settings = Extraction(precision="int8", batch_size=batch_size, workers=2)
    other = extract(made.backbone, split.take(order), settings=settings).features[0]
    np.testing.assert_allclose(other, one[order], atol=1e-4 * np.abs(one).max())


@needed
def test_the_same_items_give_the_same_network_and_others_another(made: Any, tmp_path: Path) -> None:
    backbone = load_backbone(Net().eval(), inputs=INPUTS)
    split = split_of(40)
    order = np.random.default_rng(0).permutation(40)
    again = calibrate(backbone, split.take(order))
    for name, tensor in made.tensors().items():
        assert torch.equal(tensor, again.tensors()[name])
    key = describe_space(made.backbone, "int8")
    assert describe_space(again.backbone, "int8") == key
    other = calibrate(backbone, split_of(40, 5))
    assert describe_space(other.backbone, "int8") != key
    assert describe_space(backbone, "float32") != key


@needed
def test_it_is_calibrated_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = FeatureCache(tmp_path)
    backbone = load_backbone(Net().eval(), inputs=INPUTS)
    first = calibrated_once(cache.store, backbone, split_of(20))
    monkeypatch.setattr("headstart.cache.calibrated.calibrate", None)
    second = calibrated_once(cache.store, backbone, split_of(20))
    assert str(first) == str(second)
    assert second.backbone.identity() == first.backbone.identity()


@needed
def test_a_network_in_int8_can_be_copied_and_sent(made: Any) -> None:
    pixels = INPUTS.example(3).args[0]
    rows = made.backbone.module(pixels)
    sent = pickle.loads(pickle.dumps(made.backbone.module))
    for other in (copy.deepcopy(made.backbone.module), sent):
        assert isinstance(other, Int8Network)
        assert torch.equal(other(pixels), rows)


def test_the_items_are_chosen_by_content(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headstart.extraction.int8.ITEMS", 7)
    split = split_of(30)
    order = np.random.default_rng(0).permutation(30)
    other = split.take(order)
    chosen = [split.ids[i] for i in calibration_items(split)]
    assert chosen == [other.ids[i] for i in calibration_items(other)]
    assert len(chosen) == 7


@needed
def test_what_cannot_run_in_int8_is_refused_with_the_reason() -> None:
    with pytest.raises(BackboneError, match="does not run in int8: it cannot be recorded"):
        calibrate(load_backbone(Loops().eval(), inputs=INPUTS), split_of(8))
    empty = split_of(8).take(np.empty(0, np.int64))
    with pytest.raises(BackboneError, match="no training item can be read"):
        calibrate(load_backbone(Net().eval(), inputs=INPUTS), empty)


def test_an_extra_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "nncf" else find(name, *a)
    )
    with pytest.raises(MissingExtraError) as caught:
        headstart.fit(
            {"train": images(8), "test": images(4, 1)}, "headstart/glyphs", precision="int8",
            cache=tmp_path, write=False, reporter=QUIET,
        )  # fmt: skip
    assert str(caught.value) == (
        "precision='int8' needs the package 'nncf', which is not installed; "
        "run: pip install 'headstart[int8]'"
    )


def test_a_network_that_was_not_calibrated_is_refused() -> None:
    backbone = load_backbone(Net().eval(), inputs=INPUTS)
    with pytest.raises(ConfigError, match="precision 'int8' needs a calibrated network"):
        extract(backbone, split_of(4), settings=Extraction(precision="int8"))


def test_no_other_engine_runs_it() -> None:
    with pytest.raises(ConfigError, match="'int8' runs in OpenVINO, and engine is 'compile'"):
        Extraction(precision="int8", engine="compile")


@pytest.mark.parametrize("command", ["sweep", "compare", "finetune", "advise", "examine"])
def test_other_commands_refuse_it(command: str) -> None:
    with pytest.raises(HeadstartError, match="precision"):
        getattr(headstart, command)({"train": images(8), "test": images(4)}, precision="int8")


def test_layers_are_refused() -> None:
    with pytest.raises(ConfigError, match="int8 gives only its final features"):
        headstart.fit(
            {"train": images(8), "test": images(4)}, precision="int8", ood="knn", ood_layers=("a",)
        )


@needed
def test_a_run_in_int8_predicts_with_the_network_that_it_was_fitted_with(tmp_path: Path) -> None:
    data = {"train": images(30), "test": images(10, 1)}
    common: dict[str, Any] = {"cache": tmp_path / "cache", "reporter": QUIET}
    headstart.fit(
        data, "headstart/glyphs", precision="int8", out=tmp_path / "run", baselines=False, **common
    )
    said = json.loads((tmp_path / "run" / "run.json").read_text())
    assert said["configuration"]["precision"] == "int8"
    assert any(
        note.startswith("precision int8: calibrated on 30 training ") for note in said["notes"]
    )
    saved = open_run(tmp_path / "run")
    assert isinstance(saved.load_backbone().module, Int8Network)
    found = headstart.predict(images(10, 1)[0], tmp_path / "run", **common)
    assert found.cache.misses == 0  # the rows of the test items are there
    common["cache"] = tmp_path / "other"
    again = headstart.predict(images(10, 1)[0], tmp_path / "run", **common)
    np.testing.assert_allclose(again.probabilities, found.probabilities, atol=1e-6)
    with pytest.raises(HeadstartError, match="in int8, with operations of OpenVINO that no"):
        export(tmp_path / "run", "onnx", output=tmp_path / "onnx", **common)
    assert not (tmp_path / "onnx").exists()
    with pytest.raises(HeadstartError, match="calibrated on the old training items"):
        headstart.update({"train": images(34), "test": images(10, 1)}, tmp_path / "run", **common)
