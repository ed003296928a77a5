"""The pure operations of a graph, divided: which lie before the boundary, and what is stored."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, fx

from headstart.core.errors import BackboneError
from headstart.prefix.boundary import Dtype, TensorSpec, specify
from headstart.prefix.graph import Trace, UntraceableError, needs, overwritten_aliases
from headstart.prefix.parts import build_prefix, build_suffix
from headstart.prefix.placing import place
from headstart.prefix.purity import Purity
from headstart.prefix.result import Placed

_OUTSIDE = -1
"""The number of whatever is not divided and reads a value: it is always behind the boundary."""


@dataclass(frozen=True, eq=False)
class Division:
    """One way to divide.

    Attributes:
        before: operations that are computed once an item.
        boundary: those of them whose values are stored.
        specs: what is stored, in the same order.
    """

    before: frozenset[fx.Node]
    boundary: tuple[fx.Node, ...]
    specs: tuple[TensorSpec, ...]

    @property
    def bytes_per_item(self) -> int:
        """What one item takes."""
        return sum(spec.bytes for spec in self.specs)

    @property
    def computes(self) -> bool:
        """Whether anything but the inputs themselves is stored."""
        return any(node.op != "placeholder" for node in self.boundary)


class Divider:
    """Divides one graph in different ways.

    Args:
        graph: the graph.
        purity: which of its operations may be computed once.
        dtype: in which floating values are stored.
    """

    def __init__(self, graph: Trace, purity: Purity, dtype: Dtype) -> None:
        self.graph, self.purity = graph, purity
        self.order = {node: number for number, node in enumerate(graph.graph.nodes)}
        self.nodes = sorted(purity.varying, key=self.order.__getitem__)
        every = needs(graph)
        self.needs = {
            node: tuple(n for n in every[node] if n in purity.varying) for node in self.nodes
        }
        aliases = overwritten_aliases(graph)
        self.specs = {
            node: spec
            for node in self.nodes
            if node not in aliases and (spec := _spec(graph, node, dtype)) is not None
        }
        self.users: dict[fx.Node, set[fx.Node]] = {node: set() for node in self.nodes}
        for node in graph.graph.nodes:
            for other in node.all_input_nodes:
                if node not in graph.shapes and other in purity.varying:
                    self.users[other].add(node)

    def cheapest(self, seconds: Mapping[fx.Node, float], bandwidth: float) -> Division:
        """Return where recomputing and reading take the least time together."""
        found = self._divide(frozenset(self.nodes), frozenset(), seconds, bandwidth)
        assert found is not None
        return found

    def behind(
        self, part: frozenset[fx.Node], whole: frozenset[fx.Node], bandwidth: float
    ) -> Division | None:
        """Return where the fewest bytes are stored behind a part of the graph.

        Args:
            part: nothing else is computed once; closed under what its operations need.
            whole: those of the part that are computed once in any case.
            bandwidth: only sets the scale.

        Returns:
            None where a value would have to be stored that cannot be.
        """
        stuck = (node for node in whole if node not in self.specs)
        if any(not self.users[node] <= part for node in stuck):
            return None
        return self._divide(part, whole, {}, bandwidth)

    def _divide(
        self,
        part: frozenset[fx.Node],
        whole: frozenset[fx.Node],
        seconds: Mapping[fx.Node, float],
        bandwidth: float,
    ) -> Division | None:
        nodes = [node for node in self.nodes if node in part]
        number = self.order

        def time(node: fx.Node) -> float:
            """Return the time behind the boundary; inputs cannot be computed there."""
            held = node.op == "placeholder" or node in whole
            return math.inf if held else seconds.get(node, 0.0)

        chosen = place(
            {number[n]: [number[o] for o in self.needs[n]] for n in nodes},
            {
                number[n]: {number[u] if u in part else _OUTSIDE for u in self.users[n]}
                for n in nodes
            },
            {number[n]: time(n) for n in nodes},
            {number[n]: self.specs[n].bytes / bandwidth for n in nodes if n in self.specs},
        )
        before = frozenset(node for node in nodes if number[node] in chosen)
        boundary = tuple(n for n in nodes if n in before and not self.users[n] <= before)
        if any(node not in self.specs for node in boundary):
            return None
        return Division(before, boundary, tuple(self.specs[node] for node in boundary))

    def assemble(
        self, division: Division, seconds: Mapping[fx.Node, float], bandwidth: float
    ) -> Placed:
        """Build prefix and suffix of a division.

        Raises:
            UntraceableError: a part cannot be built for every batch size, or not be described.
        """
        graph, purity = self.graph, self.purity
        before, boundary = division.before, list(division.boundary)
        prefix = build_prefix(graph, boundary, before | (purity.pure - purity.varying))
        suffix = build_suffix(graph, boundary, before, division.specs)
        try:
            prefix.describe_code()
        except BackboneError as error:
            raise UntraceableError(f"stored rows would have no key: {error}") from error
        costs = (*split_seconds(division, seconds), division.bytes_per_item / bandwidth)
        return Placed(prefix, suffix, division.specs, costs, purity.blockers)


def split_seconds(division: Division, seconds: Mapping[fx.Node, float]) -> tuple[float, float]:
    """Return the time of the operations before the boundary, and of the pure ones behind it."""
    before = sum(cost for node, cost in seconds.items() if node in division.before)
    return before, sum(cost for node, cost in seconds.items() if node not in division.before)


def _spec(graph: Trace, node: fx.Node, dtype: Dtype) -> TensorSpec | None:
    """Describe the value of a node as a boundary tensor; None where it cannot be stored."""
    two, three = graph.values[node]
    if not isinstance(two, Tensor) or not two.ndim or two.shape[1:] != three.shape[1:]:
        return None
    return specify(node.name, two, 2, dtype) if len(three) == 3 else None


__all__ = ["Divider", "Division", "split_seconds"]
