"""Figures of a comparison in words."""

from __future__ import annotations

from headstart.evaluation import Difference


def against(difference: Difference) -> str:
    """Word a difference with its interval and p-value."""
    text = f"{100 * difference.value:+.1f} points"
    if difference.interval is not None:
        low, high = 100 * difference.interval.low, 100 * difference.interval.high
        text += f" (95 % interval {low:+.1f} to {high:+.1f}"
        text += f", p = {difference.p_holm:.2g})" if difference.p_holm is not None else ")"
    return text


def points(difference: Difference) -> str:
    """Word the size of a difference, without its sign where it is clear."""
    value, interval = 100 * difference.value, difference.interval
    if not difference.significant:
        bounds = f" ({100 * interval.low:+.1f} to {100 * interval.high:+.1f})" if interval else ""
        return f"{value:+.1f} points{bounds}"
    if interval is None:
        return f"{abs(value):.1f} points"
    low, high = sorted((100 * interval.low, 100 * interval.high), key=abs)
    if value < 0:
        low, high = -low, -high
    return f"{abs(value):.1f} points ({low:.1f} to {high:.1f})"


__all__ = ["against", "points"]
