"""Which layers and blocks are listed, and with which shapes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch
from torch import nn
from typer.testing import CliRunner

from headstart.backbones import Backbone, load_backbone
from headstart.commands.cli import app
from headstart.data import Preprocessing
from tests.modules.networks import Late, Tower, Windows

PLAN = Preprocessing(size=(16, 16), mean=(0, 0, 0), std=(1, 1, 1))


def shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {layer.name: layer.shape for layer in load_backbone(module, inputs=PLAN).layers}


def test_shapes_are_those_of_one_item_wherever_its_axis_is():
    found = shapes(Tower())
    assert found["ln_pre"] == (17, 24)
    assert found["blocks.0.mlp"] == found["blocks"] == (17, 24)
    assert shapes(Windows(strided=True))["inner"] == shapes(Windows(strided=False))["inner"]
    assert shapes(Windows(strided=False))["inner"] == (4, 4, 20)


class Table(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.table = nn.Conv2d(3, 4, 3), nn.Embedding(14, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        places = torch.arange(14)
        return self.conv(x).mean(3) + self.table(places).T


def test_a_table_that_has_no_items_is_no_layer_to_take_features_from():
    assert list(shapes(Table())) == ["conv"]


class Spare(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.late, self.spare = Late(), nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.late(x)


def test_blocks_that_do_not_exist_or_never_run_are_not_named():
    backbone = Backbone("x", Spare(), PLAN, claimed=("gone", "spare", "late.late", "late.early"))
    assert backbone.blocks == ("late.late", "late.early")
    # Where nothing that is named runs, the tree tells.
    backbone = Backbone("x", Spare(), PLAN, claimed=("block.0", "spare"))
    assert backbone.blocks == ("late.embed", "late.early", "late.late")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hrnet_w18_small", {"stage2": (16, 56, 56), "stage4": (16, 56, 56)}),
        ("coat_tiny", {"serial_blocks1.0": (3137, 152), "serial_blocks4.1": (50, 152)}),
        ("mvitv2_tiny", {"stages.0": (3136, 96), "stages.3": (49, 768)}),
        ("twins_svt_small", {"blocks.0.0": (3136, 64), "blocks.3.3": (49, 512)}),
    ],
)
def test_every_family_names_blocks_that_run(name, expected):
    module = timm.create_model(name, pretrained=False, num_classes=0)
    claimed = tuple(str(entry["module"]) for entry in module.feature_info or ())
    plan = Preprocessing(size=(224, 224), mean=(0, 0, 0), std=(1, 1, 1))
    backbone = Backbone(name, module, plan, claimed=claimed)
    found = {layer.name: layer.shape for layer in backbone.layers}
    assert set(backbone.blocks) <= set(found)
    assert {block: found[block] for block in expected} == expected
    assert set(expected) <= set(backbone.blocks)


def test_the_listing_shows_no_batch_size(tmp_path: Path):
    file = tmp_path / "net.py"
    file.write_text(
        "from tests.modules.networks import Tower\n"
        "from headstart.data import Preprocessing\n"
        "def make():\n"
        "    return Tower(), Preprocessing(size=(16, 16), mean=(0, 0, 0), std=(1, 1, 1))\n"
    )
    result = CliRunner().invoke(app, ["backbones", f"{file}:make", "--json", "--layers"])
    listed = {entry["name"]: entry["shape"] for entry in json.loads(result.stdout)["layers"]}
    assert listed["blocks.1"] == [17, 24]
    assert all(2 not in shape and 3 not in shape for shape in listed.values())
