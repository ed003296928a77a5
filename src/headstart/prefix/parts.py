"""Prefix and suffix as modules that share the parameters, buffers and submodules of the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from headstart.core.errors import ConfigError
from headstart.freezing.hold import hold_of
from headstart.prefix.boundary import TensorSpec, laid_out
from headstart.prefix.identity import describe_graph
from headstart.prefix.inputs import Inputs
from headstart.prefix.tracing import Trace


class Mode(nn.Module):
    """Stands for the mode of a module whose own code is part of the graph.

    Reads are those of the module; ``train`` and ``eval`` of the part reach the module too, as far
    as no freeze contract holds it in evaluation mode.
    """

    def __init__(self, module: nn.Module) -> None:
        self.__dict__["_of"] = _Reference(module)
        super().__init__()

    @property
    def training(self) -> bool:
        """The mode of the module."""
        return bool(self.__dict__["_of"].module.training)

    @training.setter
    def training(self, mode: bool) -> None:
        # The first write is that of nn.Module's own __init__: it must not reach the module.
        module = self.__dict__["_of"].module
        if "_modules" in self.__dict__ and not _is_held(module):
            module.training = mode


def _is_held(module: nn.Module) -> bool:
    """Whether a freeze contract keeps the module in evaluation mode."""
    hold = hold_of(module)
    return hold is not None and hold.held


class _Reference:
    """Refers to a module without owning it: a copy refers to the copy, if there is one."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __deepcopy__(self, memo: dict[int, Any]) -> _Reference:
        copied = memo.get(id(self.module))
        if copied is None:
            copied = nn.Module()
            copied.training = self.module.training
            # A part copied without its model keeps the contract of the module all the same.
            copied.__dict__.update(
                {k: v for k, v in self.module.__dict__.items() if k == "_headstart_hold"}
            )
            memo[id(self.module)] = copied
        return _Reference(copied)


class Part(nn.Module):
    """A part of a model, as a module of its own.

    Submodules, parameters and buffers are the very objects of the model, under the same names: an
    optimizer made on either is valid for both, and ``model.state_dict()`` sees what was trained.
    Make the cut after moving the model to its device.
    """

    def __init__(self, trace: Trace, graph: fx.Graph) -> None:
        super().__init__()
        code = graph.python_code("self")
        namespace: dict[str, Any] = dict(code.globals)
        # The source is that of the graph just recorded, written by torch.fx.
        exec(compile(code.src, "<headstart cut>", "exec"), namespace)  # noqa: S102
        self._source = code.src
        self._run: Callable[..., Any] = namespace["forward"]
        self._graph = graph
        self._modes = nn.ModuleList()
        _adopt(self, trace, graph)

    def describe(self) -> dict[str, Any]:
        """Return what the part computes, in plain values; see :func:`describe_graph`."""
        return describe_graph(self, self._graph)


class Prefix(Part):
    """The part that is computed once: takes what the model takes, gives the boundary tensors."""

    def __init__(self, trace: Trace, graph: fx.Graph) -> None:
        super().__init__(trace, graph)
        self._inputs: Inputs = trace.inputs

    def forward(self, *args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        """Return the boundary tensors, each ``(n, *shape)``, detached.

        Raises:
            ConfigError: the inputs have another form, or items another shape, than the example.
        """
        tensors = self._inputs.flatten(args, kwargs)
        self._inputs.check_items(tensors)
        with torch.no_grad():
            return tuple(self._run(self, *tensors))


class Suffix(Part):
    """The part that trains: takes the boundary tensors, gives what the model gives."""

    def __init__(
        self,
        trace: Trace,
        graph: fx.Graph,
        boundary: tuple[TensorSpec, ...],
        written: frozenset[str],
    ) -> None:
        super().__init__(trace, graph)
        self._boundary = boundary
        self._written = written
        assert trace.form is not None
        self._form = trace.form

    def forward(self, *rows: Tensor) -> Any:
        """Return the model's output.

        Args:
            rows: the boundary tensors, each ``(n, *shape)``, in their stored type. They are not
                changed, whatever works in place behind the cut.
        """
        faults = [
            f"{spec.name} has shape {spec.shape} an item, found {tuple(row.shape[1:])}"
            for spec, row in zip(self._boundary, rows, strict=False)
            if tuple(row.shape[1:]) != spec.shape
        ]
        if len(rows) != len(self._boundary):
            faults.append(f"the boundary has {len(self._boundary)} tensors, found {len(rows)}")
        if faults:
            raise ConfigError(tuple(faults), hint="pass the rows of this very cut, in order")
        leaves = self._run(self, *map(self._taken_up, self._boundary, rows))
        return pytree.tree_unflatten(leaves, self._form)

    def _taken_up(self, spec: TensorSpec, row: Tensor) -> Tensor:
        taken = laid_out(row.to(getattr(torch, spec.compute)), spec.order)
        return taken.clone() if taken is row and spec.name in self._written else taken


def _adopt(part: Part, trace: Trace, graph: fx.Graph) -> None:
    """Register what the graph names, in the places it has in the model."""
    for name in getattr(graph, "_headstart_modes", ()):
        part._modes.append(Mode(trace.model.get_submodule(name)))
    modules = sorted(str(n.target) for n in graph.nodes if n.op == "call_module")
    for target in modules:  # a parent comes before its children
        owner, key = _place(part, target)
        if owner is not None and key not in owner._modules:
            owner._modules[key] = trace.model.get_submodule(target)
    for node in graph.nodes:
        target = str(node.target)
        if node.op != "get_attr" or target.startswith("_modes."):
            continue
        owner, key = _place(part, target)
        value = trace.attribute(target)
        if owner is None or hasattr(owner, key):
            continue
        if isinstance(value, nn.Parameter):
            owner._parameters[key] = value
        elif isinstance(value, nn.Module):
            owner._modules[key] = value
        else:
            owner.register_buffer(key, value, persistent=_is_persistent(trace, target))


def _place(part: Part, target: str) -> tuple[nn.Module | None, str]:
    """Return the module in which a name is registered, made where it is missing."""
    *path, key = target.split(".")
    owner: nn.Module = part
    for name in path:
        if name not in owner._modules:
            owner._modules[name] = nn.Module()
        found = owner._modules[name]
        assert found is not None
        owner = found
    return owner, key


def _is_persistent(trace: Trace, target: str) -> bool:
    if target in trace.constants:
        return False
    owner, _, key = target.rpartition(".")
    return key not in trace.model.get_submodule(owner)._non_persistent_buffers_set


__all__ = ["Mode", "Part", "Prefix", "Suffix"]
