"""From a divided graph to prefix and suffix, as modules.

They share the parameters, buffers and submodules of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from headstart.core.errors import ConfigError
from headstart.freezing.hold import hold_of
from headstart.modules.identity import describe_graph, describe_operations
from headstart.modules.modes import evaluate, untouched
from headstart.prefix.boundary import TensorSpec, laid_out
from headstart.prefix.call_form import CallForm
from headstart.prefix.graph import Trace, UntraceableError, needs


class Mode(nn.Module):
    """The mode of a module whose own code is part of the graph.

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

    Submodules, parameters and buffers are those of the model itself, under the same names: an
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
        """Return what the part computes, weights included; see :func:`describe_graph`."""
        return describe_graph(self, self._graph)

    def describe_code(self) -> dict[str, Any]:
        """Return the same without the weights; see :func:`describe_operations`."""
        return describe_operations(self, self._graph)


class Prefix(Part):
    """The part that is computed once: from the arguments of the model to the boundary tensors."""

    def __init__(self, trace: Trace, graph: fx.Graph) -> None:
        super().__init__(trace, graph)
        self._call_form: CallForm = trace.form

    def forward(self, *args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        """Return the boundary tensors, each ``(n, *shape)``, detached.

        Raises:
            ConfigError: the inputs have another form, or items another shape, than the example.
        """
        tensors = self._call_form.flatten(args, kwargs)
        self._call_form.check_items(tensors)
        with torch.no_grad():
            return tuple(self._run(self, *tensors))


class Suffix(Part):
    """The part that trains: from the boundary tensors to the output of the model."""

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
        assert trace.output_form is not None
        self._output_form = trace.output_form

    def forward(self, *rows: Tensor) -> Any:
        """Return the model's output.

        Args:
            rows: the boundary tensors, each ``(n, *shape)``, in their stored type. They are not
                changed, whatever operates in place behind the cut.
        """
        faults = [
            f"{spec.name} has shape {spec.shape} per item, found {tuple(row.shape[1:])}"
            for spec, row in zip(self._boundary, rows, strict=False)
            if tuple(row.shape[1:]) != spec.shape
        ]
        if len(rows) != len(self._boundary):
            faults.append(f"the boundary has {len(self._boundary)} tensors, found {len(rows)}")
        if faults:
            raise ConfigError(tuple(faults), hint="pass the rows of this cut, in order")
        leaves = self._run(self, *map(self._restored, self._boundary, rows))
        return pytree.tree_unflatten(leaves, self._output_form)

    def only_runs(self, names: Collection[str]) -> bool:
        """Return whether it runs these submodules of the model and no other operation."""
        return all(
            node.op in ("placeholder", "output")
            or (node.op == "call_module" and node.target in names)
            for node in self._graph.nodes
        )

    def _restored(self, spec: TensorSpec, row: Tensor) -> Tensor:
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
    """Return the names of the boundary tensors that something behind the cut changes in place."""
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
        self.needs = needs(trace)
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
            within: if given, whatever in it writes into the memory of a needed node is needed too.
            without: what is computed elsewhere, and enters through the order of writing alone.
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
        """Return the counterpart of a node in the new graph."""
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


def compute_rows(
    prefix: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[Tensor, ...]:
    """Run a prefix in evaluation mode, without autograd; its modes are restored."""
    with untouched(prefix):
        evaluate(prefix)
        rows: tuple[Tensor, ...] = prefix(*args, **kwargs)
    return rows


__all__ = ["Mode", "Part", "Prefix", "Suffix", "build_prefix", "build_suffix", "compute_rows"]
