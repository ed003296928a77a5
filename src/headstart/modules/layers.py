"""Which layers of a network run, in what order, and which of its tensors a layer depends on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from headstart.modules.forward import hooked, run_up_to
from headstart.modules.modes import evaluation_mode


@dataclass(frozen=True)
class LiveParts:
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


def live_parts(module: nn.Module, layer: str | None, *args: Any, **kwargs: Any) -> LiveParts:
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
        reader = _TensorsRead()
        calls = hooked(names, before=lambda name, _args, _kwargs: called.add(name))
        with torch.no_grad(), evaluation_mode(module), calls, reader:
            run_up_to(module, layer, *args, **kwargs)
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
    return LiveParts(modules, tensors)


def own_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return the parameters and buffers that belong to ``module`` itself, not to its children."""
    return {
        **dict(module.named_parameters(recurse=False, remove_duplicate=False)),
        **dict(module.named_buffers(recurse=False, remove_duplicate=False)),
    }


def call_order(
    module: nn.Module, *args: Any, **kwargs: Any
) -> tuple[tuple[str, int, tuple[int, ...]], ...]:
    """Run once in evaluation mode and list the layers in the order in which they finish.

    Returns:
        For each named submodule that ran and returned a tensor: its name, how often it ran, and
        the shape of its output for one item (without the first axis).
    """
    counts: dict[str, int] = {}
    shapes: dict[str, tuple[int, ...]] = {}

    def after(name: str, output: Any) -> None:
        value = output[0] if isinstance(output, tuple | list) and output else output
        if isinstance(value, Tensor):
            counts[name] = counts.get(name, 0) + 1
            shapes.setdefault(name, tuple(value.shape[1:]))

    named = {name: part for name, part in module.named_modules() if name}
    with torch.no_grad(), evaluation_mode(module), hooked(named, after=after):
        module(*args, **kwargs)
    return tuple((name, count, shapes[name]) for name, count in counts.items())


__all__ = ["LiveParts", "call_order", "live_parts", "own_tensors"]
