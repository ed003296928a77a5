"""Running a user's network, or its first layers, once more, to measure: nothing of it remains."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from headstart.audit.events import Pass
from headstart.audit.facts import Part
from headstart.modules.forward import StopForward, aside, hooked
from headstart.modules.modes import evaluate, untouched
from headstart.modules.observing import tensors_in

SETTLED = 100
"""Batches after which running statistics have forgotten where they began."""


def images_of(seen: Pass) -> Tensor | None:
    """Return the images that a network was called on: its first ``(n, c, h, w) float`` argument."""
    for tensor in tensors_in([seen.args, seen.kwargs]):
        if tensor.ndim == 4 and tensor.is_floating_point() and min(tensor.shape) > 0:
            return tensor
    return None


def rows_of(seen: Pass) -> Tensor | None:
    """Return the rows that a network was called on: its first ``(n, d) float`` argument."""
    for tensor in tensors_in([seen.args, seen.kwargs]):
        if tensor.ndim == 2 and tensor.is_floating_point() and min(tensor.shape) > 0:
            return tensor
        return None
    return None


def learnt_statistics(part: Part) -> bool:
    """Whether a norm had settled running statistics before its first run here.

    Those of a new one are 0 and 1. A count of a few batches says that training has just begun; many
    converted weights bring no count, which then is 0.
    """
    mean, var = part.first.get("running_mean"), part.first.get("running_var")
    batches = part.first.get("num_batches_tracked")
    if mean is None or var is None or (batches is not None and 0 < int(batches) < SETTLED):
        return False
    return bool((mean.abs() > 1e-6).any()) or bool(((var - 1).abs() > 1e-6).any())


def early_norms(seen: Pass, most: int) -> tuple[Part, ...]:
    """Return the first norms of a pass that know what they were given in pre-training."""
    found: dict[int, Part] = {}
    for call in seen.calls:
        part = call.part
        if part.running and not part.items_only and learnt_statistics(part):
            found.setdefault(id(part), part)
        if len(found) == most:
            break
    return tuple(found.values())


def inputs_inside(
    seen: Pass, modules: Mapping[str, nn.Module], *, evaluation: bool = False
) -> dict[str, Tensor]:
    """Run a network once more, as it was called, and return what modules inside are given.

    Args:
        seen: a pass that is being told about.
        modules: by name; the run ends when all have been reached.
        evaluation: whether everything runs in evaluation mode; by default as it is.
    """
    found: dict[str, Tensor] = {}

    def take(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        given = next(iter(tensors_in([args, kwargs])), None)
        if given is not None:
            found.setdefault(name, given.detach())
        return len(found) == len(modules)

    run(seen, modules, take, evaluation=evaluation)
    return found


def run(
    seen: Pass,
    modules: Mapping[str, nn.Module],
    take: Callable[[str, tuple[Any, ...], dict[str, Any]], bool],
    *,
    evaluation: bool,
    instead: tuple[Tensor, Tensor] | None = None,
    statistics: Sequence[Part] = (),
) -> None:
    """Run a network once more.

    Args:
        seen: a pass that is being told about.
        modules: before they run, ``take`` is called with their name and arguments; the run ends
            where it returns True.
        take: see ``modules``.
        evaluation: run in evaluation mode.
        instead: a tensor among the arguments, and what takes its place.
        statistics: norms that run with the statistics that they had before their first run.
    """
    module = seen.network.module
    if module is None or seen.args is None:
        return
    args, kwargs = seen.args, dict(seen.kwargs or {})
    if instead is not None:
        old, new = instead
        args, kwargs = tree_map(lambda each: new if each is old else each, (args, kwargs))
    stop = StopForward()

    def before(name: str, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        if take(name, given, named):
            raise stop

    with untouched(module), aside(), torch.no_grad():
        if evaluation:
            evaluate(module)
        for part in statistics:
            norm = part.ref()
            for name, value in part.first.items():
                if norm is not None and name.startswith("running_"):
                    # In its place, not into it: autograd may need what it holds.
                    norm._buffers[name] = value
        with hooked(modules, before=before):
            try:
                module(*args, **kwargs)
            except StopForward as end:
                if end is not stop:
                    raise


__all__ = [
    "early_norms",
    "images_of",
    "inputs_inside",
    "learnt_statistics",
    "rows_of",
    "run",
]
