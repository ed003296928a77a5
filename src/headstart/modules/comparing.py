"""How far two outputs are apart."""

from __future__ import annotations

from torch import Tensor


def largest_change(one: Tensor, other: Tensor) -> float:
    """Return the largest difference of two outputs, relative to the largest value of both."""
    scale = max(float(one.abs().max()), float(other.abs().max()), 1e-12)
    return float((one - other).abs().max()) / scale


__all__ = ["largest_change"]
