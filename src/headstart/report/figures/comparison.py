"""Figures of a comparison: accuracy, drift of the statistics, and cost, by configuration."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from headstart.core.records import Interval
from headstart.core.wording import format_percent, shorten
from headstart.report.figures.scales import (
    Box,
    bounds,
    finite_range,
    log_ticks,
    nice_ticks,
    off_scale,
    padded,
    percent_range,
    place_names,
    tick_label,
)
from headstart.report.figures.style import (
    BLUE,
    INK,
    MUTED,
    RULE,
    SIZE,
    SMALL,
    VERMILION,
    WIDE,
    Margins,
    foot,
    frame,
    heading,
    key,
    key_height,
    label,
    line,
    marks,
    panel,
    series,
    set_ticks,
    text_width,
    widest,
)

_ROW = 34  # pixels a configuration
_LOG_SPAN = 30  # values that span more than this factor get a logarithmic axis


def comparison_figure(
    names: Sequence[str],
    accuracies: Sequence[Sequence[float]],
    intervals: Sequence[Interval | None] = (),
    *,
    reference: int | None = None,
    x_label: str = "accuracy on the test items, %",
) -> Figure:
    """Draw the accuracy of every configuration: each repetition, their mean, its interval.

    Args:
        names: one per configuration; drawn from top to bottom in this order.
        accuracies: for every configuration the accuracy of each repetition, fractions in [0, 1].
            Values that are not finite are left out.
        intervals: for every configuration the interval of the mean, or None; empty for none.
        reference: the row that the others are compared with; a dashed line goes through its mean.
            A row so far below the others that it would squash the scale is marked at its edge;
            its figure stands at the right like all others.
        x_label: what the axis shows, with its unit.
    """
    bands = padded(intervals, len(names))
    kept = [[value for value in values if math.isfinite(value)] for values in accuracies]
    means = [sum(values) / len(values) if values else math.nan for values in kept]
    shown = [shorten(name, 30) for name in names]
    texts = [format_percent(mean) for mean in means]
    margins = Margins(left=widest(shown) + 18, right=widest(texts) + 26, top=14, bottom=48)
    figure = frame(WIDE, margins.top + margins.bottom + _ROW * max(len(names), 1))
    axes = panel(figure, margins)
    below = off_scale(means, bands)
    shown_rows = [row for row in range(len(names)) if row not in below]
    low, high = percent_range(
        [value for row in shown_rows for value in kept[row]]
        + bounds([bands[row] for row in shown_rows])
    )
    axes.set(xlim=(low, high), ylim=(max(len(names), 1) - 0.5, -0.5))
    ticks = nice_ticks(low, high)
    set_ticks(axes, "x", ticks, [tick_label(tick) for tick in ticks])
    _row_names(axes, shown)
    if reference is not None and math.isfinite(means[reference]) and reference not in below:
        through = 100 * means[reference]
        line(axes, [through] * 2, axes.get_ylim(), MUTED, width=1, dashed=True, zorder=1)
    for row, (values, mean, band) in enumerate(zip(kept, means, bands, strict=True)):
        if row in below:
            marks(axes, [low], [row], VERMILION, shape="<", size=9)
            label(axes, low, row, "below this scale", dx=12, size=SMALL, color=MUTED)
        else:
            _repetitions(axes, row, values, mean, band)
        label(
            axes,
            1,
            row,
            texts[row],
            dx=margins.right - 8,
            ha="right",
            at=axes.get_yaxis_transform(),
            bold=row == reference,
        )
    foot(axes, x_label)
    return figure


def _row_names(axes: Axes, names: Sequence[str], *, step: int = 1, size: float = SIZE) -> None:
    """Name every row (with ``step``, every so many) at the left of the panel."""
    positions = [float(step * place) for place in range(len(names))]
    set_ticks(axes, "y", positions, names, grid=False, size=size, color=INK)


def _repetitions(
    axes: Axes, row: float, values: Sequence[float], mean: float, band: Interval | None
) -> None:
    if len(values) > 1:
        # Fixed offsets instead of chance: the same study gives the same picture.
        heights = [row + 0.16 * (index % 3 - 1) for index in range(len(values))]
        marks(axes, [100 * value for value in values], heights, BLUE, size=5, alpha=0.4, zorder=2)
    if band is not None:
        line(axes, [100 * band.low, 100 * band.high], [row, row], BLUE, width=2.5)
    if math.isfinite(mean):
        marks(axes, [100 * mean], [row], BLUE, shape="D", size=8)


def drift_figure(
    layers: Sequence[str],
    drifts: Mapping[str, Sequence[float]],
    *,
    x_label: str = "drift from the running statistics",
    limit: float | None = None,
) -> Figure:
    """Draw the drift of every normalisation layer, one series a configuration.

    The axis is logarithmic where values span more than a factor of 30. Layers are in the order
    of the network; beyond 40 only some are named. Values that are not finite are left out, and so
    are zeros on a logarithmic axis.

    Args:
        layers: the names of the layers, from the input to the output.
        drifts: for every configuration one value a layer, in the same order, ≥ 0.
        x_label: what the axis shows, with its unit.
        limit: where values begin to be suspicious; a dashed line, if given.
    """
    names = [shorten(name, 30) for name in drifts]
    gap = 20.0 if len(layers) <= 40 else max(7.0, 800 / len(layers))
    step = math.ceil(14 / gap)
    shown = [shorten(layer, 34) for layer in layers[::step]]
    left = widest(shown, SMALL) + 16
    room = WIDE - left - 24
    margins = Margins(left=left, right=24, top=22 + key_height(names, room), bottom=48)
    figure = frame(WIDE, margins.top + margins.bottom + gap * max(len(layers), 1))
    axes = panel(figure, margins)
    axes.set_ylim(max(len(layers), 1) - 0.5, -0.5)
    known = [value for values in drifts.values() for value in values if math.isfinite(value)]
    _value_axis(axes, [*known, *([limit] if limit else [])])
    _row_names(axes, shown, step=step, size=SMALL)
    if limit:  # muted: the eye belongs to the configurations
        line(axes, [limit] * 2, axes.get_ylim(), MUTED, width=1, dashed=True, zorder=1)
        label(axes, limit, 0, "limit", at=axes.get_xaxis_transform(), dx=4, dy=6, size=SMALL,
              color=MUTED)  # fmt: skip
    for index, values in enumerate(drifts.values()):
        color, shape = series(index)
        line(axes, values, range(len(values)), color, width=1.25)
        marks(axes, values, range(len(values)), color, shape=shape, size=min(6, 0.7 * gap))
    key(axes, names, y=14, width=room)
    foot(axes, x_label)
    return figure


def _value_axis(axes: Axes, values: Sequence[float]) -> None:
    """Give the x axis to values ≥ 0: from zero, or logarithmic where they span much."""
    positive = [value for value in values if value > 0]
    if positive and max(positive) / min(positive) > _LOG_SPAN:
        _log_axis(axes, min(positive) / 1.3, max(positive) * 1.3)
        return
    high = 1.06 * max(positive, default=1.0)
    axes.set_xlim(0, high)
    ticks = nice_ticks(0, high)
    set_ticks(axes, "x", ticks, [tick_label(tick) for tick in ticks])


def _log_axis(axes: Axes, low: float, high: float) -> None:
    axes.set_xscale("log", nonpositive="mask")
    axes.minorticks_off()
    axes.set_xlim(low, high)
    ticks = log_ticks(low, high)
    set_ticks(axes, "x", ticks, [tick_label(tick) for tick in ticks])


@dataclass(frozen=True)
class _Point:
    name: str
    cost: float
    accuracy: float
    band: Interval | None
    times: tuple[float, float] | None
    below: bool


def cost_figure(
    names: Sequence[str],
    seconds: Sequence[float],
    accuracies: Sequence[float],
    intervals: Sequence[Interval | None] = (),
    times: Sequence[tuple[float, float] | None] = (),
    *,
    front: Sequence[bool] = (),
    x_label: str = "time per image, ms",
    y_label: str = "accuracy",
) -> Figure:
    """Draw accuracy against the time of extraction; cheap and accurate is top left.

    Args:
        names: one per configuration.
        seconds: for every configuration, seconds per image (drawn in milliseconds).
        accuracies: for every configuration, the mean accuracy, a fraction in [0, 1].
        intervals: for every configuration the interval of the accuracy, or None; empty for none.
        times: for every configuration the shortest and the longest time in seconds, or None; empty
            for none.
        front: for every configuration, whether no other is cheaper and more accurate: these are
            joined by a line. Empty for none.
        x_label: what the x axis shows, with its unit.
        y_label: what the y axis shows in per cent, where it is not the accuracy.
    """
    bands = padded(intervals, len(names))
    below = off_scale(accuracies, bands)
    inside = [index for index in range(len(names)) if index not in below]
    low, high = percent_range(
        [accuracies[index] for index in inside] + bounds([bands[index] for index in inside])
    )
    ranges = [*times, *[None] * (len(names) - len(times))]
    points = [
        _Point(
            shorten(names[index], 26)
            + (f" ({format_percent(accuracies[index])})" if index in below else ""),
            1000 * seconds[index],
            low if index in below else 100 * accuracies[index],
            None if index in below else bands[index],
            ranges[index],
            index in below,
        )
        for index in range(len(names))
        if math.isfinite(seconds[index]) and math.isfinite(accuracies[index])
    ]
    figure = frame(WIDE, 360)
    axes = panel(figure, Margins(left=44, right=30, top=34, bottom=48))
    axes.set_ylim(low, high)
    costs = [point.cost for point in points]
    costs += [1000 * end for point in points for end in point.times or () if end > 0]
    if costs and min(costs) > 0 and max(costs) / min(costs) > _LOG_SPAN / 3:
        _log_axis(axes, min(costs) / 1.5, max(costs) * 1.5)
    else:
        left, right = finite_range(costs, pad=0.15)
        axes.set_xlim(max(0.0, left), right)
        across = nice_ticks(max(0.0, left), right)
        set_ticks(axes, "x", across, [tick_label(tick) for tick in across])
    ticks = nice_ticks(low, high)
    set_ticks(axes, "y", ticks, [tick_label(tick) for tick in ticks])
    best = sorted(
        (1000 * seconds[index], 100 * accuracies[index])
        for index in inside
        if index < len(front) and front[index]
    )
    if len(best) > 1:
        across, up = [x for x, _ in best], [y for _, y in best]
        line(axes, across, up, VERMILION, width=1.5, alpha=0.5, zorder=1)
    for point in points:
        if point.band is not None:
            ends = [100 * point.band.low, 100 * point.band.high]
            line(axes, [point.cost] * 2, ends, BLUE, width=1.5, alpha=0.5, zorder=2)
        if point.times is not None:
            ends = [1000 * end for end in point.times]
            line(axes, ends, [point.accuracy] * 2, BLUE, width=1.5, alpha=0.5, zorder=2)
        color, shape = (VERMILION, "v") if point.below else (BLUE, "o")
        marks(axes, [point.cost], [point.accuracy], color, shape=shape, size=8)
    _name_points(axes, points, _along(axes, best))
    heading(axes, f"{y_label}, %", dx=-40)
    foot(axes, x_label)
    return figure


def _along(axes: Axes, corners: Sequence[tuple[float, float]]) -> list[Box]:
    """Return small boxes along the line through the points, in pixels."""
    boxes = []
    at = [axes.transData.transform(corner) for corner in corners]
    for (x0, y0), (x1, y1) in pairwise(at):
        steps = max(1, int(max(abs(x1 - x0), abs(y1 - y0)) / 8))
        for step in range(steps + 1):
            x, y = x0 + (x1 - x0) * step / steps, y0 + (y1 - y0) * step / steps
            boxes.append(Box(float(x) - 4, float(y) - 2, float(x) + 4, float(y) + 2))
    return boxes


def _intervals(axes: Axes, points: Sequence[_Point]) -> list[Box]:
    """Return the lines through the points, in pixels."""
    boxes = []
    for point in points:
        across = point.times or (point.cost / 1000,) * 2
        along = (point.band.low, point.band.high) if point.band else (point.accuracy / 100,) * 2
        low = axes.transData.transform((1000 * across[0], point.accuracy))
        high = axes.transData.transform((1000 * across[1], point.accuracy))
        foot = axes.transData.transform((point.cost, 100 * along[0]))
        head = axes.transData.transform((point.cost, 100 * along[1]))
        boxes.append(Box(float(low[0]), float(low[1]) - 2, float(high[0]), float(high[1]) + 2))
        boxes.append(Box(float(foot[0]) - 2, float(foot[1]), float(head[0]) + 2, float(head[1])))
    return boxes


def _name_points(axes: Axes, points: Sequence[_Point], lines: list[Box]) -> None:
    """Write each name beside its point; one that had to move is tied to it by a hairline."""
    within = axes.get_window_extent()
    room = Box(within.x0, within.y0, within.x1 + 28, within.y1 + 8)
    spots = [axes.transData.transform((point.cost, point.accuracy)) for point in points]
    widths = [text_width(point.name, SMALL) for point in points]
    at = [(float(x), float(y)) for x, y in spots]
    places = place_names(at, widths, 14, room, _intervals(axes, points) + lines)
    for point, (x, y), (dx, dy) in zip(points, spots, places, strict=True):
        if dy:
            ends = axes.transData.inverted().transform([(x, y), (x + 0.8 * dx, y + dy)])
            line(axes, ends[:, 0].tolist(), ends[:, 1].tolist(), RULE, width=1, zorder=1)
        side = "left" if dx > 0 else "right"
        label(axes, point.cost, point.accuracy, point.name, dx=dx, dy=dy, ha=side, size=SMALL)
