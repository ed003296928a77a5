"""Leaving no trace: modes, buffers, attributes, random state and freeze contracts."""

from __future__ import annotations

import torch
from torch import nn

from headstart.freezing import freeze
from headstart.freezing.hold import requested_mode
from headstart.modules.modes import evaluate, evaluation_mode, untouched


def test_evaluation_mode_restores_the_mode_of_every_part():
    net = nn.Sequential(nn.Dropout(), nn.Sequential(nn.BatchNorm2d(3), nn.Dropout()))
    net.train()
    net[1][0].eval()
    with evaluation_mode(net):
        assert not any(part.training for part in net.modules())
    assert net.training
    assert not net[1][0].training
    assert net[1][1].training


def test_a_freeze_contract_remembers_the_mode_that_was_requested():
    net = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    handle = freeze(net)
    net.train()
    for context in (evaluation_mode(net), untouched(net)):
        with context:
            evaluate(net)
        assert requested_mode(net)
    with untouched(net):
        net.eval()
    assert requested_mode(net)
    handle.verify()


class Merging(nn.Module):
    """Folds a part into another in evaluation mode, as adapters do."""

    def __init__(self) -> None:
        super().__init__()
        self.merged = False

    def train(self, mode: bool = True) -> nn.Module:
        self.merged = not mode
        return super().train(mode)


def test_a_train_of_the_networks_own_is_not_called():
    net = nn.Sequential(Merging(), nn.Linear(2, 2)).train()
    with evaluation_mode(net):
        assert not net[0].training
        assert not net[0].merged


class Restless(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.register_buffer("count", torch.zeros(()))
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.last = x
        self.count = self.count + 1
        return self.norm(x + torch.rand_like(x))


def test_untouched_restores_everything():
    net = Restless().train()
    identities = {name: id(buffer) for name, buffer in net.named_buffers()}
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.get_rng_state()
    with untouched(net):
        assert not torch.is_grad_enabled()
        net(torch.randn(4, 3))
        net.eval()
    assert net.training
    assert net.calls == 0
    assert not hasattr(net, "last")
    assert {name: id(buffer) for name, buffer in net.named_buffers()} == identities
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
