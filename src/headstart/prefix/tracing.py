"""From a model to a graph of its operations, in which modes stay alive and the batch size is free.

``torch.fx`` records what a forward pass does. Three things are added here. Shapes are known: the
pass runs beside the recording on two small batches of different size, so that what depends on the
shape of an item is a constant and only the batch size is a variable. ``self.training`` is a node
of the graph and not a constant, so that ``F.dropout(x, p, self.training)`` follows the mode that
the module has when the graph is run. And what cannot be recorded (a branch on the mode or on
values, code that wants real tensors) is kept whole: the smallest module that contains it becomes
one node. Modules of ``torch.nn`` are one node each, so that a batch norm or a dropout reads its
mode at every call. A branch on the mode in a module that holds a list of others is no branch where
both sides record the same operations, such as that of a LayerDrop whose rate is 0: kept whole, the
module would take all its blocks along.
"""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils import parametrize
from torch.utils import _pytree as pytree

from headstart.modules.digests import named_tensors
from headstart.modules.forward import After
from headstart.prefix.branches import branching_classes, holds_a_list, record
from headstart.prefix.call_form import CallForm
from headstart.prefix.comparing import tensors_in, version
from headstart.prefix.graph import Trace, UntraceableError

_METADATA = frozenset(
    ["shape", "ndim", "dtype", "device", "layout", "is_cuda", "requires_grad", "itemsize", "names"]
)
_METADATA_METHODS = frozenset(
    (
        *("size", "dim", "ndimension", "numel", "nelement", "stride", "is_contiguous"),
        *("get_device", "is_floating_point", "is_complex", "element_size", "__len__"),
    )
)
_METADATA_FUNCTIONS = frozenset([len, torch.is_floating_point, torch.is_complex, torch.numel])


def trace(model: nn.Module, form: CallForm, batches: tuple[Any, Any]) -> Trace:
    """Record a model.

    Args:
        model: any module.
        form: how it is called.
        batches: the tensors of two probe batches of different size.

    Raises:
        UntraceableError: with the reason.
    """
    whole: dict[type, str] = {}
    branching: set[type] = set()
    while True:
        kept, known = frozenset(whole), frozenset(branching)
        recorder = partial(_Tracer, model, form, batches, kept, known)
        tracer = recorder(frozenset())
        try:
            record(tracer)
            found = branching_classes(tracer, recorder)
            if found:
                branching |= found
                continue
        except Exception as error:
            culprit, cause = tracer.culprit, tracer.cause or error
            reason = _first_line(cause)
            if culprit is None or culprit in whole or culprit is type(model):
                raise UntraceableError(reason) from error
            whole[culprit] = reason
            continue
        tracer.found.graph = tracer.graph
        tracer.found.whole = {kind.__qualname__: reason for kind, reason in whole.items()}
        return tracer.found


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(".")


class _Proxy(fx.Proxy):
    """A value of the recording, of which the shape is known."""

    tracer: _Tracer

    def __getattr__(self, name: str) -> Any:
        if name in _METADATA:
            return self.tracer.create_proxy("call_function", getattr, (self, name), {})
        return super().__getattr__(name)

    def __iter__(self) -> Iterator[Any]:
        return iter([self[i] for i in range(len(self))])  # type: ignore[index]

    def __setitem__(self, key: Any, value: Any) -> None:
        self.tracer.create_proxy("call_function", operator.setitem, (self, key, value), {})

    def __len__(self) -> int:
        first, second = self.tracer.found.values[self.node]
        if len(first) != len(second):
            raise UntraceableError("the code loops over the items of the batch")
        return len(first)

    def __bool__(self) -> bool:
        known = self.tracer.branch(self.node)
        if known is not None:
            return known
        raise UntraceableError(self.tracer.why_unknown(self.node, "branches on"))

    def __index__(self) -> int:
        raise UntraceableError(self.tracer.why_unknown(self.node, "needs as a number"))

    __int__ = __float__ = __index__


