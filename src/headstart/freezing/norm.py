"""Batch-norm statistics as a choice: measure the drift, re-estimate exactly, blend."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

import torch
from torch import Tensor, nn

from headstart.core.errors import FreezeError
from headstart.core.patterns import covers
from headstart.core.progress import Reporter, SilentReporter
from headstart.core.wording import count as counted
from headstart.core.wording import did_you_mean, format_bytes, quoted
from headstart.freezing import passes
from headstart.freezing.hold import hold_of
from headstart.freezing.moments import Moments
from headstart.freezing.plan import FreezePlan
from headstart.modules import kinds
from headstart.modules.digests import digest
from headstart.modules.keras_contract import as_module
from headstart.modules.modes import evaluation_mode

Method = Literal["layerwise", "one_pass"]
_STAMP = "_headstart_reestimated"


@dataclass(frozen=True, eq=False)
class LayerStatistics:
    """Statistics of one layer before and after re-estimation.

    Attributes:
        name: the layer.
        count: how many values were measured per channel (items times positions).
        old_mean, old_var: ``(c,)`` running statistics before, in the buffers' dtype.
        mean, var: ``(c,) float64`` population statistics; ``var`` is the biased variance.
    """

    name: str
    count: int
    old_mean: Tensor
    old_var: Tensor
    mean: Tensor
    var: Tensor


@dataclass(frozen=True, eq=False)
class Reestimation:
    """What :func:`reestimate` did.

    Attributes:
        method: ``layerwise`` or ``one_pass``.
        layers: the layers, in the order of the forward.
        passes: the number of passes over the batches, without the trace of one batch.
        skipped: layers whose running statistics were left alone because they do not describe a
            population (instance norms).
    """

    method: Method
    layers: tuple[LayerStatistics, ...]
    passes: int
    skipped: tuple[str, ...]

    def __str__(self) -> str:
        values = min((layer.count for layer in self.layers), default=0)
        skipped = f"; {len(self.skipped)} left unchanged: {quoted(self.skipped, 4)}"
        return (
            f"{counted(len(self.layers), 'layer')} re-estimated ({self.method},"
            f" {counted(self.passes, 'pass', 'passes')}, at"
            f" least {counted(values, 'value')} a channel){skipped if self.skipped else ''}"
        )


def reestimate(
    model: nn.Module,
    batches: Iterable[Any],
    method: Method = "layerwise",
    *,
    layers: Sequence[str] = ("*",),
    forward: passes.Forward = passes.default_forward,
    in_memory: bool | None = None,
    memory_limit: int = 2 * 2**30,
    reporter: Reporter | None = None,
) -> Reestimation:
    """Replace running statistics by exact population statistics of the given data, in place.

    ``layerwise`` yields the statistics by which one batch of all the data would be normalised in
    training mode: every layer is measured on inputs that the layers before it have normalised by
    their own new statistics. ``one_pass`` measures every layer while the layers before it still
    normalise by the old statistics: one pass, no memory, and exact for the first layer only.

    Moments are accumulated in float64 by merging, so that the result depends on neither the size
    nor the order of the batches, up to the rounding of the forward itself. ``running_var`` becomes
    the *biased* variance, by which a batch is normalised, not the unbiased one that torch stores
    (larger by n / (n - 1)), so that evaluation reproduces the result of that one giant batch.
    Parameters, batch counters, modes and random state do not change.

    Cost with L layers: ``one_pass`` takes one pass. ``layerwise`` in memory takes one pass, with
    the activations of all data at one depth in memory. Otherwise ``layerwise`` takes L passes,
    each stopped at its layer, which is about L / 2 full passes.

    Args:
        model: the model. Layers that a freeze contract keeps fixed are refused.
        batches: what the model is called on: tensors, dicts of keyword arguments, or tuples whose
            first entry is the input. It must be possible to iterate over them repeatedly, except
            with ``one_pass`` or ``in_memory=True``. Use the training split, without augmentation.
        method: ``layerwise`` or ``one_pass``.
        layers: names, globs or parts to re-estimate; all by default.
        forward: how to run a batch, ``forward(model, batch)``.
        in_memory: whether ``layerwise`` keeps the activations of all batches in memory. By default
            it does if three times the largest norm input over all batches is at most
            ``memory_limit``, estimated from the first batch.
        memory_limit: in bytes, by default 2 GiB.
        reporter: receives a note on the choice of ``in_memory``, and the progress.

    Returns:
        The old and new statistics of every layer, for :func:`blend`.

    Raises:
        FreezeError: there is nothing to re-estimate, there are no batches, they cannot be
            repeated, or a layer runs twice in a forward. The statistics are then unchanged.
    """
    if method not in ("layerwise", "one_pass"):
        raise FreezeError(f"method is {method!r}, expected 'layerwise' or 'one_pass'")
    model, reporter = as_module(model), reporter or SilentReporter()
    chosen, skipped = running_norms(model, layers)
    _refuse_held(chosen)
    before = {name: statistics_of(layer) for name, layer in chosen.items()}
    measured: dict[str, Moments] = {}

    def settle(name: str, moments: Moments) -> None:
        measured[name] = moments
        _set(chosen[name], moments.mean, moments.variance)

    try:
        with torch.no_grad(), evaluation_mode(model):
            if method == "one_pass":
                for name, moments in passes.observe(model, chosen, batches, forward).items():
                    settle(name, moments)
                rounds = 1
            else:
                rounds = _layerwise(
                    model, chosen, batches, forward, settle, in_memory, memory_limit, reporter
                )
    except BaseException:
        for name, (mean, var) in before.items():
            _set(chosen[name], mean, var)
        raise
    for layer in chosen.values():
        stamp(layer)
    statistics = tuple(
        LayerStatistics(name, moments.count, *before[name], moments.mean, moments.variance)
        for name, moments in measured.items()
    )
    return Reestimation(method, statistics, rounds, skipped)


def blend(model: nn.Module, reestimation: Reestimation, alpha: float) -> None:
    """Set running statistics between the old ones and the re-estimated ones, in place.

    Mean and variance are interpolated linearly, ``(1 - alpha) · old + alpha · new``, as in
    Schneider et al. (2020), "Improving robustness against common corruptions by covariate shift
    adaptation" (arXiv 2006.16971), equation 1. Further calls with another ``alpha`` are possible.

    Args:
        model: the model that was re-estimated.
        reestimation: what :func:`reestimate` returned for it.
        alpha: 0 for the old statistics, 1 for the re-estimated ones.

    Raises:
        FreezeError: ``alpha`` is not in [0, 1], or a layer is missing or kept fixed.
    """
    if not 0.0 <= alpha <= 1.0:
        raise FreezeError(f"alpha is {alpha}, expected a number from 0 to 1")
    modules = dict(as_module(model).named_modules())
    gone = [layer.name for layer in reestimation.layers if layer.name not in modules]
    if gone:
        raise FreezeError(f"the model has no layers {quoted(gone)}", hint="pass the same model")
    chosen = {layer.name: modules[layer.name] for layer in reestimation.layers}
    _refuse_held(chosen)
    for layer in reestimation.layers:
        mean = _between(layer.old_mean, layer.mean, alpha)
        var = _between(layer.old_var, layer.var, alpha)
        _set(chosen[layer.name], mean, var)
        if alpha == 0.0:
            unstamp(chosen[layer.name])
        else:
            stamp(chosen[layer.name])


def stamp(module: nn.Module) -> None:
    """Mark a layer's current running statistics as re-estimated."""
    module.__dict__[_STAMP] = _content(module)


