"""What kind of module it is, for freezing: a norm, a running norm, a source of randomness."""

from __future__ import annotations

import re

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.instancenorm import _InstanceNorm

from headstart.modules.keras import KerasPart

_NORM_CLASSES = (_BatchNorm, _InstanceNorm, nn.LayerNorm, nn.GroupNorm)
_NORM_NAME = re.compile(r"norm", re.IGNORECASE)
_RANDOM_NAME = re.compile(r"drop|stochasticdepth|stochastic_depth", re.IGNORECASE)
_RATES = ("dropout", "drop_prob", "drop_rate", "dropout_p", "attention_dropout", "attn_drop_p")


def running_buffers(module: nn.Module) -> tuple[str, ...]:
    """Return the module's own buffers that hold running statistics, counters included.

    Any class that registers ``running_mean``, ``running_var`` or another buffer that begins with
    ``running_`` counts, so that norms of other libraries and users are covered.
    """
    own = [name for name, value in module._buffers.items() if value is not None]
    if not any(name.startswith("running_") for name in own):
        return ()
    return tuple(n for n in own if n.startswith("running_") or n == "num_batches_tracked")


def is_running_norm(module: nn.Module) -> bool:
    """Whether the module normalises by running statistics in evaluation mode."""
    return bool(running_buffers(module))


def is_constant_norm(module: nn.Module) -> bool:
    """Whether its running statistics can never move (the frozen batch norms of the libraries)."""
    return is_running_norm(module) and type(module).__name__.startswith("FrozenBatchNorm")


def is_reestimable(module: nn.Module) -> bool:
    """Whether its running statistics are those of a population, which can be measured anew."""
    both = {"running_mean", "running_var"}
    return not is_instance_norm(module) and both <= set(running_buffers(module))


def is_batch_only_norm(module: nn.Module) -> bool:
    """Whether it is a batch norm without running statistics: it always normalises by the batch."""
    return isinstance(module, _BatchNorm) and not is_running_norm(module)


def can_hold_statistics(module: nn.Module) -> bool:
    """Whether it can normalise by the batch and leave its running statistics alone.

    torch's batch norms and their subclasses do so with ``track_running_stats`` off, and Keras's
    with a momentum of 1; instance norms update whatever running statistics they have, and of other
    classes nothing is known.
    """
    keras = isinstance(module, KerasPart) and is_reestimable(module)
    return isinstance(module, _BatchNorm) or keras or is_constant_norm(module)


def is_instance_norm(module: nn.Module) -> bool:
    """Whether it is an instance norm, whose statistics in training are those of each item."""
    return isinstance(module, _InstanceNorm)


def is_norm(module: nn.Module) -> bool:
    """Whether its own parameters are scales and shifts of a normalisation."""
    if isinstance(module, _NORM_CLASSES) or is_running_norm(module):
        return True
    own = [parameter for parameter in module._parameters.values() if parameter is not None]
    named = _NORM_NAME.search(_class_name(module)) is not None
    return named and bool(own) and all(p.numel() == max(p.shape, default=1) for p in own)


def randomness(module: nn.Module) -> str | None:
    """Name the source of randomness that the module is, or None.

    Used for display; what is held in evaluation mode does not depend on it, since any class may
    read ``self.training``. Rates of zero count as no source.
    """
    name = _class_name(module)
    if isinstance(module, KerasPart):
        return name if module.is_random else None
    if isinstance(module, nn.RReLU):
        return name
    if isinstance(module, _DropoutNd):
        return name if module.p > 0 else None
    rates = [getattr(module, key, None) for key in _RATES]
    if any(isinstance(r, int | float) and not isinstance(r, bool) and r > 0 for r in rates):
        return name
    if _RANDOM_NAME.search(name) and not list(module.children()):
        rate = getattr(module, "p", None)
        return None if rate == 0 or getattr(module, "drop_prob", None) == 0 else name
    return None


def _class_name(module: nn.Module) -> str:
    layer = module.keras_layer if isinstance(module, KerasPart) else module
    return type(layer).__name__


__all__ = [
    "can_hold_statistics",
    "is_batch_only_norm",
    "is_constant_norm",
    "is_instance_norm",
    "is_norm",
    "is_reestimable",
    "is_running_norm",
    "randomness",
    "running_buffers",
]
