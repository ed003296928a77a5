"""What must come before what: data flow, and the order that in-place operations impose.

An operation that writes into memory it shares with others must run after everything that reads
the old content, and before everything that reads the new one.
"""

from __future__ import annotations

from torch import fx

from headstart.prefix.tracing import Trace


def needs(trace: Trace) -> dict[fx.Node, tuple[fx.Node, ...]]:
    """Return for every node the nodes that must be on its side of a cut or before it.

    Nodes that stand for shapes are left out: they are known without running anything.
    """
    group = _memory_groups(trace)
    readers: dict[int, list[fx.Node]] = {}
    writers: dict[int, list[fx.Node]] = {}
    found: dict[fx.Node, tuple[fx.Node, ...]] = {}
    for node in trace.graph.nodes:
        if node in trace.shapes:
            continue
        reads = [other for other in node.all_input_nodes if other not in trace.shapes]
        before = list(reads)
        for other in reads:
            before += writers.get(group[other], [])
        written = {group[other] for other in trace.mutates.get(node, ())}
        for memory in written:
            before += readers.get(memory, []) + writers.get(memory, [])
            writers.setdefault(memory, []).append(node)
        for other in reads:
            readers.setdefault(group[other], []).append(node)
        found[node] = tuple(dict.fromkeys(other for other in before if other is not node))
    return found


def overwritten_aliases(trace: Trace) -> frozenset[fx.Node]:
    """Return the nodes that share another's memory which is written to after them.

    Stored apart from it, they would not see what is written; they are taken anew behind the cut.
    """
    group = _memory_groups(trace)
    last: dict[int, fx.Node] = {}
    for writer, touched in trace.mutates.items():
        last.update({group[other]: writer for other in touched})
    order = {node: number for number, node in enumerate(trace.graph.nodes)}
    return frozenset(
        node
        for node, others in trace.aliases.items()
        if others and group[node] in last and order[last[group[node]]] > order[node]
    )


def _memory_groups(trace: Trace) -> dict[fx.Node, int]:
    """Number the nodes so that those that share memory, directly or not, share a number."""
    parent: dict[fx.Node, fx.Node] = {}

    def root(node: fx.Node) -> fx.Node:
        while parent.setdefault(node, node) is not node:
            node = parent[node]
        return node

    for node, others in trace.aliases.items():
        for other in others:
            parent[root(other)] = root(node)
    numbers: dict[fx.Node, int] = {}
    return {node: numbers.setdefault(root(node), len(numbers)) for node in trace.graph.nodes}


__all__ = ["needs", "overwritten_aliases"]
