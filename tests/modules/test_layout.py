"""Layouts are found by experiment: whose rows are whose, which axis holds the channels."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from headstart.core.arguments import Arguments
from headstart.core.errors import BackboneError
from headstart.freezing import FreezePolicy, freeze
from headstart.modules.digests import digest
from headstart.modules.forward import capture
from headstart.modules.layers import call_order
from headstart.modules.layout import CHANNELS_FIRST, CHANNELS_LAST, ROWS, Layout, find_layout
from headstart.modules.pooling import pool
from tests.modules.networks import (
    ChannelsLast,
    Late,
    Mixer,
    Recurrent,
    Stages,
    Tower,
    Windows,
)


def images(count: int = 4, height: int = 16, width: int = 16) -> Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(1))


def layout(module: nn.Module, layer: str | None, x: Tensor | None = None) -> Layout:
    return find_layout(module, layer, Arguments((images() if x is None else x,)))


def read(module: nn.Module, layer: str | None, x: Tensor) -> Tensor:
    with torch.no_grad():
        return capture(module.eval(), [layer], lambda _layer, output: output.clone(), x)[layer]


def outputs(module: nn.Module) -> list[str | None]:
    return [None, *(name for name, count, _ in call_order(module, images()) if count == 1)]


# One width a layer that no other axis has: batch 3, 16 or 17 tokens, maps of 8 and 4, 16 steps.
CHANNELS = {6, 10, 12, 20, 24, 40, 96, 160}

NETWORKS = {
    "clip": Tower,
    "clip with registers": partial(Tower, registers=4),
    "class token last": partial(Tower, registers=2, last=True),
    "class token joins late": Late,
    "class token carried on": Stages,
    "windows side by side": partial(Windows, strided=False),
    "windows apart": partial(Windows, strided=True),
    "channels last inside": ChannelsLast,
    "layer scale of zero": partial(ChannelsLast, scale=0.0),
    "mixer": Mixer,
    "lstm": Recurrent,
    "lstm, steps first": partial(Recurrent, batch_first=False),
    "gru, steps first": partial(Recurrent, nn.GRU, batch_first=False),
}
SPECIAL = {
    "clip": {17: (0,)},
    "clip with registers": {21: (0, 1, 2, 3, 4)},
    "class token last": {19: (16, 17, 18)},
    "class token joins late": {17: (0,)},
    "class token carried on": {17: (0,), 5: (0,)},
}
# Linear layers over tokens have their units on that axis, those over channels on the other, and
# nothing says which of the two is meant; where the next layer takes the output, that one says it.
REFUSED = {"mixer": {"tokens", "tokens.2"}}
SAID = {("mixer", "tokens.0"): 2, ("mixer", "tokens.1"): 2}  # by the linear layer behind them


@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer_gives_the_row_of_its_item_alone_or_is_refused(name):
    torch.manual_seed(0)
    net, x = NETWORKS[name](), images(3)
    before, state = digest(net), torch.get_rng_state()
    refused = set()
    for layer in outputs(net):
        found = layout(net, layer)
        together = read(net, layer, x)
        if found.channels is None:
            refused.add(layer)
            with pytest.raises(BackboneError, match="cannot be found"):
                pool(together, "avg", found)
            continue
        rows = pool(together, "avg", found)
        assert len(rows) == 3, layer
        for item in range(3):
            alone = read(net, layer, x[item : item + 1])
            if (axis := SAID.get((name, layer))) is None:
                (axis,) = (i for i, size in enumerate(alone.shape) if size in CHANNELS)
            positions = alone.movedim(axis, -1).reshape(-1, alone.shape[axis])
            special = SPECIAL.get(name, {}).get(len(positions), ())
            kept = [i for i in range(len(positions)) if i not in special]
            assert torch.allclose(rows[item], positions[kept].mean(0), atol=1e-5), layer
            if special:
                assert found.special == special
                token = positions[special[0]]
                assert torch.allclose(pool(together, "cls", found)[item], token, atol=1e-5)
    assert refused == REFUSED.get(name, set())
    assert digest(net) == before
    assert torch.equal(torch.get_rng_state(), state)


def test_the_usual_layouts():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
    assert [layout(net, name) for name in ("0", "1", "2", "3", None)] == [
        *(3 * [CHANNELS_FIRST]),
        *(2 * [ROWS]),
    ]
    assert layout(ChannelsLast(), "norm") == CHANNELS_LAST


@pytest.mark.parametrize("size", [(16, 16), (16, 24), (20, 12)])
def test_other_sizes_and_images_that_are_not_square(size):
    for layer in ("stem", "norm", "mlp", "branch", "tail"):
        found = layout(ChannelsLast(), layer, images(3, *size))
        assert found.channels == (3 if layer in {"norm", "mlp"} else 1)


def test_memory_that_lies_channels_last_changes_nothing():
    net = ChannelsLast().to(memory_format=torch.channels_last)
    x = images().contiguous(memory_format=torch.channels_last)
    assert layout(net, "stem", x) == CHANNELS_FIRST
    assert layout(net, "norm", x) == CHANNELS_LAST


class Squeezed(nn.Module):
    """Fails on one item, as code with a bare squeeze does."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 6, 16), nn.LayerNorm(6)
        self.wide = nn.Conv1d(6, 9, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x).squeeze())
        return self.wide(x[:, :, None].expand(-1, -1, 5))


