"""Which layers of a network run, in what order, and which of its tensors a layer depends on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from headstart.core.arguments import Arguments
from headstart.modules.forward import as_written, hooked, run_up_to
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
    # Evaluation draws no random numbers, so the state of a layer's generator changes no row.
    drawn = getattr(module, "_headstart_random_state", ())
    found = {
        **dict(module.named_parameters(recurse=False, remove_duplicate=False)),
        **dict(module.named_buffers(recurse=False, remove_duplicate=False)),
    }
    return {name: tensor for name, tensor in found.items() if name not in drawn}


def call_order(
    module: nn.Module, *args: Any, **kwargs: Any
) -> tuple[tuple[str, int, tuple[int, ...]], ...]:
    """Run once in evaluation mode and list the layers in the order in which they finish.

    Returns:
        For each named submodule that ran and returned a tensor: its name, how often it ran, and
        the shape of its output without the first axis.
    """
    found = _outputs(module, args, kwargs)
    return tuple((name, count, shape[1:]) for name, (count, shape) in found.items())


def item_shapes(module: nn.Module, few: Arguments, many: Arguments) -> dict[str, tuple[int, ...]]:
    """Find the shapes of the outputs for one item, by running two numbers of items.

    Returns:
        For each named submodule that runs once, in the order in which they finish, the shape of
        its output without the axis of the items, wherever that is; several rows an item are an
        axis of their own. Layers without rows of items, such as tables of relative positions, are
        left out.
    """
    one, other = (_outputs(module, inputs.args, inputs.kwargs) for inputs in (few, many))
    shapes = {}
    for name, (count, shape) in one.items():
        more = other.get(name, (0, ()))[1]
        if count != 1 or len(more) != len(shape):
            continue
        growing = item_axes(shape, more, len(few), len(many))
        if len(growing) == 1 and shape[growing[0]] % len(few) == 0:
            rows = shape[growing[0]] // len(few)
            shapes[name] = (
                *shape[: growing[0]],
                *((rows,) if rows > 1 else ()),
                *shape[growing[0] + 1 :],
            )
    return shapes


def item_axes(few: Sequence[int], many: Sequence[int], count: int, more: int) -> list[int]:
    """Return the axes of a shape that grow in proportion to the number of items."""
    pairs = enumerate(zip(few, many, strict=True))
    return [axis for axis, (a, b) in pairs if a != b and a * more == b * count]


def _outputs(module: nn.Module, args: Any, kwargs: Any) -> dict[str, tuple[int, tuple[int, ...]]]:
    """Return for each submodule how often it runs, and the shape of its first output."""
    found: dict[str, tuple[int, tuple[int, ...]]] = {}

    def after(name: str, output: Any) -> None:
        value = output[0] if isinstance(output, tuple | list) and output else output
        if isinstance(value, Tensor):
            count, shape = found.get(name, (0, tuple(value.shape)))
            found[name] = (count + 1, shape)

    named = {name: part for name, part in module.named_modules() if name}
    hooks = hooked(named, after=after)
    with torch.no_grad(), evaluation_mode(module), as_written(module), hooks:
        module(*args, **kwargs)
    return found


__all__ = ["LiveParts", "call_order", "item_axes", "item_shapes", "live_parts", "own_tensors"]
