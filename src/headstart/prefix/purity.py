"""Which operations of a graph may be computed once: by what they read, and by trying them.

An operation is pure if all it reads is pure or frozen and if running it in the mode of training
draws no random numbers, changes nothing that persists, gives an item the same row whatever the
other items of the batch are, and gives the same as in evaluation mode. The last four are measured
on probe batches, operation by operation, so that layers of any library are judged by what they do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from headstart.core.devices import generators
from headstart.modules import kinds
from headstart.modules.modes import evaluate, untouched
from headstart.prefix.comparing import Watch, same, same_first_row, tensors_in
from headstart.prefix.graph import Trace, needs
from headstart.prefix.terms import Terms


@dataclass(frozen=True, eq=False)
class Purity:
    """What :func:`examine` found.

    Attributes:
        pure: operations that may be computed once an item, inputs included.
        varying: those of them that depend on the inputs; the others are constants.
        blockers: where purity ends first, and why; one sentence each.
    """

    pure: frozenset[fx.Node]
    varying: frozenset[fx.Node]
    blockers: tuple[str, ...]


def examine(trace: Trace, terms: Terms, batches: tuple[list[Tensor], list[Tensor]]) -> Purity:
    """Find the pure operations of a graph.

    Args:
        trace: the graph.
        terms: what does not move, and the modes of training.
        batches: two probe batches of the same size that share their first item only.
    """
    model, tensors = trace.model, iter(zip(*batches, strict=True))
    with untouched(model):
        examiner = _Examiner(trace, terms)
        for node in trace.graph.nodes:
            if node.op == "placeholder":
                first, second = next(tensors)
                # Each run gets its own memory: the operations behind may work in place.
                examiner.values[node] = (first.clone(), second.clone(), first.clone())
                examiner.varying.add(node)
            elif node.op != "output" and node not in trace.shapes:
                examiner.take(node)
    return Purity(
        frozenset(examiner.values),
        frozenset(examiner.varying),
        tuple(examiner.blockers),
    )


class _Examiner:
    """Walks the graph in order; ``values`` holds each pure node's results of three runs.

    The runs: the first batch in training mode, the second batch in training mode, the first batch
    in evaluation mode.
    """

    def __init__(self, trace: Trace, terms: Terms) -> None:
        self.trace, self.terms = trace, terms
        self.needs = needs(trace)
        self.values: dict[fx.Node, tuple[Any, Any, Any]] = {}
        self.varying: set[fx.Node] = set()
        self.blockers: list[str] = []
        self.training: dict[int, bool] = {}
        terms.train(trace.model)
        for part in trace.model.modules():
            self.training[id(part)] = part.training
        evaluate(trace.model)

    def take(self, node: fx.Node) -> None:
        reads = [n for n in node.all_input_nodes if n not in self.trace.shapes]
        if any(n not in self.values for n in self.needs[node]):
            if node.op != "get_attr" and any(n in self.varying for n in reads):
                self._explain_reads(node, reads)
            return
        reason = self._static_reason(node)
        results = None
        if reason is None:
            reason, results = self._try(node)
        if reason is not None or results is None:
            if node.op != "get_attr" and (any(n in self.varying for n in reads) or not reads):
                self.blockers.append(f"{label(node)} {reason}")
            return
        self.values[node] = results
        if any(n in self.varying for n in reads):
            self.varying.add(node)

    def _explain_reads(self, node: fx.Node, reads: list[fx.Node]) -> None:
        """Name what moves where an operation on pure values reads a parameter or a mode."""
        moving = [n for n in reads if n not in self.values]
        if not moving or any(n.op != "get_attr" for n in moving):
            return
        modes = [self.trace.modes[n] or "the model" for n in moving if n in self.trace.modes]
        if modes:
            self.blockers.append(f"{label(node)} follows the mode of {modes[0]!r}")
        else:
            names = ", ".join(repr(str(n.target)) for n in moving)
            self.blockers.append(f"{label(node)} reads {names}, which moves")

    def _static_reason(self, node: fx.Node) -> str | None:
        """Return why a node cannot be pure, as far as is known before running it."""
        if node in self.trace.modes:
            held = not self.training[id(self.trace.model.get_submodule(self.trace.modes[node]))]
            return None if held else "follows the mode of a module"
        if node.op == "get_attr":
            value = self.trace.attribute(str(node.target))
            if isinstance(value, nn.Module):
                return "is a module used as a value"
            constant = node.target in self.trace.constants
            return None if constant or id(value) in self.terms.frozen else "moves"
        if any(other.op == "get_attr" for other in self.trace.mutates.get(node, ())):
            return "changes a buffer in place"
        if node.op == "call_module":
            module = self.trace.model.get_submodule(str(node.target))
            moving = self.terms.moving([*module.parameters(), *module.buffers()])
            if moving:
                return f"is not frozen ({_some(moving)}){self._undivided(module)}"
        return None

    def _undivided(self, module: nn.Module) -> str:
        """Say why frozen parts of a module that trains are not found."""
        parts = ([*part.parameters(), *part.buffers()] for part in list(module.modules())[1:])
        if not any(own and not self.terms.moving(own) for own in parts):
            return ""
        why = self.trace.whole.get(type(module).__qualname__)
        return f", and is one operation: {why}" if why else ""

    def _try(self, node: fx.Node) -> tuple[str | None, tuple[Any, Any, Any] | None]:
        """Run a node three times and compare."""
        module = None
        if node.op == "call_module":
            module = self.trace.model.get_submodule(str(node.target))
        own = Watch(module)
        state = _generators(self.values_of(node, 0))
        first = self._run(node, 0, module)
        if _differ(state, _generators(self.values_of(node, 0))):
            return f"draws random numbers in training mode{_source_of_randomness(module)}", None
        second = self._run(node, 1, module)
        if own.changed:
            return "updates its buffers in training mode", None
        third = self._run(node, 2, module)
        if not same_first_row(first, second, *self.trace.values[node]):
            return (
                f"makes an item's row depend on the other items of its batch{_norm(module)}",
                None,
            )
        if not same(first, third):
            return "gives other values in training than in evaluation mode", None
        return None, (first, second, third)

    def values_of(self, node: fx.Node, which: int) -> list[Tensor]:
        return [
            tensor
            for other in node.all_input_nodes
            if other in self.values
            for tensor in tensors_in(self.values[other][which])
        ]

    def _run(self, node: fx.Node, which: int, module: nn.Module | None) -> Any:
        def value_of(other: fx.Node) -> Any:
            if other in self.trace.shapes:
                return self.trace.values[other][0]
            return self.values[other][which]

        if node in self.trace.modes:
            return False
        parts = [] if module is None or which == 2 else list(module.modules())
        for part in parts:
            part.training = self.training[id(part)]
        try:
            return self.trace.run(node, value_of)
        finally:
            for part in parts:
                part.training = False


def label(node: fx.Node) -> str:
    """Name a node as a person knows it."""
    if node.op == "call_module":
        return f"{node.target!r}"
    kind = getattr(node.target, "__name__", str(node.target))
    stack = node.meta.get("nn_module_stack") or {}
    owners = [entry[0] for entry in stack.values()]
    return f"{kind} in {owners[-1]!r}" if owners else f"{kind} in the model's forward"


def _some(names: list[str]) -> str:
    return ", ".join(map(repr, names[:2])) + (", …" if len(names) > 2 else "")


def _generators(tensors: list[Tensor]) -> list[Tensor]:
    devices = sorted({t.device for t in tensors}, key=str)
    return [generator.get_state() for generator in generators(devices)]


def _differ(left: list[Tensor], right: list[Tensor]) -> bool:
    return any(not torch.equal(a, b) for a, b in zip(left, right, strict=False))


def _source_of_randomness(module: nn.Module | None) -> str:
    sources = [] if module is None else [s for m in module.modules() if (s := kinds.randomness(m))]
    return f" ({sources[0]})" if sources else ""


def _norm(module: nn.Module | None) -> str:
    running = module is not None and any(kinds.is_running_norm(m) for m in module.modules())
    return " (batch statistics)" if running else ""


__all__ = ["Purity", "examine", "label"]
