"""Models that cannot be recorded: cut between modules, or refused with the reason."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import Tensor, nn

from headstart.core.errors import ConfigError
from headstart.freezing import freeze
from headstart.prefix import Cut, NoCut, boundary_rows, boundary_tensors, find_cut
from tests.prefix.models import images, same_state, settled, twin
from tests.prefix.test_training import trained


class Branching(nn.Module):
    """Branches on values behind a trunk; the activation is one module, called four times."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))
        self.act = nn.ReLU()
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.blocks:
            x = self.act(layer(x))
        if float(x.detach().abs().mean()) > 1e6:
            x = x / 2
        return self.head(self.drop(x))


class Skipping(nn.Module):
    """An encoder and a decoder with skips, in a forward pass that asks for its mode."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(6, 6), nn.Linear(6, 4)
        self.up = nn.Linear(10, 6)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        one = self.one(x)
        two = self.two(one)
        up = self.up(torch.cat([two, one], 1))
        if self.training:
            up = up + 0.1 * torch.randn_like(up)
        return self.head(up)


@pytest.mark.parametrize(
    ("model", "stage", "names"),
    [
        (Branching(), {"": "trainable", "blocks": "frozen", "act": "frozen"}, ["act_call3"]),
        (Branching(), {"": "trainable", "blocks.0": "frozen", "blocks.1": "frozen"}, ["blocks_0"]),
        (Skipping(), {"": "trainable", "one": "frozen", "two": "frozen"}, ["two", "one"]),
    ],
    ids=["trunk", "shared-activation", "skips"],
)
def test_the_suffix_trains_as_the_model_does(
    model: nn.Module, stage: dict[str, str], names: list[str]
) -> None:
    handle = freeze(model, stage)
    ordinary, width = twin(model), 8 if isinstance(model, Branching) else 6
    batches = [torch.randn(4, width, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    cut = find_cut(model, batches[0], handle)
    assert isinstance(cut, Cut), cut
    assert cut.method == "modules"
    assert cut.check.exact
    if names != ["blocks_0"]:
        assert [spec.name for spec in cut.boundary] == names
    stored = [boundary_tensors(cut.boundary, c) for c in boundary_rows(cut, batches)]
    expected = trained(ordinary, lambda step: ordinary(batches[step]))
    found = trained(model, lambda step: cut.suffix(*stored[step]))
    assert found == expected
    assert same_state(ordinary, model)
    frozen = {id(p) for p in cut.prefix.parameters()}
    assert frozen == {id(p) for p in model.parameters() if not p.requires_grad}
    assert {id(p) for p in cut.suffix.parameters()} == {
        id(p) for p in model.parameters() if p.requires_grad
    }


class Peeking(nn.Module):
    """Decides by the values of the whole batch before the frozen layer runs."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            x = -x
        return self.head(self.first(x))


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_branch_on_values_before_the_frozen_part_is_refused(sign: float) -> None:
    model = Peeking()
    handle = freeze(model, {"": "frozen", "head": "trainable"})
    found = find_cut(model, sign * torch.rand(4, 4), handle)
    assert isinstance(found, NoCut)
    assert "branches on values" in found.reason
    assert "before any frozen module" in found.reason


def test_a_model_without_a_frozen_part_is_refused() -> None:
    model = Branching()
    found = find_cut(model, torch.randn(2, 8), {"": False})
    assert isinstance(found, NoCut)
    assert "no module that it calls is frozen" in found.reason


def test_rows_of_another_form_are_refused() -> None:
    model = Branching()
    handle = freeze(model, {"": "trainable", "blocks": "frozen", "act": "frozen"})
    cut = find_cut(model, torch.randn(2, 8), handle)
    assert isinstance(cut, Cut), cut
    with pytest.raises(ConfigError, match="an item"):
        cut.suffix(torch.randn(2, 7))
    with pytest.raises(ConfigError, match="made for items"):
        cut.prefix(torch.randn(2, 7))
    model(torch.randn(2, 8))  # nothing was left behind on the modules
    assert "forward" not in vars(model.blocks[0])


def test_googlenet_with_its_auxiliary_heads() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = torchvision.models.googlenet(num_classes=2, init_weights=False)
    settled(model, 64)
    handle = freeze(
        model,
        {"": "frozen", "inception5a": "trainable", "inception5b": "trainable", "fc": "trainable"},
    )
    cut = find_cut(model, images(4, 64), handle)
    assert isinstance(cut, Cut), cut
    assert [spec.name for spec in cut.boundary] == ["maxpool4"]
    assert cut.check.exact


class Keeping(nn.Module):
    """Leaves an extra loss on itself, which the training loop picks up."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.head = nn.Linear(4, 6), nn.Linear(6, 2)
        self.extra: Tensor | None = None
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        out = self.head(self.trunk(x))
        self.extra = out.square().mean()
        self.calls += 1
        return out


def test_what_the_code_leaves_on_a_module_is_there_after_the_suffix_too() -> None:
    model = Keeping()
    handle = freeze(model, {"": "frozen", "head": "trainable"})
    x = torch.randn(4, 4)
    cut = find_cut(model, x, handle)
    assert isinstance(cut, Cut), cut
    assert cut.method == "modules"
    assert (model.extra, model.calls) == (None, 0), "the probe left something behind"
    out = cut.suffix(*cut.prefix(x))
    assert model.extra is not None
    assert torch.equal(model.extra, out.square().mean())
    assert model.extra.requires_grad


def test_frozen_layers_of_a_module_that_stays_whole_are_found() -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    model = nn.Sequential(nn.Linear(8, 16), nn.TransformerEncoder(layer, 3), nn.Linear(16, 2))
    handle = freeze(model, {"": "frozen", "1.layers.2": "trainable", "2": "trainable"})
    cut = find_cut(model, torch.randn(4, 5, 8), handle)
    assert isinstance(cut, Cut), cut
    assert [spec.name for spec in cut.boundary] == ["1_layers_1"]
    assert cut.check.max_error <= 1e-5
