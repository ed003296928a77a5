"""How rows of a network change where nothing about their items does. Shared by several checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from headstart.audit.events import Pass
from headstart.audit.measuring import trial
from headstart.modules.comparing import largest_change
from headstart.modules.observing import tensors_in

_FEWEST = 4
_QUANTISED = ("torch.ao.nn.quantized", "torch.nn.quantized")
"""Dynamic quantisation takes its scale from the whole batch, by design."""


@dataclass(frozen=True)
class RowChanges:
    """Largest changes of a value, relative to the largest value.

    Attributes:
        in_another_batch: when half of the items are run without the others; random layers as they
            are, with equal seeds.
        on_second_pass: between two passes over the same batch.
    """

    in_another_batch: float
    on_second_pass: float


def measure_rows(seen: Pass) -> RowChanges | None:
    """Run a network again on the items of a pass, without a trace.

    Returns:
        None where its items cannot be told apart: other inputs than pictures, ``(n, c, h, w)``, or
        rows, ``(n, d)``; fewer than 4 of them; or an output of another length.
    """
    if "rows" not in seen.memo:
        seen.memo["rows"] = _measured(seen)
    found: RowChanges | None = seen.memo["rows"]
    return found


def _measured(seen: Pass) -> RowChanges | None:
    module, args, kwargs = seen.network.module, seen.args, seen.kwargs
    n = seen.rows
    if module is None or args is None or kwargs is None or n is None or n < _FEWEST:
        return None
    first = next(tensors_in([args, kwargs]), None)
    if first is None or first.ndim not in (2, 4) or not first.is_floating_point():
        return None
    if any(type(m).__module__.startswith(_QUANTISED) for m in module.modules()):
        return None
    half = n // 2
    try:
        with trial(module) as stand_in:
            one = _run(stand_in, args, kwargs)
            other = _run(stand_in, args, kwargs)
        with trial(module) as stand_in:
            few = _run(stand_in, _part(args, n, half), _part(kwargs, n, half))
    except Exception:
        return None
    if one.shape[:1] != (n,) or few.shape[:1] != (half,) or one.shape[1:] != few.shape[1:]:
        return None
    if not one.is_floating_point():
        return None
    return RowChanges(largest_change(one[:half], few), largest_change(one, other))


def _run(module: Any, args: Any, kwargs: Any) -> Tensor:
    return next(tensors_in(module(*args, **kwargs))).detach().float()


def _part(value: Any, n: int, half: int) -> Any:
    """Return the first half of every tensor whose first axis is that of the items."""
    if isinstance(value, Tensor):
        return value[:half] if value.ndim and value.shape[0] == n else value
    if isinstance(value, Mapping):
        return {key: _part(each, n, half) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return tuple(_part(each, n, half) for each in value)
    return value


__all__ = ["RowChanges", "measure_rows"]
