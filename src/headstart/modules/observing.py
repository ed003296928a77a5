"""One pass of a network up to a layer, observed: what ran, what it gave, and what takes it next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from headstart.core.arguments import Arguments
from headstart.modules.forward import (
    StopForward,
    as_written,
    capture,
    find_layer,
    first_tensor,
    hooked,
)
from headstart.modules.keras import KerasPart

_EQUAL = 1e-6
"""The largest difference of a token between items, relative to the largest value."""
_BEHIND = 16
"""How many modules may begin behind the layer until one of known axes takes its output."""


@dataclass(frozen=True, eq=False)
class Observed:
    """What was seen in one pass over two different items.

    Attributes:
        output: of the layer.
        order: names of the modules that finished, in order, the layer last.
        taken: the axis on which the module that takes this output has its channels, either itself
            or after operations that leave every value in its place (a residual sum, an activation,
            dropout); None where no such module is known.
        alike: for each number of tokens, which of them do not come from the items: those that were
            the same for both items in the first tensor of so many tokens in which some, and not
            all, were; or that were carried on from there by themselves, as PiT does from stage to
            stage.
    """

    output: Tensor
    order: tuple[str, ...]
    taken: int | None
    alike: Mapping[int, tuple[int, ...]]


def observe(module: nn.Module, layer: str | None, two: Arguments) -> Observed:
    """Run two items, and a few modules behind the layer.

    Args:
        module: the network, in evaluation mode.
        layer: a name, or None for the output of the network.
        two: two items that differ.

    Raises:
        BackboneError: as for :func:`headstart.modules.forward.capture`.
    """
    pass_ = _Pass(module, layer)
    with as_written(module), hooked(pass_.names, before=pass_.before, after=pass_.after):
        try:
            output = module(*two.args, **two.kwargs)
            if layer is None and not pass_.made:  # TorchScript calls no hooks
                pass_.after("", output)
        except StopForward as stop:
            if stop is not pass_.done:
                raise
            pass_.done.__traceback__ = None  # holds the activations of the pass
        except Exception:
            # Behind the layer, weights may be missing.
            if not pass_.made:
                raise
    if not pass_.made:  # says why
        capture(module, [layer], copied, *two.args, **two.kwargs)
    taken = pass_.taken
    if taken is None and pass_.later:
        taken = _taken_in_place(pass_, module, two)
    return Observed(pass_.copy, tuple(pass_.order), taken, pass_.alike)


def _taken_in_place(pass_: _Pass, module: nn.Module, two: Arguments) -> int | None:
    """Return the axis for the first module behind the layer that one value reaches in its place."""
    copy = pass_.copy
    if not copy.is_floating_point() or not copy.numel():
        return None
    place = tuple(size // 2 for size in copy.shape)
    done = StopForward()
    seen: dict[str, tuple[Tensor, int]] = {}
    made: list[bool] = []

    def after(name: str, output: Any) -> Any:
        if name != pass_.layer or made:
            return None
        made.append(True)
        tensor = first_tensor(output, name).clone()
        tensor[place] += float(copy.abs().max()) or 1.0
        return (tensor, *output[1:]) if isinstance(output, tuple | list) else tensor

    def before(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not made or name in seen:
            return
        taker = pass_.later.get(name)
        for value in tensors_in((args, kwargs)):
            if taker is not None and value.shape == taker.shape:
                axis = _input_axis(pass_.names[name], value)
                if axis is not None:
                    seen[name] = (value.detach().clone(), axis)
        if len(seen) == len(pass_.later):
            raise done

    with as_written(module), hooked(pass_.names, before=before, after=after):
        try:
            module(*two.args, **two.kwargs)
        except StopForward as stop:
            if stop is not done:
                raise
        except Exception:
            return None
    for name, (value, axis) in seen.items():
        differs = (value != pass_.later[name]).nonzero()
        if differs.tolist() == [list(place)]:
            return axis
    return None


def output_of(module: nn.Module, layer: str | None, inputs: Arguments) -> Tensor:
    """Run a network up to a layer, and return a copy of its output."""
    return capture(module, [layer], copied, *inputs.args, **inputs.kwargs)[layer]


def copied(_layer: str | None, output: Tensor) -> Tensor:
    """Read an output before a later operation can overwrite it."""
    return output.detach().clone()


class _Pass:
    """Notes what hooks see."""

    def __init__(self, module: nn.Module, layer: str | None) -> None:
        self.names = dict(module.named_modules())
        if layer is not None:  # a second name of a module is not among them
            self.names[layer] = find_layer(module, layer)
        self.layer = layer or ""
        self.made: list[Tensor] = []
        self.copy: Tensor
        self.order: list[str] = []
        self.taken: int | None = None
        self.later: dict[str, Tensor] = {}  # inputs of modules of known axes behind the layer
        self.alike: dict[int, tuple[int, ...]] = {}
        self.carried: list[Tensor] = []  # as few tokens as were special so far, by themselves
        self.behind = 0
        self.done = StopForward()

    def before(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not self.made:
            self._compare((args, kwargs))
            return
        self.behind += 1
        for value in tensors_in((args, kwargs)):
            axis = _input_axis(self.names[name], value)
            if axis is not None and _is(value, self.made[0]):
                self.taken = axis
            elif axis is not None and value.shape == self.copy.shape and name not in self.later:
                self.later[name] = copied(name, value)
        if self.taken is not None or self.behind == _BEHIND:
            raise self.done

    def after(self, name: str, output: Any) -> None:
        if self.made:
            return
        self.order.append(name)
        self._compare(output)
        if name == self.layer:
            tensor = first_tensor(output, f"layer '{name}'")
            self.copy = copied(name, tensor)
            self.made.append(tensor)
            if not name:
                raise self.done

    def _compare(self, values: Any) -> None:
        """Note the tokens that are the same in both items, if some and not all are."""
        for value in tensors_in(values):
            if value.ndim != 3 or not value.is_floating_point():
                continue
            for batch, position in ((0, 1), (1, 0)):
                count = value.shape[position]
                if value.shape[batch] == 2 and count not in self.alike:
                    pair = value.detach().movedim(batch, 0)
                    same = _same_tokens(pair.float())
                    if not same:
                        same = self._carried_tokens(pair)
                    if 0 < len(same) < count:
                        self.alike[count] = same

    def _carried_tokens(self, pair: Tensor) -> tuple[int, ...]:
        """Return the first tokens of ``(2, tokens, c)`` if they were seen by themselves before."""
        count = pair.shape[1]
        if any(count == len(special) for special in self.alike.values()):
            self.carried.append(pair.clone())
            return ()
        for few in self.carried:
            n = few.shape[1]
            if n < count and few.shape[2] == pair.shape[2] and torch.equal(few, pair[:, :n]):
                return tuple(range(n))
        return ()


def _same_tokens(pair: Tensor) -> tuple[int, ...]:
    """Return which tokens of ``(2, tokens, c)`` are equal in both items."""
    gap = (pair[0] - pair[1]).abs().amax(dim=-1)
    scale = float(pair.abs().max()) or 1.0
    return tuple((gap <= _EQUAL * scale).nonzero().flatten().tolist())


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in nested tuples, lists and mappings."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, Mapping):
        yield from tensors_in(list(value.values()))


def _is(value: Tensor, made: Tensor) -> bool:
    return (
        value.shape == made.shape
        and value.stride() == made.stride()
        and value.data_ptr() == made.data_ptr()
    )


def _input_axis(module: nn.Module, value: Tensor) -> int | None:
    """Return the axis of the channels that a module expects in its input; None if not known."""
    if isinstance(module, nn.Linear):
        return value.ndim - 1
    if isinstance(module, nn.LayerNorm) and len(module.normalized_shape) == 1:
        if type(module).forward is nn.LayerNorm.forward:
            return value.ndim - 1
        # A subclass may normalise over another axis: it is the one of this size.
        axes = [i for i, size in enumerate(value.shape) if size == module.normalized_shape[0]]
        return axes[0] if len(axes) == 1 else None
    if isinstance(module, KerasPart):
        axis = module.input_channels
        return None if axis is None else axis % value.ndim
    return 1 if isinstance(module, _ConvNd | _BatchNorm) else None


__all__ = ["Observed", "copied", "observe", "output_of", "tensors_in"]
