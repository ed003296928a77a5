"""What commands share: settling settings, and how a backbone is named, recorded and built again."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import headstart
from headstart.backbones import load_backbone
from headstart.commands.fit.options import FIT, FitConfig
from headstart.commands.predict.options import PREDICT, EvaluateConfig, PredictConfig
from headstart.commands.settings import BackboneSpec, ReadOptions, RunOptions
from headstart.commands.sweep.options import SWEEP
from headstart.core.errors import BackboneError, ConfigError
from headstart.core.settings import command_line, recorded
from headstart.extraction import Extraction
from tests.finetuning.conftest import squares


class Plain(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3))


def test_an_override_reaches_the_group_that_has_it():
    settled = FIT.settle(
        {"folds": 3, "seed": 2, "label_column": "y", "layer": "a"}, None, None, None, "timm/x"
    )
    assert settled.config == FitConfig(folds=3)
    assert settled.run == RunOptions(seed=2)
    assert settled.reading == ReadOptions(label_column="y")
    assert settled.backbone == BackboneSpec("timm/x", layer="a")


def test_overrides_come_on_top_of_groups():
    settled = FIT.settle({"folds": 3}, FitConfig(head="ridge"), RunOptions(seed=1), None)
    assert settled.config == FitConfig(head="ridge", folds=3)
    assert settled.run.seed == 1


def test_faults_of_all_groups_are_reported_together():
    with pytest.raises(ConfigError) as raised:
        FIT.settle({"folds": 1, "on_bad": "eat", "test_fraction": 2, "lear": 1}, None, None, None)
    assert [fault.split()[0] for fault in raised.value.faults] == [
        "fit", "folds", "on_bad", "test_fraction",
    ]  # fmt: skip


def test_what_has_no_meaning_for_a_command_is_refused_with_the_reason():
    with pytest.raises(ConfigError, match="predict does not take precision: the run determines it"):
        PREDICT.settle({"precision": "float16"}, None, None, None)
    with pytest.raises(ConfigError, match="sweep does not take seed"):
        SWEEP.settle({}, None, RunOptions(seed=1), None)


def test_a_group_that_is_none_is_refused():
    with pytest.raises(ConfigError, match="not as dict"):
        headstart.fit("digits", config={"folds": 2})


def test_a_built_backbone_can_be_cut_elsewhere_and_no_more():
    backbone = load_backbone("headstart/glyphs")
    cut = FIT.settle({"layer": "stage2.0", "pooling": "gem"}, None, None, None, backbone).backbone
    assert (cut.layer, cut.pooling) == ("stage2.0", "gem")
    assert cut.module is backbone.module
    assert FIT.settle({}, None, None, None, backbone).backbone is backbone
    with pytest.raises(ConfigError) as raised:
        FIT.settle({"mean": 0.5, "weights": "x"}, None, None, None, backbone)
    assert len(raised.value.faults) == 2


def test_a_module_of_ones_own_is_taken_with_its_inputs(tmp_path):
    data = {"train": squares(20), "test": squares(10, 9)}
    run = headstart.fit(
        data, Plain(), mean=0.5, std=0.5, size=8, write=False, cache=tmp_path, baselines=False
    )
    assert run.head.n_features == 3
    with pytest.raises(BackboneError, match="module of your own"):
        run.spec.load()


def test_the_run_comes_after_the_data(tmp_path):
    with pytest.raises(ConfigError, match=r"after the data.*predict\(data, run\)"):
        headstart.predict(tmp_path / "run", np.zeros((1, 8, 8, 3), np.uint8))


@pytest.mark.parametrize(
    "spec",
    [
        BackboneSpec(),
        BackboneSpec("timm/resnet18", layer="layer3", pooling="gem", model_args={"a": [1]}),
        BackboneSpec(mean=(0.1, 0.2, 0.3), size=32, preprocessing={"resize": "squash"}),
    ],
)
def test_a_spec_is_rebuilt_from_its_record(spec):
    assert BackboneSpec.from_plain(spec.plain()) == spec


def test_a_spec_of_a_backbone_builds_it_again():
    backbone = load_backbone("headstart/glyphs", layer="stage2.0", size=24)
    again = BackboneSpec.from_plain(BackboneSpec.of(backbone).plain()).load()
    assert (again.layer, again.inputs) == (backbone.layer, backbone.inputs)


def test_weights_are_found_from_another_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert BackboneSpec(weights="w.safetensors").weights == str(tmp_path / "w.safetensors")


def test_a_record_says_nothing_of_places_and_reporters():
    assert not {"out", "cache", "write", "reporter"} & set(recorded(RunOptions()))
    assert recorded(RunOptions(seed=3))["seed"] == 3


def test_run_options_are_those_of_extraction_and_more():
    run = RunOptions(batch_size=8, precision="float16", seed=1)
    assert run.extraction() == Extraction(batch_size=8, precision="float16")
    assert type(run.extraction()) is Extraction


@given(st.integers(0, 99), st.sampled_from(["raise", "skip"]), st.floats(0.01, 0.99))
def test_a_command_line_says_what_differs(seed, on_bad, fraction):
    words = command_line(RunOptions(seed=seed, on_bad=on_bad), ReadOptions(test_fraction=fraction))
    assert ("--seed" in words) == (seed != 0)
    assert ("--bad-files" in words) == (on_bad != "raise")
    assert ("--test-fraction" in words) == (fraction != 0.2)


def test_a_path_is_a_backbone_too(tmp_path):
    path = Path("nets.py:make")
    assert FIT.settle({}, None, None, None, path).backbone == BackboneSpec("nets.py:make")
    assert dataclasses.replace(BackboneSpec(), source="x").source == "x"


@pytest.mark.parametrize("settings", [FitConfig, PredictConfig, EvaluateConfig])
def test_a_rate_of_false_alarms_without_an_alarm_is_refused(settings):
    with pytest.raises(ConfigError, match="false_alarms requires ood"):
        settings(false_alarms=0.1)
    assert settings(false_alarms=0.1, ood="knn").false_alarms == 0.1
