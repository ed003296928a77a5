"""Which axis of a layer's output holds its channels, found by experiment.

Operations with parameters have units: the outputs of a linear layer, the channels of a convolution
or of a norm. If one unit of an operation before the layer is changed, and the output changes at
some indices of an axis only, other units at others, that axis holds the channels. The operation
that finishes last before the layer decides, if it is a norm or a convolution. Otherwise the module
that takes the output has to agree, where it is one whose axis is known; or else the operations
before the last one must not disagree, as they do in networks that mix tokens by linear layers.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from headstart.core.arguments import Arguments
from headstart.modules.keras import KerasPart
from headstart.modules.kinds import is_norm
from headstart.modules.observing import Observed, output_of

_FRACTIONS = tuple(0.6180339887 * i % 1 for i in range(11))
"""Where units are tried, as fractions of their number: spread, and off any grid of heads."""
_ENOUGH = 4
"""Changes of one operation that move the output; two must do where there are no more."""
_TRIES = 5
"""Changes of an operation that move nothing, after which it is taken to have no part in it."""
_UPSTREAM = 2
"""Further operations that are asked once one has shown an axis."""
_MISSES = 6
"""Operations that move the output everywhere, after which no axis is expected to show."""
_MOST = 40
"""Operations that are tried at most."""


@dataclass(frozen=True)
class _Units:
    """A parameter of an operation, and its axis of units."""

    name: str
    owner: nn.Module
    key: str
    axis: int


@dataclass(frozen=True)
class _Shown:
    """What an operation shows: the axes that hold its units, and those with one index a unit."""

    name: str
    owner: nn.Module
    axes: frozenset[int]
    single: frozenset[int]


@dataclass(frozen=True)
class Experiment:
    """A network, one item, and the output to compare with.

    Attributes:
        module: the network, in evaluation mode. Copies of single parameters stand in for them for
            the length of a pass; none is written to.
        layer: a name, or None for the output of the network.
        inputs: one item, or as few as the network takes.
        base: the output of the layer for ``inputs``.
        batch: its axis of the items.
        varies: whether the output depends on the item.
    """

    module: nn.Module
    layer: str | None
    inputs: Arguments
    base: Tensor
    batch: int
    varies: bool = True


def find_channels(experiment: Experiment, observed: Observed) -> tuple[int | None, str]:
    """Find the axis of the channels of a layer's output.

    Returns:
        The axis, or None with the reason.
    """
    base, layer = experiment.base, experiment.layer
    if not base.is_floating_point():
        return None, f"its values are {str(base.dtype).removeprefix('torch.')}"
    if layer is not None and isinstance(experiment.module.get_submodule(layer), nn.RNNBase):
        return base.ndim - 1, ""  # as documented; a unit reaches every unit of later steps
    shown = _shown(experiment, observed.order)
    last = next(shown, None)
    if last is None:
        if observed.taken is not None:
            return observed.taken, ""
        return None, "no axis of it holds the channels of an operation before it"
    if len(last.axes) > 1:
        listed = " and ".join(str(axis) for axis in sorted(last.axes))
        return None, f"the channels of '{last.name}' lie on its axes {listed}"
    (axis,) = last.axes
    if observed.taken == axis or _says_itself(last.owner, axis):
        return axis, ""
    for other in shown:
        if axis not in other.axes and other.single:
            if observed.taken in other.axes:
                return observed.taken, ""  # the last operation mixes the positions
            return None, (
                f"the channels of '{last.name}' lie on its axis {axis}, those of '{other.name}' "
                f"before it on its axis {min(other.single)}"
            )
    return axis, ""


def _says_itself(module: nn.Module, axis: int) -> bool:
    """Whether units on this axis are channels by the kind of module; of a linear layer, they may
    be tokens.
    """
    return is_norm(module) or (isinstance(module, _ConvNd) and axis == 1)


def _shown(experiment: Experiment, order: Sequence[str]) -> Iterator[_Shown]:
    """Yield what operations before the layer show, the last first, as far as they show an axis."""
    first, asked = True, 0
    operations = _operations(experiment, order)
    most = _MOST if experiment.varies else _MISSES  # what does not reach the output shows nothing
    for operation in itertools.islice(operations, most):
        shown = _axes(experiment, operation)
        if shown is None:
            continue
        if shown.axes:
            yield shown
        if first and shown.axes:
            first, asked = False, 0
            continue
        asked += 1
        if asked == (_MISSES if first else _UPSTREAM):
            return


def _operations(experiment: Experiment, order: Sequence[str]) -> Iterator[tuple[_Units, ...]]:
    """Yield the operations with units, those that finish last first.

    A module that is never called, but whose parameters its parent reads (the projection of
    ``MultiheadAttention``, the entries of a ``ParameterList``), counts as a part of its parent.
    Modules around the layer come last, since few of their own parameters act before it. They come
    first where nothing comes through: it may be a scale of theirs that is zero.
    """
    module, layer = experiment.module, experiment.layer or ""
    names, called = dict(module.named_modules()), set(order)
    quiet: dict[str, list[str]] = {}
    for name in names:
        parent = name
        while parent and parent not in called:
            parent = parent.rpartition(".")[0]
        if parent != name:
            quiet.setdefault(parent, []).append(name)
    around = [layer.rpartition(".")[0]] if layer else []
    while around and around[-1]:
        around.append(around[-1].rpartition(".")[0])
    before = [*reversed(order)]
    for name in dict.fromkeys([*before, *around] if experiment.varies else [*around, *before]):
        inside = quiet.get(name, [])
        if name not in called:  # still running: of what has run, only TorchScript calls no hooks
            inside = [part for part in inside if isinstance(names[part], torch.jit.ScriptModule)]
        for part in [*reversed(inside), name]:
            units = tuple(_units(part, names[part]))
            if units:
                yield units


def _units(name: str, module: nn.Module) -> Iterator[_Units]:
    """Yield the tensors of a module of which single units can be changed, the best first."""
    tensors = {
        key: tensor
        for key, tensor in {**module._parameters, **module._buffers}.items()
        if tensor is not None and tensor.is_floating_point() and tensor.numel() > 1
    }
    flat = {
        key: tensor.shape.index(tensor.numel())
        for key, tensor in tensors.items()
        if tensor.numel() in tensor.shape
    }
    for key in sorted(flat, key=lambda key: (key != "bias", "bias" not in key))[:2]:
        yield _Units(name, module, key, flat[key])
    if isinstance(module, KerasPart) and (found := module.output_units) is not None:
        key, axis = found
        yield _Units(name, module, key, axis % tensors[key].ndim)
        return
    if "weight" not in tensors or "weight" in flat:
        return
    if isinstance(module, _ConvTransposeNd):
        if module.groups == 1:
            yield _Units(name, module, "weight", 1)
    elif isinstance(module, nn.Embedding):
        yield _Units(name, module, "weight", 1)
    elif isinstance(module, nn.Linear | _ConvNd):
        yield _Units(name, module, "weight", 0)


def _axes(experiment: Experiment, operation: Sequence[_Units]) -> _Shown | None:
    """Find the axes that hold the units of an operation; None if changing it moves nothing."""
    base = experiment.base
    for units in operation:
        moved = _moved(experiment, units)
        if moved:
            changes = {
                axis: [change[axis] for change in moved.values()] for axis in range(base.ndim)
            }
            axes = frozenset(
                axis
                for axis, size in enumerate(base.shape)
                if axis != experiment.batch and size > 1 and _apart(changes[axis], size)
            )
            # Where positions are few and activations saturate, a unit may move at some positions
            # only. The axis on which each unit has its own number is then that of the units.
            count = _place(units)[units.key].shape[units.axis]
            numbered = [
                axis
                for axis in axes
                if base.shape[axis] == count
                and all(change[axis] == {number} for number, change in moved.items())
            ]
            if len(axes) > 1 and len(numbered) == 1:
                axes = frozenset(numbered)
            single = {axis for axis in axes if all(len(change) == 1 for change in changes[axis])}
            return _Shown(units.name, units.owner, axes, frozenset(single))
    return None


def _apart(changes: Sequence[frozenset[int]], size: int) -> bool:
    """Whether changes are confined, each to indices of its own."""
    return (
        all(len(change) < size for change in changes)
        and len(set(changes)) > 1
        and all(a == b or not a & b for a, b in itertools.combinations(changes, 2))
    )


def _moved(experiment: Experiment, units: _Units) -> dict[int, list[frozenset[int]]]:
    """Return where the output moves with single units: by their number, the indices on every axis.

    After the first unit that moves it comes the one beside it: of channels that are divided into
    heads, neighbours lie in one head, and units far apart in several.
    """
    base = experiment.base
    count = _place(units)[units.key].shape[units.axis]
    numbers = list(dict.fromkeys(int(fraction * count) for fraction in _FRACTIONS))
    found: dict[int, list[frozenset[int]]] = {}
    tried: set[int] = set()
    while numbers and len(found) < _ENOUGH and (found or len(tried) < _TRIES):
        number = numbers.pop(0)
        if number in tried:
            continue
        tried.add(number)
        with _changed(units, number):
            output = output_of(experiment.module, experiment.layer, experiment.inputs)
        if output.shape != base.shape:
            continue
        differs = (output != base) & ~(output.isnan() & base.isnan())
        if differs.any():
            if not found:
                numbers.insert(0, number + 1 if number + 1 < count else number - 1)
            found[number] = [_indices(differs, axis) for axis in range(base.ndim)]
    return found


def _indices(differs: Tensor, axis: int) -> frozenset[int]:
    lines = differs.movedim(axis, 0).flatten(1).any(dim=1)
    return frozenset(lines.nonzero().flatten().tolist())


def _place(units: _Units) -> dict[str, Any]:
    """Return where the module keeps the tensor."""
    parameters: dict[str, Any] = units.owner._parameters
    return parameters if units.key in parameters else units.owner._buffers


@contextmanager
def _changed(units: _Units, number: int) -> Iterator[None]:
    """Let a copy stand in for a tensor, in which one unit is changed."""
    place = _place(units)
    kept: Tensor = place[units.key]
    copy = kept.detach().clone()
    copy.select(units.axis, number).add_(float(copy.abs().max()) * 0.5 + 0.1)
    is_parameter = isinstance(kept, nn.Parameter)
    place[units.key] = nn.Parameter(copy, requires_grad=False) if is_parameter else copy
    try:
        yield
    finally:
        place[units.key] = kept


__all__ = ["Experiment", "find_channels"]
