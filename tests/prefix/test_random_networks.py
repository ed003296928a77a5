"""Random networks of branches, in-place work and chance, under random contracts."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from headstart.freezing import freeze
from headstart.prefix import Cut, NoCut, find_cut
from tests.prefix.models import twin

WIDTH = 4
LAYERS: dict[str, Any] = {
    "linear": lambda: nn.Linear(WIDTH, WIDTH),
    "norm": lambda: nn.BatchNorm1d(WIDTH),
    "layer norm": lambda: nn.LayerNorm(WIDTH),
    "relu": lambda: nn.ReLU(),
    "relu in place": lambda: nn.ReLU(inplace=True),
    "dropout": lambda: nn.Dropout(0.4),
    "dropout in place": lambda: nn.Dropout(0.4, inplace=True),
}
JOINS = ["add", "add in place", "multiply", "view and shift", "assign", "chunk"]
STATES = ["frozen", "trainable", "trainable-fixed-norm", "requires-grad-only"]


class Random(nn.Module):
    """Every step reads one earlier value, or joins two of them."""

    def __init__(self, steps: list[tuple[str, int, int]]) -> None:
        super().__init__()
        self.steps = steps
        self.layers = nn.ModuleDict(
            {str(i): LAYERS[kind]() for i, (kind, _, _) in enumerate(steps) if kind in LAYERS}
        )
        self.first = nn.Linear(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        values = [self.first(x)]
        for i, (kind, one, two) in enumerate(self.steps):
            left, right = values[one % len(values)], values[two % len(values)]
            if kind in LAYERS:
                out = self.layers[str(i)](left)
            elif kind == "add":
                out = left + right
            elif kind == "add in place":
                out = left.add_(right)
            elif kind == "multiply":
                out = left * right
            elif kind == "view and shift":
                left.view(-1, 2, WIDTH // 2)[:, 0].add_(0.5)
                out = left
            elif kind == "assign":
                left[:, : WIDTH // 2] = right[:, WIDTH // 2 :]
                out = left
            else:
                first, second = right.chunk(2, 1)
                out = torch.cat([second, first], 1)
            values.append(out)
        return self.head(values[-1]), values[len(values) // 2]


STEP = st.tuples(st.sampled_from([*LAYERS, *JOINS, "linear"]), st.integers(0, 9), st.integers(0, 9))


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.tuples(STEP, st.sampled_from(STATES)), min_size=2, max_size=9))
def test_every_cut_holds(drawn: list[tuple[tuple[str, int, int], str]]) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Random([step for step, _ in drawn])
        x = torch.randn(5, WIDTH)
    states = {"": "trainable", "first": "frozen"}
    states |= {f"layers.{i}": s for i, (_, s) in enumerate(drawn) if str(i) in model.layers}
    handle = freeze(model, states)
    ordinary = twin(model)
    found = find_cut(model, x, handle, measure=False, read_bandwidth=1e12)
    if isinstance(found, NoCut):
        assert "does not hold" not in found.reason, found
        return
    assert isinstance(found, Cut)
    other = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(1))
    rows = [row.clone() for row in found.prefix(other)]
    with torch.random.fork_rng(devices=[]):
        for mode in (True, False):
            torch.manual_seed(2)
            expected = ordinary.train(mode)(other)
            model.train(mode)
            torch.manual_seed(2)
            values = found.suffix(*rows)
            for left, right in zip(values, expected, strict=True):
                assert torch.allclose(left, right, rtol=1e-5, atol=1e-6)
    after, before = model.state_dict(), ordinary.state_dict()
    assert all(torch.allclose(after[name], before[name]) for name in before)
