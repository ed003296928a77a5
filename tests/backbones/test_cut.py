"""Cutting a module: what runs, what takes part, what identifies it."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from torch import nn

from headstart.backbones import features_of, load_backbone
from headstart.core.errors import BackboneError
from headstart.data import Preprocessing
from headstart.modules.layers import capture, evaluation_mode, trace_prefix
from headstart.modules.pooling import pool

PLAN = Preprocessing(size=(16, 16), mean=(0, 0, 0), std=(1, 1, 1))


class Net(nn.Module):
    """A cut at ``one`` must not run ``two``."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, 4, 3)
        self.act = nn.ReLU(inplace=True)
        self.two = nn.Conv2d(4, 5, 3)
        self.ran_two = 0
        self.two.register_forward_hook(self._count)

    def _count(self, *_: object) -> None:
        self.ran_two += 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(self.act(self.one(x)))


def test_nothing_behind_the_cut_runs():
    net = Net()
    capture(net, ["act"], torch.zeros(1, 3, 16, 16), lambda _n, out: out)
    assert net.ran_two == 0


def test_in_place_layers_do_not_overwrite_a_captured_output():
    net = Net()
    x = torch.randn(2, 3, 16, 16)
    backbone = load_backbone(net, preprocessing=PLAN)
    one, act = features_of([backbone.at("one", "none"), backbone.at("act", "none")], x)
    assert torch.equal(one, net.one(x))
    assert (one < 0).any()
    assert (act >= 0).all()


def test_hooks_are_removed_even_after_an_error():
    net = Net()
    with pytest.raises(RuntimeError):
        capture(net, ["one"], torch.zeros(1, 7, 16, 16), lambda _n, out: out)
    assert all(not part._forward_hooks for name, part in net.named_modules() if name != "two")


def test_several_cuts_of_one_pass_equal_single_cuts():
    backbone = load_backbone("headstart/glyphs")
    cuts = [backbone.at("stage1"), backbone.at("stage2.0", "gem"), backbone]
    x = backbone.probe(3)
    with torch.no_grad():
        together = features_of(cuts, x)
        for cut, rows in zip(cuts, together, strict=True):
            assert torch.equal(rows, cut.features(x))


def test_evaluation_mode_gives_every_part_its_own_mode_back():
    net = nn.Sequential(nn.Dropout(), nn.Sequential(nn.BatchNorm2d(3), nn.Dropout()))
    net.train()
    net[1][0].eval()
    with evaluation_mode(net):
        assert not any(part.training for part in net.modules())
    assert net.training
    assert not net[1][0].training
    assert net[1][1].training


class Attention(nn.Module):
    """MultiheadAttention reads its out_proj without calling it."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 8, 4, 4)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.tail = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.embed(x).flatten(2).transpose(1, 2)
        return self.tail(self.attention(tokens, tokens, tokens)[0].mean(1))


def test_the_prefix_has_tensors_that_are_read_without_a_call():
    net = Attention()
    prefix = trace_prefix(net, "attention", torch.zeros(2, 3, 16, 16))
    assert "attention.out_proj.weight" in prefix.tensors
    assert "attention.in_proj_weight" in prefix.tensors
    assert not any(name.startswith("tail") for name in prefix.tensors)


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.head = nn.Conv2d(3, 3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.conv(self.conv(x)))


def test_a_layer_that_runs_twice_is_refused():
    with pytest.raises(BackboneError, match="runs 2 times"):
        load_backbone(Twice(), preprocessing=PLAN, layer="conv")
    assert load_backbone(Twice(), preprocessing=PLAN, layer="head").feature_shape() == (3,)


def key(module: nn.Module, layer: str | None = "layer2") -> dict:
    return load_backbone(module, preprocessing=PLAN, layer=layer).identity()


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


def test_pooling_of_tokens_leaves_the_prefix_out():
    tokens = torch.randn(2, 5, 7)
    assert torch.equal(pool(tokens, "cls", prefix=1), tokens[:, 0])
    assert torch.allclose(pool(tokens, "avg", prefix=1), tokens[:, 1:].mean(1))


def test_pooling_knows_both_layouts():
    maps = torch.rand(2, 6, 3, 4)
    assert torch.allclose(pool(maps, "avg"), maps.mean((2, 3)))
    last = maps.permute(0, 2, 3, 1)
    assert torch.allclose(pool(last, "avg", last=True), maps.mean((2, 3)))
    gem = maps.pow(3).mean((2, 3)).pow(1 / 3)
    assert torch.allclose(pool(maps, "gem"), gem, atol=1e-5)


def test_pooling_half_precision_in_float32():
    maps = torch.full((1, 1, 64, 64), 3.001, dtype=torch.float16)
    pooled = pool(maps, "gem")
    assert pooled.dtype == torch.float32
    assert torch.isfinite(pooled).all()
