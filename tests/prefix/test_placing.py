"""The minimum cut against all divisions of small graphs."""

from __future__ import annotations

import itertools
import math

from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.prefix.placing import place


def cost(
    before: frozenset[int],
    needs: dict[int, list[int]],
    behind: dict[int, set[int]],
    seconds: dict[int, float],
    reading: dict[int, float],
) -> float:
    if any(other not in before for node in before for other in needs[node]):
        return math.inf
    total = sum(seconds[node] for node in seconds if node not in before)
    for node in before:
        if any(user not in before for user in behind[node]):
            total += reading.get(node, math.inf)
    return total


@st.composite
def graphs(draw: st.DrawFn) -> tuple[dict, dict, dict, dict]:
    count = draw(st.integers(1, 7))
    needs = {
        node: draw(st.lists(st.integers(0, node - 1), unique=True, max_size=2)) if node else []
        for node in range(count)
    }
    behind: dict[int, set[int]] = {node: set() for node in range(count)}
    for node, others in needs.items():
        for other in others:
            behind[other].add(node)
    for node in draw(st.lists(st.integers(0, count - 1), unique=True)):
        behind[node].add(-1)
    behind[count - 1].add(-1)
    seconds = {node: float(draw(st.integers(0, 9))) for node in range(count)}
    seconds[0] = math.inf if draw(st.booleans()) else seconds[0]
    stored = draw(st.sets(st.integers(0, count - 1)))
    reading = {node: float(draw(st.integers(1, 9))) for node in stored | {0}}
    return needs, behind, seconds, reading


@settings(max_examples=150, deadline=None)
@given(graphs())
def test_no_division_is_cheaper(graph: tuple[dict, dict, dict, dict]) -> None:
    needs, behind, seconds, reading = graph
    divisions = [
        frozenset(nodes)
        for size in range(len(seconds) + 1)
        for nodes in itertools.combinations(seconds, size)
    ]
    best = min(cost(d, needs, behind, seconds, reading) for d in divisions)
    found = place(needs, behind, seconds, reading)
    if math.isfinite(best):
        assert cost(found, needs, behind, seconds, reading) <= best + 1e-6


def test_of_equal_costs_the_largest_part_is_computed_once() -> None:
    needs = {0: [], 1: [0], 2: [1]}
    behind = {0: {1}, 1: {2}, 2: {-1}}
    assert place(needs, behind, {0: math.inf, 1: 0.0, 2: 0.0}, dict.fromkeys(range(3), 1.0)) == {
        0,
        1,
        2,
    }
    narrow = {0: 9.0, 1: 1.0, 2: 5.0}
    assert place(needs, behind, {0: math.inf, 1: 2.0, 2: 1.0}, narrow) == {0, 1}