def unstamp(module: nn.Module) -> None:
    """Remove the mark of :func:`stamp`."""
    module.__dict__.pop(_STAMP, None)


def require_reestimated(model: nn.Module, plan: FreezePlan) -> None:
    """Refuse a plan with ``norm='reestimated'`` for layers whose statistics are not.

    Raises:
        FreezeError: the statistics of a layer were never re-estimated, or have moved since.
    """
    modules = dict(model.named_modules())
    wrong = [
        intent.name
        for intent in plan.intents
        if intent.policy.norm == "reestimated"
        and kinds.is_reestimable(module := modules[intent.name])
        and module.__dict__.get(_STAMP) != _content(module)
    ]
    if wrong:
        raise FreezeError(
            f"the policy says norm='reestimated', but the statistics of {quoted(wrong, 6)} were"
            " not re-estimated",
            hint="call headstart.reestimate(model, batches) before freezing",
        )


def _content(module: nn.Module) -> str:
    names = [name for name in kinds.running_buffers(module) if name.startswith("running_")]
    return "".join(digest(module.get_buffer(name)) for name in names)


def _layerwise(
    model: nn.Module,
    chosen: Mapping[str, nn.Module],
    batches: Iterable[Any],
    forward: passes.Forward,
    settle: passes.Settle,
    in_memory: bool | None,
    memory_limit: int,
    reporter: Reporter,
) -> int:
    """Measure layer by layer, in memory or not, and return the number of passes."""
    if in_memory is not True and iter(batches) is batches:  # an iterator, which runs only once
        batches = list(batches)
    iterator = iter(batches)
    first = next(iterator, None)
    if first is None:
        raise FreezeError("there are no batches to re-estimate from", hint="give at least one")
    order, largest = passes.trace(model, chosen, first, forward)
    if in_memory is None:
        count = len(batches) if isinstance(batches, Sized) else None
        needed = None if count is None else 3 * largest * count
        in_memory = needed is not None and needed <= memory_limit
        size = "unknown" if needed is None else format_bytes(needed)
        way = "one pass in memory" if in_memory else f"{counted(len(order), 'pass', 'passes')}"
        reporter.note(f"re-estimating {counted(len(order), 'layer')} in {way} (activations {size})")
    if in_memory:
        passes.lockstep(model, chosen, chain([first], iterator), forward, settle)
        return 1
    with reporter.task("re-estimating", len(order), "layers") as task:

        def settle_and_count(name: str, moments: Moments) -> None:
            settle(name, moments)
            task.advance()

        passes.replay(model, chosen, order, batches, forward, settle_and_count)
    return len(order)


