"""Figures of values along an axis: training, selection, and how accuracy grows with labels."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from headstart.core.records import Curve, Interval
from headstart.core.wording import format_percent, shorten
from headstart.report.figures.scales import (
    bounds,
    finite_range,
    log_ticks,
    nice_ticks,
    padded,
    percent_range,
    spread,
    tick_label,
)
from headstart.report.figures.style import (
    BLUE,
    HALF,
    INK,
    MUTED,
    SMALL,
    VERMILION,
    WIDE,
    Margins,
    foot,
    frame,
    heading,
    label,
    line,
    marks,
    panel,
    series,
    set_ticks,
    shifted,
    text_width,
    widest,
)

_LINE_GAP = 15  # pixels between the labels at the ends of lines
_MARKED = 20  # points of a curve up to which each has its mark
_PANEL = 250  # height of one panel in pixels, unless it has many lines
_ABOVE, _BELOW = 34, 48  # of a panel, for its heading and its axis
_NAMED_CHOICES = 6  # chosen values up to which each is written out


def curves_figure(curves: Sequence[Curve], *, width: float | None = None) -> Figure:
    """Draw curves, each named at its last point; one panel for every y axis among them.

    Curves with the same ``y_label`` and the same x axis share a panel. Points that are not finite
    leave a gap; a curve of one point is a mark. ``chosen`` is a vertical line with its value.

    Args:
        curves: what to draw; none gives a figure that says so.
        width: pixels; None picks a half or a whole row of the page by the number of points.
    """
    groups = _panels(curves)
    if not groups:
        figure = frame(HALF, 120)
        axes = panel(figure, Margins())
        set_ticks(axes, "x", [], [])
        set_ticks(axes, "y", [], [])
        label(axes, 0.5, 0.5, "no curve to show", ha="center", color=MUTED, at=axes.transAxes)
        return figure
    crowded = any(len(group) > 3 or len(group[0].x) > 60 or _long(group) for group in groups)
    width = width or (WIDE if crowded else HALF)
    heights = [_panel_height(group) for group in groups]
    figure = frame(width, sum(heights))
    for place, group in enumerate(groups):
        _curve_panel(figure, group, heights[place], sum(heights[:place]), sum(heights[place + 1 :]))
    return figure


def _long(group: Sequence[Curve]) -> bool:
    """Whether the names beside the lines would leave half a row too little for the panel."""
    return len(group) > 1 and widest([shorten(c.name, 34) for c in group], SMALL) > HALF / 3


def _panel_height(group: Sequence[Curve]) -> float:
    """Return the height that the names at the ends of the lines need, and the chosen values."""
    lines = _LINE_GAP * (len(group) + 1) + _ABOVE + _BELOW
    return max(_PANEL, lines) + _chosen_height(group)


def _chosen_values(group: Sequence[Curve]) -> list[float]:
    """Return the distinct values that were chosen, from left to right."""
    return sorted({c.chosen for c in group if c.chosen is not None and math.isfinite(c.chosen)})


def _chosen_height(group: Sequence[Curve]) -> float:
    """Return the pixels above a panel that the chosen values take: a line each, up to a few."""
    values = _chosen_values(group)
    return _LINE_GAP * len(values) if 1 < len(values) <= _NAMED_CHOICES else 0.0


def _panels(curves: Sequence[Curve]) -> list[list[Curve]]:
    groups: dict[tuple[str, str, bool], list[Curve]] = {}
    for curve in curves:
        groups.setdefault((curve.y_label, curve.x_label, curve.log_x), []).append(curve)
    return list(groups.values())


def _curve_panel(
    figure: Figure, group: Sequence[Curve], tall: float, above: float, below: float
) -> None:
    names = [shorten(curve.name, 34) for curve in group]
    alone = len(group) == 1  # then the heading names the curve
    log_x = group[0].log_x
    xs = [x for curve in group for x in curve.x if math.isfinite(x) and (x > 0 or not log_x)]
    ys = [y for curve in group for part in (curve.y, curve.low, curve.high) for y in part]
    low, high = finite_range(ys)
    y_ticks = nice_ticks(low, high)
    y_labels = [tick_label(tick) for tick in y_ticks]
    margins = Margins(
        left=widest(y_labels, SMALL) + 14,
        right=20 if alone else widest(names, SMALL) + 24,
        top=above + _ABOVE + _chosen_height(group),
        bottom=below + _BELOW,
    )
    axes = panel(figure, margins)
    axes.set_ylim(low, high)
    _x_axis(axes, xs, log_x)
    set_ticks(axes, "y", y_ticks, y_labels)
    for index, curve in enumerate(group):
        _curve(axes, curve, index)
    _chosen(axes, group)
    if not alone:
        room = tall - _ABOVE - _BELOW - _chosen_height(group)
        _end_labels(axes, group, names, (low, high), room)
    title = group[0].y_label
    if alone and names[0] != title:
        title = f"{title} · {names[0]}"
    heading(axes, title, dx=-margins.left + 4, dy=12 + _chosen_height(group))
    foot(axes, group[0].x_label)


def _x_axis(axes: Axes, xs: Sequence[float], log_x: bool) -> None:
    if log_x and xs:
        low, high = min(xs), max(xs)
        low, high = (low / 2, high * 2) if low == high else (low, high)
        axes.set_xscale("log", nonpositive="mask")
        axes.minorticks_off()
        span = (high / low) ** 0.03
        axes.set_xlim(low / span, high * span)
        ticks = log_ticks(low, high)
    else:
        low, high = finite_range(xs, pad=0.02)
        axes.set_xlim(low, high)
        ticks = nice_ticks(low, high)
        if xs and all(x == int(x) for x in xs):  # epochs: no half ones
            ticks = [tick for tick in ticks if tick == int(tick)] or [xs[0]]
    set_ticks(axes, "x", *_apart_ticks(axes, ticks, zero=not (log_x and xs)), grid=False)


def _curve(axes: Axes, curve: Curve, index: int) -> None:
    color, shape = series(index)
    if len(curve.low) == len(curve.x) == len(curve.high) and curve.x:
        axes.fill_between(curve.x, curve.low, curve.high, color=color, alpha=0.15, linewidth=0,
                          zorder=1)  # fmt: skip
    line(axes, curve.x, curve.y, color)
    finite = sum(math.isfinite(y) for y in curve.y)
    if len(curve.x) <= _MARKED or finite == 1:
        marks(axes, curve.x, curve.y, color, shape=shape, size=6)


def _chosen(axes: Axes, group: Sequence[Curve]) -> None:
    """Mark every chosen x once, with its value.

    One value is written at the top, on the side that has room; a few on lines of their own above
    the panel, where they cannot touch; of many only the range.
    """
    low, high = axes.get_xlim()
    marked = [value for value in _chosen_values(group) if low <= value <= high]
    for value in marked:
        axes.axvline(value, color=INK, linewidth=1, linestyle=(0, (2, 2)), marker="none", zorder=2)
    if len(marked) > _NAMED_CHOICES:
        text = f"chosen: {_rounded(marked[0])} to {_rounded(marked[-1])}"
        label(axes, 1, 1, text, at=axes.transAxes, dy=4, ha="right", va="baseline", size=SMALL)
        return
    for place, value in enumerate(marked):
        across = axes.transAxes.inverted().transform(axes.transData.transform((value, 0)))[0]
        side = -1 if across > 0.6 else 1
        up = _LINE_GAP * (len(marked) - 1 - place) + 4 if len(marked) > 1 else -2
        label(
            axes,
            value,
            1,
            f"chosen: {_rounded(value)}",
            at=axes.get_xaxis_transform(),
            dx=5 * side,
            dy=up,
            ha="left" if side > 0 else "right",
            va="baseline" if len(marked) > 1 else "top",
            size=SMALL,
        )


def _rounded(value: float) -> str:
    return tick_label(float(f"{value:.3g}"))


def _end_labels(
    axes: Axes,
    group: Sequence[Curve],
    names: Sequence[str],
    bounds: tuple[float, float],
    height: float,
) -> None:
    """Name every curve beside its last finite point, moved apart where they would touch."""
    low, high = bounds
    ends = [next((y for y in reversed(curve.y) if math.isfinite(y)), math.nan) for curve in group]
    known = [index for index, end in enumerate(ends) if math.isfinite(end)]
    wanted = [(ends[index] - low) / (high - low) * height for index in known]
    for index, y in zip(known, spread(wanted, _LINE_GAP, 0, height), strict=True):
        color, shape = series(index)
        marks(axes, [1], [0], color, shape=shape, at=shifted(axes, axes.transAxes, 10, y))
        label(axes, 1, 0, names[index], dx=18, dy=y, at=axes.transAxes, size=SMALL)


def learning_curve_figure(
    labels_per_class: Sequence[float],
    accuracies: Sequence[Sequence[float]],
    intervals: Sequence[Interval | None] = (),
    *,
    extrapolated: tuple[float, float] | None = None,
    extrapolated_interval: Interval | None = None,
    x_label: str = "labels per class",
    y_label: str = "accuracy",
) -> Figure:
    """Draw accuracy against the number of labels per class, on a logarithmic axis.

    Args:
        labels_per_class: one number a budget, increasing.
        accuracies: for every budget the accuracy of each repetition, fractions in [0, 1].
        intervals: for every budget the interval of the mean, or None; empty for no intervals.
        extrapolated: (labels per class, expected accuracy) beyond the last budget; drawn hollow
            and dashed, because it was not measured.
        extrapolated_interval: the interval of the extrapolated accuracy.
        x_label, y_label: of the axes, where something else is drawn.
    """
    xs = [float(x) for x in labels_per_class]
    means = [_mean(values) for values in accuracies]
    bands = padded(intervals, len(xs))
    known = [value for values in accuracies for value in values]
    known += bounds([*bands, extrapolated_interval])
    known += [extrapolated[1]] if extrapolated else []
    low, high = percent_range(known)
    figure = frame(WIDE, 300)
    axes = panel(figure, Margins(left=44, right=30, top=34, bottom=48))
    axes.set_ylim(low, high)
    _x_axis(axes, [x for x in (*xs, *([extrapolated[0]] if extrapolated else [])) if x > 0], True)
    set_ticks(axes, "x", *_apart_ticks(axes, xs), grid=False)
    ticks = nice_ticks(low, high)
    set_ticks(axes, "y", ticks, [tick_label(tick) for tick in ticks])
    for x, values, band in zip(xs, accuracies, bands, strict=True):
        _budget(axes, x, values, band)
    line(axes, xs, [100 * mean for mean in means], BLUE)
    marks(axes, xs, [100 * mean for mean in means], BLUE)
    if extrapolated:
        _extrapolation(axes, (xs[-1], means[-1]), extrapolated, extrapolated_interval)
    heading(axes, f"{y_label}, %", dx=-40)
    foot(axes, x_label)
    return figure


def _mean(values: Sequence[float]) -> float:
    kept = [value for value in values if math.isfinite(value)]
    return sum(kept) / len(kept) if kept else math.nan


def _apart_ticks(
    axes: Axes, xs: Sequence[float], *, zero: bool = False
) -> tuple[list[float], list[str]]:
    """Name these positions themselves, leaving out those whose names would touch.

    Args:
        axes: with its limits set.
        xs: increasing.
        zero: whether zero and less can be shown, as a logarithmic axis cannot.
    """
    names: tuple[list[float], list[str]] = ([], [])
    right = -math.inf
    for x in xs:
        if x <= 0 and not zero:
            continue
        centre = float(axes.transData.transform((x, 0))[0])
        half = text_width(tick_label(x), SMALL) / 2 + 4
        if centre - half > right:
            names[0].append(x)
            names[1].append(tick_label(x))
            right = centre + half
    return names


def _budget(axes: Axes, x: float, values: Sequence[float], band: Interval | None) -> None:
    if len(values) > 1:
        points = [100 * value for value in values]
        marks(axes, [x] * len(values), points, BLUE, size=5, alpha=0.35, zorder=2)
    if band is not None:
        line(axes, [x, x], [100 * band.low, 100 * band.high], BLUE, alpha=0.6)


def _extrapolation(
    axes: Axes,
    last: tuple[float, float],
    beyond: tuple[float, float],
    band: Interval | None,
) -> None:
    x, y = beyond[0], 100 * beyond[1]
    line(axes, [last[0], x], [100 * last[1], y], VERMILION, width=1.5, dashed=True)
    if band is not None:
        line(axes, [x, x], [100 * band.low, 100 * band.high], VERMILION, alpha=0.6)
    marks(axes, [x], [y], VERMILION, hollow=True)
    text = f"expected at {tick_label(x)}: {format_percent(beyond[1])}"
    # Above the panel, where no curve and no interval can run through it.
    label(axes, 1, 1, text, at=axes.transAxes, dy=4, ha="right", va="baseline", size=SMALL,
          color=MUTED)  # fmt: skip
