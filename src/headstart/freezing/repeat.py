"""The repeat test: does a part give the same output twice, and leave its buffers alone?

Dropout modules and ``F.dropout(..., self.training)`` obey evaluation mode. Code that draws random
numbers or updates buffers whatever the mode is cannot be switched off by anyone; it can only be
found, by running the same input twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from headstart.freezing import passes
from headstart.modules.forward import hooked
from headstart.modules.modes import evaluate, untouched


@dataclass(frozen=True)
class Restless:
    """A module that did not repeat itself in evaluation mode.

    Attributes:
        name: the module; the deepest one in which the difference begins.
        kind: its class.
        reason: ``random output`` (equal inputs, different outputs) or ``moves <buffer>``.
    """

    name: str
    kind: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name or 'the model'} ({self.kind}): {self.reason} in evaluation mode"


def repeat_test(
    model: nn.Module, batch: Any, forward: passes.Forward = passes.default_forward
) -> tuple[Restless, ...]:
    """Run one batch twice in evaluation mode and name the modules that do not repeat themselves.

    The random state differs between the runs, and is put back, as are buffers that moved and the
    modes of all modules.

    Args:
        model: the model, or the part of interest.
        batch: what the model is called on, as for :func:`headstart.reestimate`.
        forward: how to run it.

    Returns:
        The modules, in the order of the model; empty if everything repeats bit by bit.
    """
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with untouched(model):
        evaluate(model)
        first = _calls(model, batch, forward)
        moved = [n for n, b in model.named_buffers() if not _same(b, buffers[n])]
        _restore(model, buffers)
        torch.rand(1)  # whoever draws from the default generator draws something else now
        second = _calls(model, batch, forward)
    modules = dict(model.named_modules())
    found = [Restless(n, type(modules[n]).__name__, "random output") for n in _begin(first, second)]
    for name in moved:
        owner, _, key = name.rpartition(".")
        found.append(Restless(owner, type(modules[owner]).__name__, f"moves {key}"))
    order = list(modules)
    return tuple(sorted(found, key=lambda item: order.index(item.name)))


_Call = tuple[Any, Any]


def _calls(model: nn.Module, batch: Any, forward: passes.Forward) -> dict[str, list[_Call]]:
    """Run a batch and keep what every module was given and gave, on each of its calls."""
    calls: dict[str, list[_Call]] = {}
    open_calls: list[Any] = []

    def before(_name: str, args: Any, kwargs: Any) -> None:
        # A copy, since a later operation in place may change what the module was given.
        open_calls.append(_copied((args, kwargs)))

    def after(name: str, output: Any) -> None:
        calls.setdefault(name, []).append((open_calls.pop(), _copied(output)))

    with hooked(dict(model.named_modules()), before=before, after=after):
        forward(model, batch)
    return calls


def _begin(first: dict[str, list[_Call]], second: dict[str, list[_Call]]) -> Iterator[str]:
    """Yield the modules in which a difference begins: equal inputs, different outputs, and no
    module inside of which the same holds.
    """
    wrong = [
        name
        for name, calls in first.items()
        if any(
            _same(given, again_given) and not _same(gave, again_gave)
            for (given, gave), (again_given, again_gave) in zip(
                calls, second.get(name, []), strict=False
            )
        )
    ]
    for name in wrong:
        prefix = f"{name}." if name else ""
        if not any(other != name and other.startswith(prefix) for other in wrong):
            yield name


def _restore(model: nn.Module, buffers: dict[str, Tensor]) -> None:
    for name, buffer in model.named_buffers():
        if not _same(buffer, buffers[name]):
            buffer.copy_(buffers[name])


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_copied(item) for item in value]
    return value


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, Tensor) and isinstance(right, Tensor):
        return left.shape == right.shape and torch.equal(left.nan_to_num(), right.nan_to_num())
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_same(v, right[k]) for k, v in left.items())
    if isinstance(left, list) and isinstance(right, list):
        pairs = zip(left, right, strict=False)
        return len(left) == len(right) and all(_same(a, b) for a, b in pairs)
    return True  # what is no tensor is not compared


__all__ = ["Restless", "repeat_test"]
