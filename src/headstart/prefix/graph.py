"""A model as a graph of operations, and what must come before what in it.

The order is that of data flow and of in-place operations: one that writes into memory it shares
with others must run after everything that reads the old content, and before everything that reads
the new one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from headstart.prefix.call_form import CallForm


class UntraceableError(Exception):
    """A model cannot be recorded, or its graph not be divided; users see it as a :class:`NoCut`."""


@dataclass(eq=False)
class Trace:
    """A model as a graph.

    Attributes:
        model: the model.
        form: how the model is called; one placeholder a tensor.
        graph: its operations, in the order in which they ran.
        values: the results of every node for the two probe batches; emptied of tensors by
            :meth:`forget`.
        shapes: non-tensor nodes that follow from the batch size alone.
        modes: nodes that read ``module.training``, with the module's name.
        mutates: nodes that change a tensor in place, with the nodes that alias it before them.
        aliases: for every node, the earlier nodes whose memory its value shares.
        output_form: the structure of the model's output, whose leaves the graph returns.
        constants: tensors that are neither parameters nor buffers, by the name in the graph.
        whole: names of classes that were kept whole because they cannot be recorded, and why.
    """

    model: nn.Module
    form: CallForm
    graph: fx.Graph
    values: dict[fx.Node, tuple[Any, Any]] = field(default_factory=dict)
    shapes: set[fx.Node] = field(default_factory=set)
    modes: dict[fx.Node, str] = field(default_factory=dict)
    mutates: dict[fx.Node, tuple[fx.Node, ...]] = field(default_factory=dict)
    aliases: dict[fx.Node, tuple[fx.Node, ...]] = field(default_factory=dict)
    output_form: pytree.TreeSpec | None = None
    constants: dict[str, Tensor] = field(default_factory=dict)
    whole: dict[str, str] = field(default_factory=dict)

    def attribute(self, target: str) -> Any:
        """Return the parameter, buffer, module or constant that a ``get_attr`` node names."""
        if target in self.constants:
            return self.constants[target]
        owner, _, name = target.rpartition(".")
        return getattr(self.model.get_submodule(owner), name)

    def run(self, node: fx.Node, value_of: Callable[[fx.Node], Any]) -> Any:
        """Run one node, except placeholders and the output."""
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), value_of)
        if node.op == "get_attr":
            return self.attribute(str(node.target))
        if node.op == "call_module":
            return self.model.get_submodule(str(node.target))(*args, **kwargs)
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        assert callable(node.target)
        return node.target(*args, **kwargs)

    def forget(self) -> None:
        """Drop the tensors of the probe, keeping their shapes (as tensors without memory)."""
        for node, pair in self.values.items():
            self.values[node] = pytree.tree_map_only(Tensor, _outline, pair)


def _outline(value: Tensor) -> Tensor:
    try:
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
    except RuntimeError:  # sparse and other layouts without strides
        return torch.empty(value.shape, dtype=value.dtype, device="meta")


def needs(trace: Trace) -> dict[fx.Node, tuple[fx.Node, ...]]:
    """Return for every node the nodes that must be on its side of a cut or before it.

    Nodes that are shapes are left out: they are known without running anything.
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

    Stored apart from it, they would not see what is written; they are computed anew behind the cut.
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


__all__ = ["Trace", "UntraceableError", "needs", "overwritten_aliases"]
