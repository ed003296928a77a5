"""The cut: run a module up to a layer and no further, and know what that part consists of."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from headstart.core.errors import BackboneError
from headstart.core.wording import nearest

T = TypeVar("T")


class _CutReachedError(Exception):
    """Stops a forward pass once every layer asked for has spoken. Never leaves this file."""


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Put every part of ``module`` in evaluation mode; give each its own mode back afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def find_layer(module: nn.Module, layer: str) -> nn.Module:
    """Return the submodule named ``layer``, or raise with the nearest names."""
    names = [name for name, _ in module.named_modules() if name]
    if layer not in names:
        near = nearest(layer, names, 5) or names[:5]
        raise BackboneError(
            f"there is no layer '{layer}' in {type(module).__name__}",
            hint="the nearest names are " + ", ".join(near),
        )
    return module.get_submodule(layer)


def first_tensor(output: Any, who: str) -> Tensor:
    """Return the tensor of an output: itself, or the first of a tuple or list."""
    if isinstance(output, tuple | list) and output:
        output = output[0]
    if not isinstance(output, Tensor):
        raise BackboneError(
            f"{who} gives a {type(output).__name__}, and a tensor is needed",
            hint="cut at a layer that gives a tensor",
        )
    return output


def capture(
    module: nn.Module,
    layers: Collection[str | None],
    inputs: Tensor,
    read: Callable[[str | None, Tensor], T],
) -> dict[str | None, T]:
    """Run ``module`` on ``inputs`` until all ``layers`` have given their output.

    Nothing behind the last of them runs, so weights that are missing there do no harm. Modes and
    autograd are the caller's.

    Args:
        module: any module.
        layers: names of submodules, as ``named_modules`` gives them; None is the whole module.
        inputs: ``(n, ...)``, what the module takes.
        read: called as ``read(layer, output)`` the moment a layer has finished, before a later
            in-place operation can overwrite its output.

    Returns:
        What ``read`` returned, by layer.

    Raises:
        BackboneError: a layer does not exist, did not run in this forward pass, or gave no tensor.
    """
    found: dict[str | None, T] = {}
    wanted = set(layers)

    def hook_for(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if name not in found:
                found[name] = read(name, first_tensor(output, f"layer '{name}'"))
                if len(found) == len(wanted):
                    raise _CutReachedError

        return hook

    handles = [
        find_layer(module, name).register_forward_hook(hook_for(name))
        for name in wanted
        if name is not None
    ]
    try:
        output = module(inputs)
        if None in wanted:
            found[None] = read(None, first_tensor(output, type(module).__name__))
    except _CutReachedError:
        pass
    finally:
        for handle in handles:
            handle.remove()
    silent = sorted(str(layer) for layer in wanted - found.keys())
    if silent:
        raise BackboneError(
            f"layer {', '.join(silent)} did not run in the forward pass of {type(module).__name__}",
            hint="choose a layer that runs",
        )
    return found


@dataclass(frozen=True)
class Prefix:
    """What a forward pass up to a layer consists of.

    Attributes:
        modules: names of the submodules that take part, in the order of ``named_modules``.
        tensors: names of parameters and buffers (non-persistent ones included) of those modules.
    """

    modules: tuple[str, ...]
    tensors: tuple[str, ...]


class _TensorsRead(TorchDispatchMode):
    """Notes the storage of every tensor that an operation reads."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.storages: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        for value in torch.utils._pytree.tree_leaves((args, kwargs)):
            if isinstance(value, Tensor):
                self.storages.add(value.untyped_storage().data_ptr())
        return func(*args, **kwargs)


def trace_prefix(module: nn.Module, layer: str | None, inputs: Tensor) -> Prefix:
    """Find which modules and tensors a forward pass up to ``layer`` uses, by running it.

    A module takes part when it is called, or when an operation reads one of its tensors (as
    ``MultiheadAttention`` reads the weights of a projection that it never calls). With ``layer``
    None the whole module counts, whatever one input happens to use.
    """
    names = dict(module.named_modules())
    if layer is None:
        taking_part = set(names)
    else:
        called: set[str] = set()
        handles = [
            part.register_forward_pre_hook(lambda _m, _i, name=name: called.add(name))
            for name, part in names.items()
        ]
        reader = _TensorsRead()
        try:
            with torch.no_grad(), evaluation_mode(module), reader:
                capture(module, [layer], inputs, lambda _name, output: output)
        finally:
            for handle in handles:
                handle.remove()
        taking_part = {
            name
            for name, part in names.items()
            if name in called
            or any(
                tensor.untyped_storage().data_ptr() in reader.storages
                for tensor in own_tensors(part).values()
            )
        }
    modules = tuple(name for name in names if name in taking_part)
    tensors = tuple(
        f"{name}.{key}" if name else key for name in modules for key in own_tensors(names[name])
    )
    return Prefix(modules, tensors)


def own_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return the parameters and buffers that belong to ``module`` itself, not to its children."""
    return {
        **dict(module.named_parameters(recurse=False, remove_duplicate=False)),
        **dict(module.named_buffers(recurse=False, remove_duplicate=False)),
    }


def call_order(module: nn.Module, inputs: Tensor) -> tuple[tuple[str, int, tuple[int, ...]], ...]:
    """Run once in evaluation mode and list the layers in the order in which they finish.

    Returns:
        For each named submodule that ran and gave a tensor: its name, how often it ran, and the
        shape of its output for one item (without the batch dimension).
    """
    order: list[str] = []
    counts: dict[str, int] = {}
    shapes: dict[str, tuple[int, ...]] = {}

    def hook_for(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            value = output[0] if isinstance(output, tuple | list) and output else output
            if isinstance(value, Tensor):
                if name not in counts:
                    order.append(name)
                    shapes[name] = tuple(value.shape[1:])
                counts[name] = counts.get(name, 0) + 1

        return hook

    handles = [
        part.register_forward_hook(hook_for(name)) for name, part in module.named_modules() if name
    ]
    try:
        with torch.no_grad(), evaluation_mode(module):
            module(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return tuple((name, counts[name], shapes[name]) for name in order)
