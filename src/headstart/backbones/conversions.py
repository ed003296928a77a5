"""What timm makes of a checkpoint: its own conversions, and position tables of another size."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

POSITIONS = re.compile(
    r"pos(ition)?_?(al_)?(embed|emb\b|enc|bias)|relative_pos|rel_pos|attention_bias|position_embed"
)
"""Tensors whose shape depends on the size of the input."""


def converted_by_timm(module: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """Return tensors as timm's conversion for the network's class makes them, if it has one.

    It knows the names of the original repositories, and resamples tables of positions.
    """
    convert = _timm_filter(module)
    if convert is None:
        return None
    try:
        with torch.no_grad():
            made = convert(dict(tensors), module)
    except Exception:  # what is none of the formats that it knows fails in many ways
        return None
    if not isinstance(made, Mapping):
        return None
    return {str(name): tensor for name, tensor in made.items() if isinstance(tensor, Tensor)}


def _timm_filter(module: nn.Module) -> Callable[..., Any] | None:
    """Return timm's function that converts checkpoints for the class of a network."""
    for base in type(module).__mro__:
        if base.__module__.startswith("timm.models."):
            found = getattr(sys.modules[base.__module__], "checkpoint_filter_fn", None)
            return found if callable(found) else None
    return None


def resampled_positions(tensor: Tensor, target: Tensor, name: str) -> Tensor | None:
    """Resample a table ``(1, tokens, channels)`` of positions by timm's function, if it is one."""
    if not POSITIONS.search(name) or tensor.ndim != 3 or tensor.shape[::2] != target.shape[::2]:
        return None
    sides = [
        (prefix, round((target.shape[1] - prefix) ** 0.5))
        for prefix in range(6)
        if all(_is_square(each.shape[1] - prefix) for each in (tensor, target))
    ]
    if len(sides) != 1:
        return None
    from timm.layers.pos_embed import resample_abs_pos_embed

    ((prefix, side),) = sides
    made: Tensor = resample_abs_pos_embed(tensor, [side, side], num_prefix_tokens=prefix)
    return made


def _is_square(number: int) -> bool:
    return number > 0 and round(number**0.5) ** 2 == number


def changes(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Say what a conversion changed."""
    said = []
    resized = [
        name
        for name, tensor in after.items()
        if name in before and before[name].numel() != tensor.numel()
    ]
    if resized:
        first = resized[0]
        shapes = f"{tuple(before[first].shape)} to {tuple(after[first].shape)}"
        more = f" and {len(resized) - 1} more" if len(resized) > 1 else ""
        said.append(f"'{first}' from {shapes}{more} resampled by timm")
    if set(after) - set(before):
        said.append("names converted by timm")
    return tuple(said)


__all__ = ["POSITIONS", "changes", "converted_by_timm", "resampled_positions"]
