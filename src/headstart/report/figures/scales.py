"""Where axes begin and end, where their ticks stand, and where labels find room. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.ticker import MaxNLocator


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return round positions within [low, high]: about ``count``, at least one."""
    values = MaxNLocator(nbins=count, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    slack = 1e-9 * max(abs(low), abs(high), 1e-300)
    inside = [float(value) for value in values if low - slack <= value <= high + slack]
    return [0.0 if abs(value) < slack else value for value in inside] or [(low + high) / 2]


def log_ticks(low: float, high: float, count: int = 7) -> list[float]:
    """Return powers of ten within [low, high], with 2 and 5 between where there are few."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for multiples in ((1, 2, 5), (1, 3), (1,)):
        ticks = [m * 10.0**e for e in range(first, last + 1) for m in multiples]
        inside = [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]
        if len(inside) <= count:
            return inside or [low]
    return inside[:: math.ceil(len(inside) / count)]


def tick_label(value: float) -> str:
    """Return a tick's number: 0.001 and 1,000 in full, beyond about a million as 2e6."""
    text = f"{value:,.6g}"
    if "e" in text:
        mantissa, exponent = text.split("e")
        text = f"{mantissa}e{int(exponent)}"
    return text.replace("-", "\N{MINUS SIGN}")


def finite_range(values: Sequence[float], *, pad: float = 0.06) -> tuple[float, float]:
    """Return the padded range of the finite values; (0, 1) where there is none."""
    kept = [value for value in values if math.isfinite(value)]
    if not kept:
        return 0.0, 1.0
    low, high = min(kept), max(kept)
    if low == high:
        half = abs(low) * 0.1 or 0.5
        return low - half, high + half
    return low - pad * (high - low), high + pad * (high - low)


def percent_range(values: Sequence[float]) -> tuple[float, float]:
    """Return a padded range in per cent for fractions: at least 4 points, never past 0 or 100."""
    kept = [100 * value for value in values if math.isfinite(value)]
    if not kept:
        return 0.0, 100.0
    low, high = min(kept), max(kept)
    pad = max(0.08 * (high - low), (4 - (high - low)) / 2, 0.5)
    return max(0.0, low - pad), min(100.0, high + pad)


def spread(positions: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move one-dimensional label positions apart until neighbours are ``gap`` apart.

    Keeps the order and stays within [low, high] as far as they fit. Labels that touch form a
    group which is centred on the mean of what its members wanted (pool adjacent violators).
    """
    order = sorted(range(len(positions)), key=lambda index: positions[index])
    groups: list[tuple[float, float, int]] = []  # (wanted centre, centre within bounds, members)
    for index in order:
        wanted, centre, count = positions[index], min(high, max(low, positions[index])), 1
        while groups and centre - gap * count / 2 < groups[-1][1] + gap * groups[-1][2] / 2 - 1e-9:
            other, _, members = groups.pop()
            wanted = (wanted * count + other * members) / (count + members)
            count += members
            half = gap * (count - 1) / 2
            centre = max(low + half, min(high - half, wanted))
        groups.append((wanted, centre, count))
    moved = [0.0] * len(positions)
    ranked = iter(order)
    for _, centre, count in groups:
        for place in range(count):
            moved[next(ranked)] = centre + gap * (place - (count - 1) / 2)
    return moved
