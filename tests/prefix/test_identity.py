"""The key of boundary rows: everything before the cut, nothing behind it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

from headstart.freezing import freeze
from headstart.prefix import Cut, find_cut
from headstart.store.describe import space_key
from tests.prefix.models import FAMILIES, images, made


def described(model: nn.Module, stage: dict[str, Any], **options: Any) -> dict[str, Any]:
    cut = find_cut(model, images(2, 48), freeze(model, stage), measure=False, **options)
    assert isinstance(cut, Cut), cut
    return cut.describe()


RESNET = dict(FAMILIES["resnet18"].stage)


def test_what_trains_does_not_enter() -> None:
    model = made(FAMILIES["resnet18"])
    before = described(model, RESNET)
    with torch.no_grad():
        for name in ("layer4.0.conv1.weight", "fc.bias"):
            model.get_parameter(name).add_(1.0)
        model.layer4[0].bn1.running_mean.add_(1.0)
    model.fc = nn.Linear(512, 7)
    other = {"": "frozen", "layer4": "trainable-fixed-norm", "fc": "trainable"}
    assert described(model, other) == before
    assert not any("layer4" in name for name in before["prefix"]["tensors"])
    assert len(space_key(before)) == 32


@pytest.mark.parametrize(
    "change",
    ["weight", "buffer", "stride", "epsilon", "dtype", "depth"],
)
def test_everything_before_the_cut_enters(change: str) -> None:
    model = made(FAMILIES["resnet18"])
    before = described(model, RESNET)
    options: dict[str, Any] = {}
    stage = dict(RESNET)
    with torch.no_grad():
        if change == "weight":
            model.layer1[0].conv1.weight[0, 0, 0, 0] += 1e-3
        elif change == "buffer":
            model.layer2[0].bn1.running_var[0] += 1e-3
        elif change == "stride":
            model.layer3[0].conv1.padding = (2, 2)
            model.layer3[0].conv1.dilation = (2, 2)
        elif change == "epsilon":
            model.bn1.eps = 1e-3
        elif change == "dtype":
            options["dtype"] = "float16"
        elif change == "depth":
            stage["layer3"] = "trainable"
    assert space_key(described(model, stage, **options)) != space_key(before)


@pytest.mark.slow
def test_another_process_finds_the_same_key() -> None:
    code = (
        "import json; from tests.prefix.test_identity import *\n"
        "print(json.dumps(described(made(FAMILIES['resnet18']), RESNET)))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert json.loads(found.stdout) == described(made(FAMILIES["resnet18"]), RESNET)
