"""Poolings: their arithmetic by layout, with and without a mask, traced and compiled."""

from __future__ import annotations

import pytest
import torch
from torch import fx

from headstart.core.errors import BackboneError
from headstart.modules.layout import (
    CHANNELS_FIRST,
    CHANNELS_LAST,
    ROWS,
    Layout,
    tokens,
)
from headstart.modules.pooling import pool, pooling_kinds


def test_pooling_of_tokens_leaves_the_prefix_out():
    x = torch.randn(2, 5, 7)
    assert torch.equal(pool(x, "cls", tokens(1)), x[:, 0])
    assert torch.allclose(pool(x, "avg", tokens(1)), x[:, 1:].mean(1))
    assert torch.equal(pool(x, "none", tokens(1)), x)


@pytest.mark.parametrize("pooling", ["avg", "gem"])
def test_every_layout_gives_the_same_rows(pooling):
    maps = torch.rand(2, 6, 3, 4)
    expected = maps.mean((2, 3)) if pooling == "avg" else maps.pow(3).mean((2, 3)).pow(1 / 3)
    for order, layout in (
        ((0, 1, 2, 3), CHANNELS_FIRST),
        ((0, 2, 3, 1), CHANNELS_LAST),
        ((2, 0, 3, 1), Layout(batch=1, channels=3, positions=(0, 2))),
    ):
        assert torch.allclose(pool(maps.permute(order), pooling, layout), expected, atol=1e-5)
    sequence = maps.flatten(2).permute(2, 0, 1)  # (tokens, batch, channels)
    layout = Layout(batch=1, channels=2, positions=(0,))
    assert torch.allclose(pool(sequence, pooling, layout), expected, atol=1e-5)
    assert torch.equal(pool(maps[:, :, 0, 0], pooling, ROWS), maps[:, :, 0, 0])


@pytest.mark.parametrize("strided", [False, True])
def test_several_rows_of_an_item_become_one(strided):
    windows = torch.rand(3, 4, 6, 7)  # items, windows, tokens, channels
    stacked = (windows.transpose(0, 1) if strided else windows).reshape(12, 6, 7)
    layout = Layout(channels=2, positions=(1,), rows=4, strided=strided)
    assert torch.allclose(pool(stacked, "avg", layout), windows.mean((1, 2)), atol=1e-6)
    assert torch.equal(pool(stacked, "none", layout), windows)
    rows = Layout(channels=1, rows=4, strided=strided)
    assert torch.allclose(pool(stacked[:, 0], "avg", rows), windows[:, :, 0].mean(1), atol=1e-6)


def test_special_tokens_are_left_out_wherever_they_stand():
    x = torch.rand(2, 6, 3)
    layout = Layout(channels=2, positions=(1,), special=(0, 5), class_token=0)
    assert torch.allclose(pool(x, "avg", layout), x[:, 1:5].mean(1), atol=1e-6)
    assert torch.equal(pool(x, "cls", layout), x[:, 0])
    mask = torch.arange(6) < torch.tensor([[6], [3]])
    masked = pool(x, "avg", layout, mask)
    assert torch.allclose(masked[1], x[1, 1:3].mean(0), atol=1e-6)


@pytest.mark.parametrize("pooling", ["avg", "gem"])
def test_masked_positions_do_not_count(pooling):
    x = torch.rand(3, 6, 4)
    mask = torch.arange(6) < torch.tensor([[6], [4], [2]])
    together = pool(x, pooling, tokens(1), mask)
    for row, count in enumerate((6, 4, 2)):
        alone = pool(x[row : row + 1, :count], pooling, tokens(1))
        assert torch.allclose(together[row : row + 1], alone, atol=1e-6)


def test_what_does_not_fit_is_refused_with_a_parameter_to_change():
    with pytest.raises(BackboneError, match=r"class token.*pooling='avg'"):
        pool(torch.rand(2, 3, 4), "cls", tokens(0))
    with pytest.raises(BackboneError, match=r"cannot be found: it has none.*pooling='none'"):
        pool(torch.rand(2, 3, 4, 5, 6), "avg", Layout(reason="it has none"))
    with pytest.raises(BackboneError, match="one of avg, cls, last, gem, none"):
        pool(torch.rand(2, 3), "median", ROWS)


@pytest.mark.parametrize("pooling", [kind.name for kind in pooling_kinds()])
def test_poolings_can_be_traced(pooling):
    x = torch.rand(2, 5, 4)
    traced = fx.symbolic_trace(lambda output: pool(output, pooling, tokens(1)))
    assert torch.equal(traced(x), pool(x, pooling, tokens(1)))
