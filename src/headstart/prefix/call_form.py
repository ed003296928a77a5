"""How a model is called: from example inputs to the flat list of their tensors, and back."""

from __future__ import annotations

import inspect
import keyword
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from headstart.core.arguments import Arguments
from headstart.core.errors import ConfigError


@dataclass(frozen=True, eq=False)
class CallForm:
    """The form of a call.

    Attributes:
        names: a name for every tensor, after the parameters of ``forward``.
        spec: the structure of ``(args, kwargs)``.
        fixed: the leaves of the structure that are no tensors; a tensor's place holds ``...``.
        outlines: for every tensor one item of its shape and type, without memory.
    """

    names: tuple[str, ...]
    spec: pytree.TreeSpec
    fixed: tuple[Any, ...]
    outlines: tuple[Tensor, ...]

    def call(self, tensors: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return ``args`` and ``kwargs`` with these tensors in place."""
        queue = iter(tensors)
        leaves = [next(queue) if value is ... else value for value in self.fixed]
        args, kwargs = pytree.tree_unflatten(leaves, self.spec)
        return args, kwargs

    def flatten(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Tensor]:
        """Return the tensors of a call of the same form.

        Raises:
            ConfigError: the call has another form than the example had.
        """
        leaves, spec = pytree.tree_flatten((args, dict(kwargs)))
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        same = len(leaves) == len(self.fixed) and all(
            isinstance(leaf, Tensor) == (value is ...)
            for leaf, value in zip(leaves, self.fixed, strict=True)
        )
        if spec != self.spec or not same:
            raise ConfigError(
                (
                    f"the cut takes {len(self.names)} tensors ({', '.join(self.names)}) in the"
                    f" form of the example, found {len(tensors)} tensors in another form",
                ),
                hint="call it as the model was called with the example",
            )
        return tensors

    def check_items(self, tensors: Sequence[Tensor]) -> None:
        """Refuse items of another shape than those of the example.

        Raises:
            ConfigError: the shapes differ: what depends on them is a constant in the cut.
        """
        expected = [tuple(outline.shape[1:]) for outline in self.outlines]
        found = [tuple(tensor.shape[1:]) for tensor in tensors]
        if found != expected:
            raise ConfigError(
                (f"the cut was made for items of shape {_shown(expected)}, found {_shown(found)}",),
                hint="resize the items, or find the cut for this shape",
            )


def read_example(model: nn.Module, example: Any) -> tuple[CallForm, list[Tensor]]:
    """Flatten an example.

    Args:
        model: the model.
        example: what the model takes: its arguments, a tensor, a tuple of positional arguments or
            a mapping of named ones. Every tensor has the items of the batch along its first axis.

    Raises:
        ConfigError: there is no tensor, or batch sizes differ.
    """
    if isinstance(example, Arguments):
        args, kwargs = example.args, dict(example.kwargs)
    elif isinstance(example, Mapping):
        args, kwargs = (), dict(example)
    else:
        args, kwargs = (example if isinstance(example, tuple) else (example,)), {}
    leaves, spec = pytree.tree_flatten((args, kwargs))
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    sizes = {tuple(t.shape[:1]) for t in tensors}
    if len(sizes) != 1 or sizes == {()} or sizes == {(0,)}:
        found = ", ".join(str(tuple(t.shape)) for t in tensors) or "no tensor"
        raise ConfigError(
            (
                "an example holds one or more tensors with the same number of items, at least one,"
                f" along the first axis; found {found}",
            ),
            hint="pass one small batch, as the model takes it",
        )
    fixed = tuple(... if isinstance(leaf, Tensor) else leaf for leaf in leaves)
    outlines = tuple(torch.empty((1, *t.shape[1:]), dtype=t.dtype, device="meta") for t in tensors)
    return CallForm(_names(model, args, kwargs), spec, fixed, outlines), tensors


def _names(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[str, ...]:
    parameters = [
        p.name
        for p in inspect.signature(type(model).forward).parameters.values()
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ][1:]
    named: list[tuple[str, Any]] = []
    for position, value in enumerate(args):
        name = parameters[position] if position < len(parameters) else f"input{position}"
        named.append((name, value))
    names: list[str] = []
    for name, value in [*named, *kwargs.items()]:
        count = sum(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(value))
        plain = re.sub(r"\W", "_", str(name))
        plain = f"_{plain}" if keyword.iskeyword(plain) or plain[:1].isdigit() else plain
        names += [plain] if count == 1 else [f"{plain}_{i}" for i in range(count)]
    return tuple(names)


def probe_batches(tensors: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Make three probe batches: two items, the same first item with another second, three items.

    The further items are the first ones turned around, so that values stay in their range (token
    numbers stay in the vocabulary) while the items differ.
    """

    def turned(item: Tensor, scale: float) -> Tensor:
        axes = tuple(range(1, item.ndim))
        out = item.flip(axes) if axes else item.clone()
        return out * scale if out.is_floating_point() else out

    pairs, others, threes = [], [], []
    for tensor in tensors:
        # A clone can be changed in place, and is no inference tensor.
        first = tensor.detach()[:1].clone()
        second = tensor.detach()[1:2].clone() if len(tensor) > 1 else turned(first, 0.5)
        pairs.append(torch.cat([first, second]))
        others.append(torch.cat([first, turned(second, 0.75)]))
        threes.append(torch.cat([first, second, turned(second, 0.75)]))
    return pairs, others, threes


def _shown(shapes: Sequence[tuple[int, ...]]) -> str:
    return " and ".join("×".join(map(str, shape)) or "one value" for shape in shapes)


__all__ = ["CallForm", "probe_batches", "read_example"]
