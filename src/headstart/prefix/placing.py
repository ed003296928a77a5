"""Where to cut: the minimum cut of bytes to read against time to recompute.

Every pure operation is either computed once an item and for all, before the boundary, or in every
epoch, behind it. What lies before needs all its inputs before. Of the values before the boundary,
those that an operation behind reads are stored, and reading one costs its bytes over the read
bandwidth; an operation behind costs its time. The cheapest division is a minimum cut (Ford and
Fulkerson 1956; the closure form of Picard 1976): each value is a pair of nodes joined by an arc
with the cost of reading it, so that it is paid once however often it is read.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, maximum_flow

_TOTAL = 2**29
_NEVER = 2**30
"""Capacities are 32-bit integers for scipy: all finite ones add up to at most ``_TOTAL``."""


def place(
    needs: Mapping[int, Collection[int]],
    behind: Mapping[int, Collection[int]],
    seconds: Mapping[int, float],
    reading: Mapping[int, float],
) -> frozenset[int]:
    """Choose the operations before the boundary.

    Args:
        needs: for every pure operation, the pure operations that must come before it.
        behind: for every pure operation, its consumers among the pure ones.
        seconds: for every pure operation, its time an item; infinite for what cannot be computed
            behind the boundary.
        reading: seconds to read an item's value; values that cannot be stored are left out. A
            value that an impure operation reads is marked in ``behind`` by -1.

    Returns:
        The operations before the boundary; of equally cheap divisions the largest.
    """
    nodes = list(seconds)
    number = {node: i for i, node in enumerate(nodes)}
    source, sink = 2 * len(nodes), 2 * len(nodes) + 1
    finite = sum(t for t in (*seconds.values(), *reading.values()) if math.isfinite(t))
    scale = _TOTAL / finite if finite > 0 else 1.0
    arcs: dict[tuple[int, int], int] = {}
    for node in nodes:
        value, stored = 2 * number[node], 2 * number[node] + 1
        # A time of nothing still prefers computing once: at least one unit.
        time = seconds[node]
        arcs[source, value] = max(1, int(time * scale)) if math.isfinite(time) else _NEVER
        cost = reading.get(node)
        arcs[value, stored] = _NEVER if cost is None else max(1, int(cost * scale))
        for other in needs[node]:
            arcs[value, 2 * number[other]] = _NEVER
        for other in behind[node]:
            arcs[stored, sink if other == -1 else 2 * number[other]] = _NEVER
    reached = _sink_side(arcs, source, sink)
    return frozenset(node for node in nodes if 2 * number[node] not in reached)


def _sink_side(arcs: Mapping[tuple[int, int], int], source: int, sink: int) -> frozenset[int]:
    """Return the nodes from which the sink can be reached once the flow is at its maximum."""
    rows = np.fromiter((a for a, _ in arcs), dtype=np.int32, count=len(arcs))
    columns = np.fromiter((b for _, b in arcs), dtype=np.int32, count=len(arcs))
    capacities = np.fromiter(arcs.values(), dtype=np.int32, count=len(arcs))
    size = sink + 1
    graph = csr_array((capacities, (rows, columns)), shape=(size, size))
    residual = csr_array(graph - maximum_flow(graph, source, sink).flow)
    # Against the arcs: from the sink along what could still carry flow towards it.
    backwards = csr_array((residual > 0).T)
    order = breadth_first_order(backwards, sink, return_predecessors=False)
    return frozenset(int(i) for i in order)


__all__ = ["place"]