def running_norms(
    model: nn.Module, patterns: Sequence[str]
) -> tuple[dict[str, nn.Module], tuple[str, ...]]:
    """Return the batch norms that patterns select, and the other norms with running statistics."""
    if isinstance(patterns, str):
        raise FreezeError(f"layers is the string {patterns!r}", hint=f"pass [{patterns!r}]")
    running = {n: m for n, m in model.named_modules() if kinds.is_running_norm(m)}
    for pattern in patterns:
        if pattern != "*" and not any(covers(pattern, name) for name in running):
            raise FreezeError(
                f"layers has {pattern!r}, which selects no layer with running statistics",
                hint=did_you_mean(pattern, running),
            )
    named = {n: m for n, m in running.items() if any(p == "*" or covers(p, n) for p in patterns)}
    fitting = {name: layer for name, layer in named.items() if kinds.is_reestimable(layer)}
    if not fitting:
        raise FreezeError(
            "the model has no batch norm with running statistics",
            hint="layer, group and RMS norms have none, so there is nothing to re-estimate",
        )
    return fitting, tuple(name for name in named if name not in fitting)


def _refuse_held(chosen: Mapping[str, nn.Module]) -> None:
    held = [n for n, m in chosen.items() if (h := hold_of(m)) and not h.policy.norm_updates]
    if held:
        raise FreezeError(
            f"the statistics of {quoted(held, 4)} are frozen",
            hint="release the contract (FreezeHandle.of(model).release(), of a copy too),"
            " re-estimate, and freeze with norm='reestimated'",
        )


def statistics_of(layer: nn.Module) -> tuple[Tensor, Tensor]:
    """Return copies of the running mean and variance of a layer, ``(c,)`` each."""
    return layer.get_buffer("running_mean").clone(), layer.get_buffer("running_var").clone()


def _set(layer: nn.Module, mean: Tensor, var: Tensor) -> None:
    with torch.no_grad():
        layer.get_buffer("running_mean").copy_(mean)
        layer.get_buffer("running_var").copy_(var)


def _between(old: Tensor, new: Tensor, alpha: float) -> Tensor:
    # Exact at both ends: alpha = 0 restores the old bits, alpha = 1 the re-estimated ones.
    if alpha == 0.0:
        return old
    wide = old.to("cpu", torch.float64)
    return new if alpha == 1.0 else (1.0 - alpha) * wide + alpha * new


__all__ = [
    "LayerStatistics",
    "Moments",
    "Reestimation",
    "blend",
    "reestimate",
    "require_reestimated",
    "stamp",
    "unstamp",
]
