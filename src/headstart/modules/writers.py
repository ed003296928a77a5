"""Layers that write to their own state as they run, and how they run when they are frozen.

Most layers that keep a state move it in training mode only, and evaluation mode holds them. Those
below write in every pass, or move a state in training mode that nothing else in that mode needs.
What is not known here shows in ``verify`` and ``guard``, by its content.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import _SpectralNorm

_swap = threading.RLock()


class HeldState:
    """Replaces ``module.forward`` of a frozen layer that would write to its own state.

    Attributes:
        module: the layer.
        inner: a replacement of ``forward`` from before, or None.
        unless_training: run the layer's own forward where its parameters are to get a gradient.
    """

    def __init__(self, module: nn.Module, inner: Any, unless_training: bool = False) -> None:
        self.module = module
        self.inner = inner
        self.unless_training = unless_training

    @property
    def __signature__(self) -> inspect.Signature:
        """The signature of the layer's own forward, since trainers inspect it."""
        return inspect.signature(self._own())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the layer's own forward returns, and leave its state as it is."""
        if self.unless_training and torch.is_grad_enabled():
            own = self.module.parameters(recurse=False)
            if any(parameter.requires_grad for parameter in own):
                return self._own()(*args, **kwargs)
        if _is_a(self.module, "ObserverBase"):
            return args[0] if args else next(iter(kwargs.values()))  # what observers return
        for kind, forwards, run in _RUNS if self.inner is None else ():
            if kind(self.module) and type(self.module).forward.__qualname__ in forwards:
                return run(self.module, *args, **kwargs)
        with _on_copies(self.module):
            return self._own()(*args, **kwargs)

    def _own(self) -> Callable[..., Any]:
        if self.inner is not None:
            return self.inner  # type: ignore[no-any-return]
        return type(self.module).forward.__get__(self.module)  # type: ignore[no-any-return]


@contextmanager
def held_states(module: nn.Module) -> Iterator[None]:
    """Keep every layer of a network from writing to its own state while the context is open."""
    held: list[tuple[nn.Module, Any]] = []
    for part in module.modules():
        own = part.__dict__.get("forward")
        if writes(part) is None or is_uncalibrated(part) or _is_held(own):
            continue
        held.append((part, own))
        part.__dict__["forward"] = HeldState(part, own, unless_training=True)
    try:
        yield
    finally:
        for part, own in held:
            del part.__dict__["forward"]
            if own is not None:
                part.__dict__["forward"] = own


def _is_held(forward: Any) -> bool:
    """Whether a replaced forward holds the state already, perhaps under another replacement."""
    return isinstance(forward, HeldState) or isinstance(getattr(forward, "inner", None), HeldState)


def writes(module: nn.Module) -> str | None:
    """Say what a layer writes in every pass, in evaluation mode too; None: nothing is known."""
    if _renormalises(module):
        return f"renormalises its rows (max_norm={module.max_norm:g})"
    if _is_a(module, "ObserverBase") or _is_a(module, "FakeQuantizeBase"):
        return "observes ranges for quantization"
    return None


def moves_in_training(module: nn.Module) -> bool:
    """Whether training mode does nothing to a layer but move a state: a spectral norm's vectors."""
    # The older form is a hook of the module whose weight it normalises.
    hooks = module._forward_pre_hooks.values()
    return isinstance(module, _SpectralNorm) or any(
        type(hook).__name__ == "SpectralNorm" for hook in hooks
    )


def is_uncalibrated(module: nn.Module) -> bool:
    """Whether a layer quantizes by a range that it has not observed yet."""
    if not _is_a(module, "FakeQuantizeBase") or getattr(module, "is_dynamic", False):
        return False
    low = getattr(getattr(module, "activation_post_process", None), "min_val", None)
    observes = getattr(module, "observer_enabled", [0])[0] == 1
    return observes and isinstance(low, Tensor) and not (low.numel() and low.isfinite().all())


def _renormalises(module: nn.Module) -> bool:
    return isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.max_norm is not None


def _is_a(module: nn.Module, name: str) -> bool:
    """Whether a class of torch's quantization is among the bases; its package is not imported."""
    return name in _quantization_bases(type(module))  # type: ignore[arg-type]


@functools.cache
def _quantization_bases(kind: type) -> frozenset[str]:
    return frozenset(
        base.__name__
        for base in kind.__mro__
        if base.__module__.startswith("torch.ao.quantization")
    )


@contextmanager
def _on_copies(module: nn.Module) -> Iterator[None]:
    """Let a module's own forward write to copies of its own parameters and buffers."""
    with _swap:
        kept = [(table, dict(table)) for table in (module._parameters, module._buffers)]
        for table, before in kept:
            for name, tensor in before.items():
                if tensor is not None:
                    table[name] = _copy(tensor)
        try:
            yield
        finally:
            for table, before in kept:
                table.update(before)  # type: ignore[arg-type]


def _copy(tensor: Tensor) -> Any:
    copy = tensor.detach().clone()
    is_parameter = isinstance(tensor, nn.Parameter)
    return nn.Parameter(copy, requires_grad=False) if is_parameter else copy


def _embedding(module: Any, input: Tensor) -> Tensor:
    """Look rows up in a renormalised copy of those that are asked for.

    ``max_norm`` acts row by row, so that the result has the bits of the layer's own.
    """
    used, places = torch.unique(input, return_inverse=True)
    rows = module.weight.detach()[used]
    return F.embedding(places, rows, max_norm=module.max_norm, norm_type=module.norm_type)


def _embedding_bag(
    module: Any,
    input: Tensor,
    offsets: Tensor | None = None,
    per_sample_weights: Tensor | None = None,
) -> Tensor:
    """As :func:`_embedding`, for sums, means and maxima of rows."""
    used, places = torch.unique(input, return_inverse=True)
    padding = None
    if module.padding_idx is not None:
        found = (used == module.padding_idx).nonzero()
        padding = int(found[0]) if len(found) else None
    return F.embedding_bag(
        places,
        module.weight.detach()[used],
        offsets if offsets is None else offsets.to(places.dtype),
        max_norm=module.max_norm,
        norm_type=module.norm_type,
        mode=module.mode,
        per_sample_weights=per_sample_weights,
        include_last_offset=module.include_last_offset,
        padding_idx=padding,
    )


def _fake_quantize(module: Any, x: Tensor) -> Tensor:
    """Quantize by the scale that the layer has; its own forward would take the batch's range."""
    if module.fake_quant_enabled[0] != 1:
        return x
    observer = module.activation_post_process
    bounds = (observer.quant_min, observer.quant_max)
    scale, zero = module.scale, module.zero_point
    if module.is_per_channel:
        return torch.fake_quantize_per_channel_affine(x, scale, zero, module.ch_axis, *bounds)
    return torch.fake_quantize_per_tensor_affine(x, scale, zero, *bounds)


_RUNS: tuple[tuple[Callable[[Any], bool], tuple[str, ...], Callable[..., Any]], ...] = (
    (lambda m: isinstance(m, nn.Embedding), ("Embedding.forward",), _embedding),
    (lambda m: isinstance(m, nn.EmbeddingBag), ("EmbeddingBag.forward",), _embedding_bag),
    (
        lambda m: _is_a(m, "FakeQuantizeBase") and not getattr(m, "is_dynamic", False),
        ("FakeQuantize.forward", "FusedMovingAvgObsFakeQuantize.forward"),
        _fake_quantize,
    ),
)
"""Which layers run how, if their forward is torch's own; others run on copies of their state."""


__all__ = ["HeldState", "held_states", "is_uncalibrated", "moves_in_training", "writes"]
