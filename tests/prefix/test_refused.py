"""Networks that cannot be recorded are refused with the true reason; what comes close is not."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import Tensor, nn

from headstart.freezing import freeze
from headstart.prefix import Cut, NoCut, find_cut
from tests.prefix.models import images, settled

FROZEN = {"": "frozen", "head": "trainable"}


class Peeking(nn.Module):
    """Decides by the values of the whole batch."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            x = -x
        return self.head(self.first(x))


class Noisy(nn.Module):
    """Follows its mode by a branch."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        if self.training:
            x = x + 0.1 * torch.randn_like(x)
        return self.head(x)


class Keeping(nn.Module):
    """Leaves an extra loss on itself, which the training loop picks up."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(4, 6), nn.Linear(6, 2)
        self.extra: Tensor | None = None
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        out = self.head(self.first(x))
        self.extra = out.square().mean()
        self.calls += 1
        return out


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (Peeking(), "branches on values"),
        (Noisy(), r"branches on the mode of a module \(self\.training\)"),
        (Keeping(), "keeps what it computes in '(extra|calls)'"),
    ],
    ids=["values", "mode", "state"],
)
def test_what_cannot_be_recorded(model: nn.Module, reason: str) -> None:
    found = find_cut(model, torch.rand(4, 4), freeze(model, FROZEN))
    assert isinstance(found, NoCut)
    assert found.reason.startswith(f"{type(model).__name__} cannot be recorded as a graph: ")
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(found.reason)
    if isinstance(model, Keeping):
        assert (model.extra, model.calls) == (None, 0), "the probe left something behind"


def test_frozen_parts_of_a_module_that_is_one_operation() -> None:
    """The inner network cannot be divided: the cut comes before it, and the reason is said."""
    model = nn.Sequential(nn.Linear(8, 4), Noisy())
    handle = freeze(model, {"": "frozen", "1.head": "trainable"})
    cut = find_cut(model, torch.randn(4, 8), handle)
    assert isinstance(cut, Cut)
    assert [spec.shape for spec in cut.boundary] == [(4,)]
    assert len(cut.ends) == 1
    assert "'1' is not frozen" in cut.ends[0]
    assert "is one operation: the code branches on the mode" in cut.ends[0]


def test_googlenet_gives_auxiliary_outputs_by_mode() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = torchvision.models.googlenet(num_classes=2, init_weights=False)
    settled(model, 64)
    handle = freeze(model, {"": "frozen", "fc": "trainable"})
    found = find_cut(model, images(4, 64), handle)
    assert isinstance(found, NoCut)
    assert "branches on the mode" in found.reason


class Opaque:
    """Has no description that another process would give as well."""


class Holding(nn.Module):
    """Kept whole, since it branches on values; its attribute cannot enter a key."""

    def __init__(self, helper: object) -> None:
        super().__init__()
        self.linear, self.helper = nn.Linear(4, 4), helper

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) if bool((x == x).all()) else x


def test_rows_without_a_key_are_not_stored() -> None:
    for helper, expected in ((Opaque(), NoCut), ((1, "a"), Cut)):
        model = nn.Sequential(Holding(helper), nn.Linear(4, 2))
        found = find_cut(model, torch.rand(4, 4), freeze(model, {"": "frozen", "1": "trainable"}))
        assert isinstance(found, expected), found
        if isinstance(found, NoCut):
            assert "helper is a Opaque, which cannot be described" in found.reason


class Halves(nn.Module):
    """Brings an axis of length two to the front, as attention with two heads does."""

    def forward(self, x: Tensor) -> Tensor:
        halves = x.unflatten(-1, (2, 3)).permute(1, 0, 2)
        return (2.0 * halves).permute(1, 0, 2).flatten(1)


class Mixing(Halves):
    """Mixes items while they are not in front."""

    def forward(self, x: Tensor) -> Tensor:
        halves = x.unflatten(-1, (2, 3)).permute(1, 0, 2)
        return halves.flip(1).permute(1, 0, 2).flatten(1)


@pytest.mark.parametrize(("middle", "shape"), [(Halves(), (6,)), (Mixing(), (2, 3))])
def test_items_are_followed_through_other_axes(middle: nn.Module, shape: tuple[int, ...]) -> None:
    """A probe of two items is not taken for an axis of length two."""
    model = nn.Sequential(nn.Linear(4, 6), middle, nn.Linear(6, 2))
    cut = find_cut(model, torch.randn(4, 4), freeze(model, {"": "frozen", "2": "trainable"}))
    assert isinstance(cut, Cut), cut
    assert any("other items" in end for end in cut.ends) == isinstance(middle, Mixing)
    assert [spec.shape for spec in cut.boundary] == [shape], "what mixes items comes behind"


class Assigning(nn.Module):
    """Writes into a part of a tensor by index."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x[:, 1:3] += x[:, 3:5]
        x[:, 0] = 0.5
        return self.head(x)


def test_assignment_by_index_is_recorded() -> None:
    model = Assigning()
    x = torch.randn(4, 4)
    cut = find_cut(model, x, freeze(model, FROZEN))
    assert isinstance(cut, Cut), cut
    assert cut.check.exact
    (row,) = cut.prefix(x)
    assert bool((row[:, 0] == 0.5).all())
    assert torch.equal(cut.suffix(row), model(x))
