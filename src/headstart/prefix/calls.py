"""Calls of modules in a forward pass: which of them could be computed once, and their results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from headstart.modules.digests import named_tensors
from headstart.modules.modes import evaluate, untouched
from headstart.prefix.comparing import Watch, same, same_first_row
from headstart.prefix.inputs import Inputs
from headstart.prefix.standin import Origin
from headstart.prefix.terms import Terms

CallKey = tuple[str, int]
"""Name of a module and the number of its call within a forward pass."""


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a module.

    Attributes:
        tensors: the tensors of its result.
        leaves: all leaves of its result; a tensor's place holds ``...``.
        spec: the structure of the result.
        inside: how often each module was called within it.
        drew: whether it drew random numbers, or changed its tensors.
        cheap: whether the module has no parameters or buffers.
    """

    tensors: tuple[Tensor, ...]
    leaves: tuple[Any, ...]
    spec: pytree.TreeSpec
    inside: Counter[str]
    drew: bool
    cheap: bool

    def answer(self, make: Callable[[Tensor, int], Tensor]) -> Any:
        """Return the result with other tensors in the places of its own."""
        numbers = iter(range(len(self.tensors)))
        leaves = []
        for leaf in self.leaves:
            if leaf is ...:
                i = next(numbers)
                leaf = make(self.tensors[i], i)
            leaves.append(leaf)
        return pytree.tree_unflatten(leaves, self.spec)


def pure_calls(
    model: nn.Module,
    inputs: Inputs,
    batches: tuple[Sequence[Tensor], Sequence[Tensor]],
    terms: Terms,
) -> dict[CallKey, Call]:
    """Find the calls whose results are the same in every epoch, with results for the first batch.

    Judged as operations of a graph are: the module's tensors do not move, and in training mode it
    draws nothing, changes nothing, keeps items apart, and gives what it gives in evaluation mode.
    A module behind one that fails is not found either, since its inputs vary.
    """
    watched = {
        name: module
        for name, module in model.named_modules()
        if name and not terms.moving([*module.parameters(), *module.buffers()])
    }
    first = _recorded(model, watched, inputs, batches[0], lambda: terms.train(model))
    second = _recorded(model, watched, inputs, batches[1], lambda: terms.train(model))
    third = _recorded(model, watched, inputs, batches[0], lambda: evaluate(model))
    return {
        key: third[key]
        for key, call in first.items()
        if key in second
        and key in third
        and not call.drew
        and call.inside == third[key].inside
        and _plain_leaves(call) == _plain_leaves(third[key])
        and call.tensors
        and same_first_row(call.tensors, second[key].tensors)
        and same(call.tensors, third[key].tensors)
    }


def _plain_leaves(call: Call) -> tuple[Any, ...]:
    return tuple(leaf if leaf is ... else repr(leaf) for leaf in call.leaves)


class _Recorder:
    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        self.modules = modules
        self.numbers: Counter[str] = Counter()
        self.open: list[tuple[str, int, Counter[str], Tensor, Watch]] = []
        self.found: dict[CallKey, Call] = {}

    def before(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, *_: Any) -> None:
            number = self.numbers[name]
            self.numbers[name] += 1
            self.open.append(
                (name, number, self.numbers.copy(), torch.get_rng_state(), Watch(module))
            )

        return hook

    def after(self, module: nn.Module, _args: Any, output: Any) -> None:
        name, number, numbers, state, own = self.open.pop()
        drew = own.changed or not torch.equal(state, torch.get_rng_state())
        cheap = next(named_tensors(module), None) is None
        leaves, spec = pytree.tree_flatten(output)
        tensors = tuple(leaf.detach().clone() for leaf in leaves if isinstance(leaf, Tensor))
        plain = tuple(... if isinstance(leaf, Tensor) else leaf for leaf in leaves)
        self.found[name, number] = Call(tensors, plain, spec, self.numbers - numbers, drew, cheap)


def _recorded(
    model: nn.Module,
    modules: Mapping[str, nn.Module],
    inputs: Inputs,
    batch: Sequence[Tensor],
    put: Callable[[], None],
) -> dict[CallKey, Call]:
    recorder = _Recorder(modules)
    handles = []
    for name, module in modules.items():
        handles.append(module.register_forward_pre_hook(recorder.before(name)))
        handles.append(module.register_forward_hook(recorder.after))
    args, kwargs = inputs.call([tensor.clone() for tensor in batch])
    try:
        with untouched(model):
            put()
            model(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
    return recorder.found


class _AllThereError(Exception):
    """Ends a forward pass once every result asked for is there. Never leaves this file."""


def results(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    origins: Sequence[Origin],
    found: dict[Origin, Tensor],
) -> None:
    """Run a model until the results at ``origins`` are there, and put them into ``found``.

    Results are copied the moment a module has finished, before later code can overwrite them.
    """
    wanted = {name for name, _, _ in origins if name}
    numbers: Counter[str] = Counter()

    def hook_for(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            number = numbers[name]
            numbers[name] += 1
            tensors = [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor)]
            for i, tensor in enumerate(tensors):
                if (name, number, i) in origins:
                    found[name, number, i] = tensor.detach().clone()
            if all(origin in found for origin in origins):
                raise _AllThereError

        return hook

    handles = [model.get_submodule(name).register_forward_hook(hook_for(name)) for name in wanted]
    try:
        model(*args, **kwargs)
    except _AllThereError:
        pass
    finally:
        for handle in handles:
            handle.remove()


__all__ = ["Call", "CallKey", "pure_calls", "results"]