class _Tracer(fx.Tracer):
    def __init__(
        self,
        model: nn.Module,
        form: CallForm,
        batches: tuple[Any, Any],
        whole: frozenset[type],
        branching: frozenset[type],
        assumed: frozenset[type],
    ) -> None:
        super().__init__()
        self.branching, self.assumed = branching, assumed
        self.branched: dict[type, None] = {}
        self.proxy_buffer_attributes = True
        self.found = Trace(model, form, fx.Graph())
        self.whole = whole
        self.batches = batches
        self.culprit: type | None = None
        self.cause: BaseException | None = None
        self.names = {id(module): name for name, module in model.named_modules()}
        self.owned = {
            id(tensor): name for name, tensor in (*model.named_parameters(), *model.named_buffers())
        }
        self.thread = threading.get_ident()
        self.recording = True  # False while real tensors run, beside the recording
        self.listeners: dict[int, list[tuple[str, After]]] = {}
        self.storages: dict[int, list[fx.Node]] = {}

    # What torch.fx calls

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:  # noqa: ARG002
        if type(m) in self.whole or parametrize.is_parametrized(m):
            return True
        if isinstance(m, nn.MultiheadAttention):
            return True
        return m.__module__.startswith(("torch.nn", "torch.ao.nn")) and not list(m.children())

    def call_module(
        self,
        m: nn.Module,
        forward: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        if not self.recording:
            return forward(*args, **kwargs)
        try:
            if id(m) not in self.names:  # made in a forward pass, as in nn.ReLU()(x)
                if next(named_tensors(m), None) is not None:
                    raise UntraceableError(f"the code runs a {type(m).__name__} outside the model")
                return forward(*args, **kwargs)
            output = super().call_module(m, forward, args, kwargs)
        except Exception as error:
            if self.cause is None:
                self.culprit, self.cause = type(m), error
            raise
        for name, after in self.listeners.get(id(m), ()):
            after(name, self._opened(output))
        return output

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        if not self.recording:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def create_args_for_root(
        self,
        root_fn: Any,
        is_module: bool,  # noqa: ARG002
        concrete_args: Any = None,  # noqa: ARG002
    ) -> tuple[Any, list[Any]]:
        leaves = [self.create_proxy("placeholder", n, (), {}) for n in self.found.form.names]
        args, kwargs = self.found.form.call(leaves)

        def call() -> Any:
            # The output of the graph is flat; the suffix restores its structure, with a library's
            # own output classes.
            leaves, self.found.output_form = pytree.tree_flatten(
                root_fn(self.root, *args, **kwargs)
            )
            return tuple(leaves)

        return call, []

    def create_arg(self, a: Any) -> Any:
        if isinstance(a, Tensor):
            name = self.owned.get(id(a))
            if name is None:
                name = next((n for n, t in self.found.constants.items() if t is a), None)
            if name is None:
                name = f"_constant{len(self.found.constants)}"
                self.found.constants[name] = a
            return self.create_node("get_attr", name, (), {})
        return super().create_arg(a)

    def create_node(
        self,
        kind: str,
        target: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        name: str | None = None,
        type_expr: Any = None,
    ) -> fx.Node:
        node = super().create_node(kind, target, args, kwargs, name, type_expr)
        if kind != "output":
            self._shadow(node)
        return node

    def create_proxy(
        self, kind: str, target: Any, args: Any, kwargs: Any, *rest: Any, **more: Any
    ) -> Any:
        proxy = super().create_proxy(kind, target, args, kwargs, *rest, **more)
        return self._folded(proxy)

    # What modules.forward calls

    @contextmanager
    def hooked(self, layers: Mapping[str, nn.Module], after: After) -> Iterator[None]:
        """Call ``after`` when a layer is recorded; the pass may stop there."""
        stack = self.module_stack.copy()
        for name, layer in layers.items():
            self.listeners.setdefault(id(layer), []).append((name, after))
        try:
            yield
        finally:
            for layer in layers.values():
                self.listeners[id(layer)].pop()
            self.module_stack = stack  # torch.fx does not unwind it where a pass stops early

    def _opened(self, output: Any) -> Any:
        """Return a tuple of proxies for the proxy of a tuple."""
        if isinstance(output, _Proxy):
            value = self.found.values[output.node][0]
            return tuple(output) if isinstance(value, tuple | list) else output
        return output

    # What the probe batches show

    def _shadow(self, node: fx.Node) -> None:
        """Run the node on both probe batches, and note what it shares and what it changes."""
        found = self.found
        if node.op == "placeholder":
            number = sum(other.op == "placeholder" for other in self.graph.nodes) - 1
            found.values[node] = tuple(batch[number] for batch in self.batches)
        elif node.op == "get_attr" and str(node.target).endswith(".training") | (
            node.target == "training"
        ):
            found.values[node] = (False, False)
        else:
            before = {
                id(tensor): (other, tensor, version(tensor))
                for other in node.all_input_nodes
                for tensor in tensors_in(found.values[other][0])
            }
            self.recording = False
            try:
                found.values[node] = (self._run(node, 0), self._run(node, 1))
            finally:
                self.recording = True
            changed = [t for _, t, count in before.values() if version(t) != count]
            changed += _declared_in_place(self, node)
            if changed:
                found.mutates[node] = self._sharing(changed)
        own = tensors_in(found.values[node][0])
        found.aliases[node] = self._sharing(own)
        for tensor in own:
            self.storages.setdefault(_storage(tensor), []).append(node)

    def _run(self, node: fx.Node, which: int) -> Any:
        return self.found.run(node, lambda other: self.found.values[other][which])

    def _sharing(self, tensors: Sequence[Tensor]) -> tuple[fx.Node, ...]:
        nodes = [n for t in tensors for n in self.storages.get(_storage(t), [])]
        return tuple(dict.fromkeys(nodes))

    def _folded(self, proxy: Any) -> Any:
        """Return a constant for what the shape of an item settles, else the proxy."""
        node = proxy.node
        first, second = self.found.values[node]
        if node.op in {"placeholder", "get_attr"} or tensors_in(first) or not self._is_shape(node):
            return proxy
        if isinstance(first, tuple | list):
            if len(first) != len(second):
                raise UntraceableError("a list grows with the batch")
            self.found.shapes.add(node)
            return tuple(proxy[i] for i in range(len(first)))
        if isinstance(first, torch.device):
            self.found.shapes.add(node)
            return proxy if node.target is not getattr else first
        self.found.shapes.add(node)
        settled = type(first) is type(second) and first == second
        if (
            settled
            and isinstance(first, bool)
            and any(
                n in self.found.shapes and not isinstance(self.found.values[n][0], tuple)
                for n in node.all_input_nodes
            )
        ):
            raise UntraceableError("the code branches on the batch size")
        return first if settled else proxy

    def _is_shape(self, node: fx.Node) -> bool:
        """Whether a value that is no tensor follows from shapes, not from modes or values."""
        if all(other in self.found.shapes for other in node.all_input_nodes):
            return bool(node.all_input_nodes)
        if node.op == "call_method":
            return node.target in _METADATA_METHODS
        if node.target is getattr:
            return node.args[1] in _METADATA
        return node.target in _METADATA_FUNCTIONS

    def branch(self, node: fx.Node) -> bool | None:
        """Answer a branch on the mode of a module that holds a list of others; None: no answer."""
        module = self.found.model.get_submodule(self.found.modes.get(node, ""))
        if node not in self.found.modes or not holds_a_list(module):
            return None
        if type(module) in self.branching:
            return None
        self.branched[type(module)] = None
        return type(module) in self.assumed

    def why_unknown(self, node: fx.Node, verb: str) -> str:
        """Say why the value of a node is not known while recording."""
        if node in self.found.modes:
            return f"the code {verb} the mode of a module (self.training)"
        if node in self.found.shapes:
            return f"the code {verb} the batch size"
        return f"the code {verb} values that differ from item to item"

    def read_training(self, module: nn.Module) -> Any:
        """Answer ``module.training``: a node of the graph in code that is recorded."""
        name = self.names.get(id(module))
        if not self.recording or name is None or threading.get_ident() != self.thread:
            return module.__dict__["training"]
        target = f"{name}.training" if name else "training"
        proxy = self.create_proxy("get_attr", target, (), {})
        self.found.modes[proxy.node] = name
        return proxy


def _storage(tensor: Tensor) -> int:
    try:
        return int(tensor.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):
        return id(tensor)


def _declared_in_place(tracer: _Tracer, node: fx.Node) -> list[Tensor]:
    """Return inputs of operations that say ``inplace``: in evaluation mode they may not act."""
    inplace = node.kwargs.get("inplace", False)
    if node.op == "call_module":
        inplace = getattr(tracer.found.model.get_submodule(str(node.target)), "inplace", False)
    if inplace is not True or not node.all_input_nodes:
        return []
    return tensors_in(tracer.found.values[node.all_input_nodes[0]][0])


__all__ = ["trace"]