def test_a_network_that_needs_more_than_one_item():
    assert layout(Squeezed(), None) == Layout(channels=1, positions=(2,))
    assert layout(Squeezed(), "norm") == ROWS


class Graded(nn.Module):
    """Runs without autograd, or in inference mode, whoever calls it."""

    def __init__(self, how) -> None:
        super().__init__()
        self.how, self.inner, self.out = how, ChannelsLast(), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        with self.how():
            return self.out(self.inner(x))


@pytest.mark.parametrize("how", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_whatever_the_network_does_with_autograd(how):
    assert layout(Graded(how), "inner.norm") == CHANNELS_LAST


def test_a_freeze_contract_does_not_notice():
    net = Tower()
    handle = freeze(net, FreezePolicy(autograd="inference"))
    net.train()
    modes = [part.training for part in net.modules()]
    assert layout(net, "blocks.0.mlp").batch == 1
    handle.verify()
    assert [part.training for part in net.modules()] == modes
    assert not any(part._forward_hooks for part in net.modules())


def test_tensors_that_cannot_be_written_are_not_written():
    with torch.inference_mode():
        net = ChannelsLast()
    versions = copy.deepcopy(net.state_dict())
    assert layout(net, "norm") == CHANNELS_LAST
    assert all(torch.equal(value, versions[name]) for name, value in net.state_dict().items())


class Odd(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.conv, self.out = kind, nn.Conv2d(3, 6, 4, 4), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        n, y = len(x), self.conv(x)
        made = {
            "mean of the batch": lambda: y.mean(0, keepdim=True),
            "similarity": lambda: y.flatten(1) @ y.flatten(1).T,
            "reversed": lambda: y.flip(0),
            "one more": lambda: torch.cat([y, y[:1]]),
            "shuffled windows": lambda: y.flatten(2).permute(2, 0, 1).reshape(16 * n, 6).roll(1, 0),
            "numbers": lambda: y.argmax(1),
            "heads": lambda: y.unflatten(1, (2, 3)),
            "attention": lambda: (y.flatten(2).transpose(1, 2) @ y.flatten(2)).softmax(-1),
            "one number": lambda: y.mean((1, 2, 3)),
        }
        self.out(made[self.kind]())
        return y


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("mean of the batch", "no axis grows in proportion with the number of items"),
        ("similarity", "several axes grow with the number of items"),
        ("reversed", "in a different order from the items"),
        ("one more", "no axis grows in proportion"),
        ("shuffled windows", "16 rows per item, and which of them belong together is not known"),
    ],
)
def test_what_gives_no_rows_of_items_is_refused(kind, why):
    with pytest.raises(BackboneError, match=f"layer 'out' of Odd.*{why}"):
        layout(Odd(kind), "out")


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("numbers", "its values are int64"),
        ("heads", "the channels of 'conv' lie on its axes 1 and 2"),
        ("attention", "no axis of it holds the channels"),
        ("one number", "one number per item"),
    ],
)
def test_what_has_no_axis_of_channels_is_refused_with_the_reason(kind, why):
    net = Odd(kind)
    found = layout(net, "out")
    with pytest.raises(BackboneError, match=f"cannot be found: .*{why}"):
        pool(read(net, "out", images(2)), "avg", found)
    assert len(pool(read(net, "out", images(2)), "none", found)) == 2


class Heads(nn.Module):
    """Keys of attention, of which the units lie on a grid of heads and widths."""

    def __init__(self, heads: int, width: int) -> None:
        super().__init__()
        self.heads, self.qkv = heads, nn.Linear(48, 3 * heads * width)
        self.q, self.k, self.v = nn.Identity(), nn.Identity(), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.qkv(x.permute(0, 2, 1, 3).flatten(2)).unflatten(2, (3, self.heads, -1))
        q, k, v = x.permute(2, 0, 3, 1, 4)
        return self.v(v) + self.k(k) + self.q(q)


@pytest.mark.parametrize("layer", ["q", "k", "v"])
@pytest.mark.parametrize(("heads", "width"), [(2, 3), (4, 24), (4, 16), (8, 8), (3, 32), (12, 5)])
def test_heads_are_not_taken_for_channels(layer, heads, width):
    found = layout(Heads(heads, width), layer)
    assert found.channels is None
    assert "lie on its axes 1 and 3" in found.reason


def test_a_text_keeps_all_its_tokens():
    class Text(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.norm = nn.Embedding(9, 6), nn.LayerNorm(6)

        def forward(self, ids: Tensor) -> Tensor:
            return self.norm(self.embed(ids)).mean(1)

    ids = torch.tensor([[1, 3, 4, 2], [1, 5, 6, 2], [1, 7, 8, 2]])
    assert layout(Text(), "norm", ids) == Layout(channels=2, positions=(1,))


def test_channels_where_a_unit_moves_at_some_positions_only():
    """Pixels that are not scaled saturate ReLU6, and a map of 3 × 3 has few positions."""

    class Saturated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(24)

        def forward(self, x: Tensor) -> Tensor:
            alive = torch.zeros(24, 3, 3)
            for unit in range(24):  # each unit is alive at one position, another one each
                alive[unit, unit % 3, unit // 3 % 3] = 1
            return self.norm(x) * alive

    torch.manual_seed(0)
    net = Saturated().eval()
    found = find_layout(net, None, Arguments((torch.rand(2, 24, 3, 3),)))
    assert (found.channels, found.positions) == (1, (2, 3))
