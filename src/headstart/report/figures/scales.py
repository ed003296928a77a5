"""Ranges and ticks of axes, and places for labels. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from matplotlib.ticker import MaxNLocator

from headstart.core.records import Interval


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return round positions within [low, high]: about ``count``, at least one."""
    values = MaxNLocator(nbins=count, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    slack = 1e-7 * (high - low)  # a tick at an end is kept whatever its rounding
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
    """Return a padded range in per cent for fractions: at least 4 points, never past 0 or 100 that
    no value passes.
    """
    kept = [100 * value for value in values if math.isfinite(value)]
    if not kept:
        return 0.0, 100.0
    low, high = min(kept), max(kept)
    pad = max(0.08 * (high - low), (4 - (high - low)) / 2, 0.5)
    # Explained variance may lie below 0, shares cannot.
    return (max(0.0, low - pad) if low >= 0 else low - pad), min(100.0, high + pad)


def off_scale(means: Sequence[float], bands: Sequence[Interval | None] = ()) -> frozenset[int]:
    """Return the positions of fractions so far below the others that they would squash the scale.

    That is the lower side of the widest gap, where it is the minority, and the gap is wider than
    ten points and than twice what the upper side spans, intervals included.

    Args:
        means: fractions in [0, 1]; those that are not finite are never off the scale.
        bands: the interval of each, or None.
    """
    known = sorted((mean, index) for index, mean in enumerate(means) if math.isfinite(mean))
    if len(known) < 3:
        return frozenset()
    gaps = [(high[0] - low[0], place) for place, (low, high) in enumerate(pairwise(known), 1)]
    gap, place = max(gaps)
    lower, upper = [index for _, index in known[:place]], [index for _, index in known[place:]]
    ends = [means[index] for index in upper]
    ends += bounds([band for index, band in enumerate(bands) if index in upper])
    apart = gap > max(0.1, 2 * (max(ends) - min(ends)))
    return frozenset(lower) if apart and len(lower) < len(upper) else frozenset()


def padded(intervals: Sequence[Interval | None], count: int) -> list[Interval | None]:
    """Return ``count`` intervals, None where there is none."""
    return [*intervals, *[None] * (count - len(intervals))]


def bounds(bands: Sequence[Interval | None]) -> list[float]:
    """Return the bounds of all intervals there are, as fractions."""
    return [bound for band in bands if band is not None for bound in (band.low, band.high)]


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


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels; y grows upwards."""

    left: float
    bottom: float
    right: float
    top: float

    def overlap(self, other: Box) -> float:
        """Return the area that both cover."""
        across = min(self.right, other.right) - max(self.left, other.left)
        along = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(0.0, across) * max(0.0, along)

    def outside(self, room: Box) -> float:
        """Return by how many pixels this box leaves ``room``."""
        across = max(0.0, room.left - self.left) + max(0.0, self.right - room.right)
        along = max(0.0, room.bottom - self.bottom) + max(0.0, self.top - room.top)
        return across + along


_STEPS = (0, 14, -14, 28, -28, 42, -42, 56, -56, 70, -70)
_PLACES = tuple((dx, dy) for dy in _STEPS for dx in (10, -10))
_MARK = 5  # half the side of a mark in pixels


def place_names(
    spots: Sequence[tuple[float, float]],
    widths: Sequence[float],
    height: float,
    room: Box,
    lines: Sequence[Box] = (),
) -> list[tuple[float, float]]:
    """Find a place for the name of every point, where it touches neither marks nor other names.

    Greedy, in the order given: the first of the least troubled places beside the point, then
    above and below it.

    Args:
        spots: the points in pixels.
        widths: the width of each name in pixels.
        height: the height of a line in pixels.
        room: the rectangle that names should not leave.
        lines: what else they should not touch.

    Returns:
        For every point the offset (dx, dy) of its name: its left end if dx > 0, else its right.
    """
    taken = [Box(x - _MARK, y - _MARK, x + _MARK, y + _MARK) for x, y in spots]
    taken += lines
    chosen: list[tuple[float, float]] = []
    for (x, y), width in zip(spots, widths, strict=True):
        options = []
        for rank, (dx, dy) in enumerate(_PLACES):
            left = x + dx - (width if dx < 0 else 0)
            box = Box(left, y + dy - height / 2, left + width, y + dy + height / 2)
            # A pixel outside is worse than any overlap a short name can have there.
            trouble = 40 * box.outside(room) + sum(box.overlap(other) for other in taken)
            options.append((trouble, rank, (dx, dy), box))
        _, _, place, box = min(options, key=lambda option: option[:2])
        taken.append(box)
        chosen.append(place)
    return chosen
