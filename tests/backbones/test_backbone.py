"""A backbone: its features at one or several layers, and what identifies them."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from torch import nn

from headstart.backbones import features_of, load_backbone
from headstart.core.arguments import Arguments
from headstart.core.errors import BackboneError
from headstart.data import Preprocessing
from headstart.modules import pooling
from headstart.modules.pooling import PoolingKind, positions_of, register_pooling

PLAN = Preprocessing(size=(16, 16), mean=(0, 0, 0), std=(1, 1, 1))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, 4, 3)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.one(x))


def test_in_place_layers_do_not_overwrite_a_captured_output():
    net = Net()
    x = torch.randn(2, 3, 16, 16)
    backbone = load_backbone(net, inputs=PLAN)
    one, act = features_of(
        [backbone.at("one", "none"), backbone.at("act", "none")], Arguments((x,))
    )
    assert torch.equal(one, net.one(x))
    assert (one < 0).any()
    assert (act >= 0).all()


def test_several_cuts_of_one_pass_equal_single_cuts():
    backbone = load_backbone("headstart/glyphs")
    cuts = [backbone.at("stage1"), backbone.at("stage2.0", "gem"), backbone]
    x = backbone.probe(3)
    with torch.no_grad():
        together = features_of(cuts, x)
        for cut, rows in zip(cuts, together, strict=True):
            assert torch.equal(rows, cut.features(x))


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.head = nn.Conv2d(3, 3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.conv(self.conv(x)))


def test_a_layer_that_runs_twice_is_refused():
    with pytest.raises(BackboneError, match="runs 2 times"):
        load_backbone(Twice(), inputs=PLAN, layer="conv")
    assert load_backbone(Twice(), inputs=PLAN, layer="head").feature_shape() == (3,)


def key(module: nn.Module, layer: str | None = "layer2") -> dict:
    return load_backbone(module, inputs=PLAN, layer=layer).identity()


class TestIdentity:
    """Changing anything before the cut changes the identity; nothing behind it does."""

    @pytest.fixture
    def net(self) -> nn.Module:
        return timm.create_model("resnet10t", num_classes=0)

    def test_weights_before_and_behind_the_cut(self, net):
        before = key(net)
        with torch.no_grad():
            net.layer3[0].conv1.weight.add_(1)
        assert key(net) == before
        with torch.no_grad():
            net.layer2[0].conv1.weight.view(-1)[0] += 1e-6
        assert key(net) != before

    def test_buffers(self, net):
        before = key(net)
        net.layer1[0].bn1.running_mean[0] += 1e-6
        assert key(net) != before

    def test_attributes_that_change_the_function(self, net):
        before = key(net)
        net.layer1[0].bn1.eps = 1e-2
        assert key(net) != before

    def test_mode_and_gradients_do_not_matter(self, net):
        before = key(net)
        net.train().requires_grad_(False)
        assert key(net) == before

    def test_a_copy_is_the_same(self, net):
        assert key(copy.deepcopy(net)) == key(net)

    def test_the_users_own_attributes(self):
        from tests.backbones.test_load import Tiny

        torch.manual_seed(0)
        one, two = Tiny(1.0), Tiny(2.0)
        two.load_state_dict(one.state_dict())
        assert key(one, None) != key(two, None)

    def test_what_cannot_be_described_is_refused(self):
        from tests.backbones.test_load import Tiny

        net = Tiny()
        net.helper = object()
        with pytest.raises(BackboneError, match=r"helper is a object.*cannot be described"):
            key(net, None)


def test_half_precision_is_pooled_in_float32():
    backbone = load_backbone(nn.Conv2d(3, 4, 1), inputs=PLAN, pooling="gem")
    pooled = backbone.pool(torch.full((1, 4, 64, 64), 3.001, dtype=torch.float16))
    assert pooled.dtype == torch.float32
    assert torch.isfinite(pooled).all()


def test_features_share_no_memory_with_the_network():
    backbone = load_backbone(Net(), inputs=PLAN, layer="one", pooling="none")
    output = torch.rand(2, 4, 3, 3)
    assert backbone.pool(output).data_ptr() != output.data_ptr()


def test_a_pooling_of_ones_own(monkeypatch):
    monkeypatch.setattr(pooling, "_POOLINGS", dict(pooling._POOLINGS))

    def deviation(output, layout, mask):
        return positions_of(output, layout).std(dim=1)

    register_pooling(PoolingKind("deviation", "the standard deviation over positions", deviation))
    backbone = load_backbone(Net(), inputs=PLAN, layer="one", pooling="deviation")
    x = backbone.probe()
    with torch.no_grad():
        expected = x.call(backbone.module.one).std((2, 3))
        assert torch.allclose(backbone.features(x), expected, atol=1e-6)
