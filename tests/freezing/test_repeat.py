"""The repeat test finds what evaluation mode does not switch off."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from headstart.freezing import digests
from headstart.freezing.repeat import repeat_test
from tests.freezing.models import Everything, TwoParts, batch


class AlwaysNoisy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, 0.5, training=True)


class AlwaysCounting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        return x


def test_what_obeys_evaluation_mode_repeats() -> None:
    net = Everything().train()
    before, state = digests(net), torch.get_rng_state()
    assert repeat_test(net, batch()) == ()
    assert digests(net) == before
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in net.modules())


def test_the_culprit_is_named_and_not_what_holds_it_or_follows_it() -> None:
    net = TwoParts(lambda: nn.Sequential(nn.ReLU(), AlwaysNoisy(), AlwaysCounting()))
    before = digests(net)
    found = repeat_test(net, batch())
    assert [str(item) for item in found] == [
        "encoder.1.1 (AlwaysNoisy): random output in evaluation mode",
        "encoder.1.2 (AlwaysCounting): moves seen in evaluation mode",
    ]
    assert digests(net) == before
    assert not any(module._forward_hooks for module in net.modules())


@pytest.mark.parametrize("noisy", [True, False])
def test_code_of_the_model_itself(noisy: bool) -> None:
    class Own(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.rand_like(x) if noisy else x

    assert [item.name for item in repeat_test(Own(), torch.ones(2))] == [""] * noisy
