"""From a divided graph to its two parts: which operations each holds, and what it is given."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import fx

from headstart.prefix.boundary import TensorSpec
from headstart.prefix.effects import needs as all_needs
from headstart.prefix.parts import Prefix, Suffix
from headstart.prefix.tracing import Trace, UntraceableError


def build_prefix(trace: Trace, boundary: Sequence[fx.Node], before: frozenset[fx.Node]) -> Prefix:
    """Assemble the prefix: what the boundary needs, with in-place operations on it done."""
    builder = _Builder(trace)
    wanted = builder.closure(boundary, within=before)
    for node in trace.graph.nodes:
        if node.op == "placeholder":
            builder.placeholder(node, node.name)
    builder.copy(wanted)
    builder.graph.output(tuple(builder.copied[node] for node in boundary))
    return Prefix(trace, builder.graph)


def build_suffix(
    trace: Trace,
    boundary: Sequence[fx.Node],
    before: frozenset[fx.Node],
    specs: tuple[TensorSpec, ...],
) -> Suffix:
    """Assemble the suffix: everything behind the boundary that the output needs or that acts."""
    builder = _Builder(trace)
    for node, spec in zip(boundary, specs, strict=True):
        builder.placeholder(node, spec.name)
    behind = [n for n in trace.graph.nodes if n not in before and n not in trace.shapes]
    acting = [n for n in behind if n.op in {"call_module", "output"} or n in trace.mutates]
    wanted = builder.closure(acting, without=before)
    builder.copy(n for n in wanted if n.op != "output")
    output = next(n for n in trace.graph.nodes if n.op == "output")
    builder.graph.output(fx.node.map_arg(output.args[0], builder.argument))
    written = _written(trace, boundary, behind)
    return Suffix(trace, builder.graph, specs, written)


def _written(
    trace: Trace, boundary: Sequence[fx.Node], behind: Iterable[fx.Node]
) -> frozenset[str]:
    """Return the names of the boundary tensors that something behind the cut works on in place."""
    touched = {other for node in behind for other in trace.mutates.get(node, ())}
    return frozenset(
        node.name
        for node in boundary
        if any(
            other is node or node in trace.aliases[other] or other in trace.aliases[node]
            for other in touched
        )
    )


class _Builder:
    """Copies nodes of a trace into a new graph; shapes become constants or the batch size."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.graph = fx.Graph()
        self.copied: dict[fx.Node, fx.Node] = {}
        self.first: fx.Node | None = None
        self.needs = all_needs(trace)
        self.modes: list[str] = []

    def placeholder(self, node: fx.Node, name: str) -> None:
        self.copied[node] = self.graph.placeholder(name)
        self.first = self.first or self.copied[node]

    def closure(
        self,
        wanted: Sequence[fx.Node],
        *,
        within: frozenset[fx.Node] | None = None,
        without: frozenset[fx.Node] = frozenset(),
    ) -> list[fx.Node]:
        """Return all that these nodes need, in order.

        Args:
            wanted: the nodes.
            within: where given, whatever of it writes into the memory of a needed node is needed.
            without: what is computed elsewhere; only the order of writing asks for it.
        """
        found: set[fx.Node] = set()
        queue = list(wanted)
        while queue:
            node = queue.pop()
            if node in found or node in self.copied or node in self.trace.shapes:
                continue
            found.add(node)
            queue += [other for other in self.needs[node] if other not in without]
            if within is not None:
                queue += [writer for writer in self._writers(node) if writer in within]
        return [node for node in self.trace.graph.nodes if node in found]

    def _writers(self, node: fx.Node) -> list[fx.Node]:
        touched = self.trace.aliases.get(node, ())
        return [
            w
            for w, seen in self.trace.mutates.items()
            if node in seen or any(t in seen for t in touched)
        ]

    def copy(self, nodes: Iterable[fx.Node]) -> None:
        for node in nodes:
            if node in self.copied:
                continue
            if node in self.trace.modes:
                name = self.trace.modes[node]
                if name not in self.modes:
                    self.modes.append(name)
                target = f"_modes.{self.modes.index(name)}.training"
                self.copied[node] = self.graph.create_node("get_attr", target)
            else:
                self.copied[node] = self.graph.node_copy(node, self.argument)
        self.graph._headstart_modes = tuple(self.modes)  # type: ignore[attr-defined]

    def argument(self, node: fx.Node) -> Any:
        """Return what stands for a node in the new graph."""
        if node not in self.trace.shapes:
            return self.copied[node]
        two, three = self.trace.values[node]
        if two == three:
            return two
        if type(two) is not int or type(three) is not int:
            raise UntraceableError(f"a {type(two).__name__} depends on the batch size")
        factor, offset = three - two, two - 2 * (three - two)
        assert self.first is not None
        size = self.graph.call_method("size", (self.first, 0))
        if factor != 1:
            size = self.graph.call_function(_times, (size, factor))
        return self.graph.call_function(_plus, (size, offset)) if offset else size


def _times(size: int, factor: int) -> int:
    return size * factor


def _plus(size: int, offset: int) -> int:
    return size + offset


__all__ = ["build_prefix", "build_suffix"]
