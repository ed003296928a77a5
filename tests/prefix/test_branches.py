"""A branch on the mode that records the same operations on both sides is none."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from headstart.freezing import freeze
from headstart.prefix import Cut, NoCut, find_cut


class Blocks(nn.Module):
    """Skips blocks at random in training, and may add noise, as encoders of speech do.

    Args:
        skip: the rate of LayerDrop.
        noise: of what is added in training.
    """

    def __init__(self, skip: float = 0.0, noise: float = 0.0) -> None:
        super().__init__()
        self.skip, self.noise = skip, noise
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            skipped = False
            if self.training and self.skip > 0:
                skipped = bool(torch.rand(()) < self.skip)
            if not skipped:
                x = layer(x).relu()
        if self.training and self.noise:
            x = x + self.noise
        return x


class Model(nn.Module):
    def __init__(self, blocks: nn.Module) -> None:
        super().__init__()
        self.blocks, self.head = blocks, nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(x))


LAST = {"": "frozen", "blocks.layers.2": "trainable", "head": "trainable"}


def test_blocks_before_the_trained_one_are_computed_once() -> None:
    model, x = Model(Blocks()), torch.randn(6, 4)
    state = torch.get_rng_state()
    cut = find_cut(model, x, freeze(model, LAST))
    assert torch.equal(torch.get_rng_state(), state)
    assert isinstance(cut, Cut)
    inside = {name for name, _ in cut.prefix.named_parameters()}
    assert any("layers.1" in name for name in inside)
    assert not any("layers.2" in name for name in inside)
    for training in (False, True):
        model.train(training)
        cut.suffix.train(training)
        assert torch.equal(cut.suffix(*cut.prefix(x)), model(x))


@pytest.mark.parametrize("blocks", [Blocks(skip=1.0), Blocks(noise=0.5)], ids=["skip", "noise"])
def test_blocks_that_training_mode_changes_are_kept_whole(blocks: nn.Module) -> None:
    model = Model(blocks)
    found = find_cut(model, torch.randn(6, 4), freeze(model, LAST))
    assert isinstance(found, NoCut)
