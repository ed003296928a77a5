"""How findings word differences and names."""

from __future__ import annotations

from collections.abc import Sequence

from headstart.core.wording import listed
from headstart.evaluation import Difference
from headstart.study.results import (
    Evidence,
    Outcome,
)


def named(e: Evidence, outcomes: Sequence[Outcome]) -> str:
    """Return the names of outcomes, and what one writes for the first in another framework."""
    way = next((way for outcome in outcomes if (way := e.way(outcome))), None)
    said = f" (in {e.terms.framework}: {way})" if way else ""
    return f"{listed(outcome.name for outcome in outcomes)}{said}"


def against(difference: Difference) -> str:
    """Word a difference with its interval and p-value."""
    text = f"{100 * difference.value:+.1f} points"
    if difference.interval is not None:
        low, high = 100 * difference.interval.low, 100 * difference.interval.high
        text += f" (95 % interval {low:+.1f} to {high:+.1f}"
        text += f", p = {difference.p_holm:.2g})" if difference.p_holm is not None else ")"
    return text


def points(difference: Difference) -> str:
    """Word the size of a difference, without its sign where that is clear."""
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


__all__ = ["against", "named", "points"]
