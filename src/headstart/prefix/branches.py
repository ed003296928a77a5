"""Branches of a model's code on its mode: which of them lead to other operations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import fx, nn
from torch.utils import _pytree as pytree

from headstart.modules.forward import recorded_by
from headstart.modules.modes import evaluate, untouched
from headstart.prefix.graph import UntraceableError
from headstart.prefix.patches import watched


def record(tracer: Any) -> None:
    """Record a model in evaluation mode, and leave it as it was.

    Args:
        tracer: of :mod:`headstart.prefix.tracing`.

    Raises:
        UntraceableError: the code keeps on a module what it computes; and whatever it raises.
    """
    model = tracer.found.model
    with untouched(model), watched(tracer), recorded_by(tracer):
        evaluate(model)
        before = {name: dict(vars(part)) for name, part in model.named_modules()}
        tracer.trace(model)
        _refuse_kept(model, before)


def branching_classes(tracer: Any, recorder: Callable[[frozenset[type]], Any]) -> frozenset[type]:
    """Return the classes that record other operations in training mode than in evaluation mode.

    Args:
        tracer: has recorded, in evaluation mode, and knows which classes branch on the mode.
        recorder: makes another one, for which some classes are in training mode.
    """
    expected = _recorded(tracer)

    def same(kinds: frozenset[type]) -> bool:
        other = recorder(kinds)
        try:
            record(other)
        except Exception:  # what training mode runs cannot be recorded
            return False
        return _recorded(other) == expected

    kinds = frozenset(tracer.branched)
    if not kinds or same(kinds):
        return frozenset()
    one = frozenset(kind for kind in kinds if len(kinds) == 1 or not same(frozenset({kind})))
    return one or kinds


def _recorded(tracer: Any) -> list[Any]:
    """Return what was recorded, to be compared: operations, constants, the form of the output."""
    found = tracer.found
    constants = [(name, tensor.tolist()) for name, tensor in sorted(found.constants.items())]
    nodes = [node.format_node() for node in tracer.graph.nodes]
    return [*nodes, *constants, str(found.output_form)]


def _refuse_kept(model: nn.Module, before: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse code that leaves results or counts on a module: a graph would not do so."""
    for name, part in model.named_modules():
        for key, value in vars(part).items():
            leaves = pytree.tree_leaves(value)
            number = isinstance(value, int | float) and before[name].get(key, value) != value
            if key != "training" and (number or any(isinstance(v, fx.Proxy) for v in leaves)):
                where = f"{name}.{key}" if name else key
                raise UntraceableError(f"the code keeps what it computes in '{where}'")


def holds_a_list(module: nn.Module) -> bool:
    """Return whether a module holds a list of others: kept whole, it would take all along."""
    return any(isinstance(part, nn.ModuleList) for part in module.children())


__all__ = ["branching_classes", "holds_a_list", "record"]
