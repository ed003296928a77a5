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
_PANEL = 250  # height of one panel in pixels


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
    crowded = any(len(group) > 3 or len(group[0].x) > 60 for group in groups)
    width = width or (WIDE if crowded else HALF)
    figure = frame(width, _PANEL * len(groups))
    for place, group in enumerate(groups):
        above = _PANEL * place
        below = _PANEL * (len(groups) - 1 - place)
        _curve_panel(figure, group, above, below)
    return figure


def _panels(curves: Sequence[Curve]) -> list[list[Curve]]:
    groups: dict[tuple[str, str, bool], list[Curve]] = {}
    for curve in curves:
        groups.setdefault((curve.y_label, curve.x_label, curve.log_x), []).append(curve)
    return list(groups.values())


def _curve_panel(figure: Figure, group: Sequence[Curve], above: float, below: float) -> None:
    names = [shorten(curve.name, 24) for curve in group]
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
        top=above + 34,
        bottom=below + 48,
    )
    axes = panel(figure, margins)
    axes.set_ylim(low, high)
    _x_axis(axes, xs, log_x)
    set_ticks(axes, "y", y_ticks, y_labels)
    for index, curve in enumerate(group):
        _curve(axes, curve, index)
    _chosen(axes, group)
    if not alone:
        _end_labels(axes, group, names, (low, high), _PANEL - 34 - 48)
    title = group[0].y_label
    if alone and names[0] != title:
        title = f"{title} · {names[0]}"
    heading(axes, title, dx=-margins.left + 4)
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
    set_ticks(axes, "x", ticks, [tick_label(tick) for tick in ticks], grid=False)


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
    """Mark every chosen x once; its value is written at the top, on the side that has room."""
    low, high = axes.get_xlim()
    marked = sorted({curve.chosen for curve in group if curve.chosen is not None})
    for chosen in marked:
        if not (math.isfinite(chosen) and low <= chosen <= high):
            continue
        axes.axvline(chosen, color=INK, linewidth=1, linestyle=(0, (2, 2)), marker="none", zorder=2)
        across = axes.transAxes.inverted().transform(axes.transData.transform((chosen, 0)))[0]
        side = -1 if across > 0.6 else 1
        label(
            axes,
            chosen,
            1,
            f"chosen: {tick_label(chosen)}",
            at=axes.get_xaxis_transform(),
            dx=5 * side,
            dy=-2,
            ha="left" if side > 0 else "right",
            va="top",
            size=SMALL,
        )


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
) -> Figure:
    """Draw accuracy against the number of labels per class, on a logarithmic axis.

    Args:
        labels_per_class: one number a budget, increasing.
        accuracies: for every budget the accuracy of each repetition, fractions in [0, 1].
        intervals: for every budget the interval of the mean, or None; empty for no intervals.
        extrapolated: (labels per class, expected accuracy) beyond the last budget; drawn hollow
            and dashed, because it was not measured.
        extrapolated_interval: the interval of the extrapolated accuracy.
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
    set_ticks(axes, "x", *_budget_ticks(axes, xs), grid=False)
    ticks = nice_ticks(low, high)
    set_ticks(axes, "y", ticks, [tick_label(tick) for tick in ticks])
    for x, values, band in zip(xs, accuracies, bands, strict=True):
        _budget(axes, x, values, band)
    line(axes, xs, [100 * mean for mean in means], BLUE)
    marks(axes, xs, [100 * mean for mean in means], BLUE)
    if extrapolated:
        _extrapolation(axes, (xs[-1], means[-1]), extrapolated, extrapolated_interval)
    heading(axes, "accuracy, %", dx=-40)
    foot(axes, "labels per class")
    return figure


def _mean(values: Sequence[float]) -> float:
    kept = [value for value in values if math.isfinite(value)]
    return sum(kept) / len(kept) if kept else math.nan


def _budget_ticks(axes: Axes, xs: Sequence[float]) -> tuple[list[float], list[str]]:
    """Name the budgets themselves, leaving out those whose names would touch."""
    names: tuple[list[float], list[str]] = ([], [])
    right = -math.inf
    for x in xs:
        if x <= 0:
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
    label(axes, x, y, text, dx=8, dy=-22, ha="right", size=SMALL, color=MUTED)
