"""Figures of several labels an item, and of regressions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from headstart.core.records import Score
from headstart.core.wording import count, format_number, shorten, verb
from headstart.evaluation.multi_label import LabelScores, MultiLabelEvaluation
from headstart.report.figures.scales import finite_range, nice_ticks, tick_label
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
    key,
    label,
    line,
    marks,
    panel,
    set_ticks,
    widest,
)

POINTS = 2_000
"""Items of a scatter; of more, as many at equal distances in the order of their values."""
_FEW = 40  # items up to which a running median is noise


def labels_figure(evaluation: MultiLabelEvaluation, *, limit: int = 30) -> Figure:
    """Draw the average precision of every label beside its share of the items, the lowest first.

    Whoever guesses gets the share: the distance between both is what the head knows.

    Args:
        evaluation: what was scored.
        limit: at most this many labels; the figure says how many are left out.
    """
    ranked = sorted(evaluation.per_label, key=_rank)
    rows, left_out = ranked[:limit], max(0, len(ranked) - limit)
    names = [shorten(row.label, 26) for row in rows]
    supports = [f"n = {row.support:,}" for row in rows]
    margins = Margins(
        left=widest(names) + 16, right=widest(supports, SMALL) + 22, top=48, bottom=48
    )
    figure = frame(WIDE, margins.top + margins.bottom + 22 * max(len(rows), 1))
    axes = panel(figure, margins)
    axes.set(xlim=(-1, 101), ylim=(max(len(rows), 1) - 0.5, -0.5))
    ticks = nice_ticks(0, 100)
    set_ticks(axes, "x", ticks, [tick_label(tick) for tick in ticks])
    set_ticks(axes, "y", range(len(rows)), names, grid=False, size=12, color=INK)
    for position, row in enumerate(rows):
        found, share = 100 * row.average_precision, 100 * row.support / max(evaluation.n, 1)
        if math.isfinite(found):
            line(axes, [share, found], [position] * 2, BLUE, alpha=0.35)
            marks(axes, [share], [position], BLUE, hollow=True)
            marks(axes, [found], [position], BLUE)
        else:
            label(axes, 0.5, position, "no item has it", at=axes.get_yaxis_transform(),
                  ha="center", size=SMALL, color=MUTED)  # fmt: skip
        label(axes, 1, position, supports[position], dx=12, at=axes.get_yaxis_transform(),
              size=SMALL, color=MUTED)  # fmt: skip
    key(axes, ["average precision", "share of the items"], y=18, width=400, paired=True)
    rest = f"; {count(left_out, 'label')} with a higher one {verb(left_out)} not shown"
    foot(axes, "per cent" + (rest if left_out else ""))
    return figure


def _rank(row: LabelScores) -> tuple[bool, float, str]:
    known = math.isfinite(row.average_precision)
    return (not known, row.average_precision if known else 0.0, row.label)


def values_figure(truth: NDArray[np.float64], predicted: NDArray[np.float64], name: str) -> Figure:
    """Draw what was predicted against the truth; on the diagonal both agree.

    Args:
        truth, predicted: ``(n,)``, of one target.
        name: of the target.
    """
    order = _shown(truth)
    x, y = truth[order], predicted[order]
    low, high = finite_range([*x.tolist(), *y.tolist()])
    ticks = nice_ticks(low, high, 4)
    names = [tick_label(tick) for tick in ticks]
    figure = frame(HALF, HALF)
    axes = panel(figure, Margins(left=widest(names, SMALL) + 16, right=20, top=34, bottom=48))
    axes.set(xlim=(low, high), ylim=(low, high))
    set_ticks(axes, "x", ticks, names)
    set_ticks(axes, "y", ticks, names)
    line(axes, [low, high], [low, high], MUTED, width=1, dashed=True, zorder=1)
    _points(axes, x, y)
    heading(axes, f"predicted {shorten(name, 24)}", dx=-20)
    foot(axes, f"true {shorten(name, 24)}{_of_all(order, truth)}")
    return figure


def residuals_figure(
    truth: NDArray[np.float64], predicted: NDArray[np.float64], name: str
) -> Figure:
    """Draw what is wrong with a prediction against the prediction itself.

    Around the dashed line errors are as often above as below. The line through the points is the
    median error of tenths of the items: where it leaves the dashed one, predictions of that size
    are wrong in one direction.

    Args:
        truth, predicted: ``(n,)``, of one target.
        name: of the target.
    """
    order = _shown(predicted)
    x, y = predicted[order], (predicted - truth)[order]
    low, high = finite_range(x.tolist())
    least, most = finite_range([*y.tolist(), 0.0])
    across, up = nice_ticks(low, high, 4), nice_ticks(least, most, 4)
    names = [tick_label(tick) for tick in up]
    figure = frame(HALF, HALF)
    axes = panel(figure, Margins(left=widest(names, SMALL) + 16, right=20, top=34, bottom=48))
    axes.set(xlim=(low, high), ylim=(least, most))
    set_ticks(axes, "x", across, [tick_label(tick) for tick in across])
    set_ticks(axes, "y", up, names)
    line(axes, [low, high], [0, 0], MUTED, width=1, dashed=True, zorder=2)
    _points(axes, x, y)
    middle = running_median(predicted, predicted - truth)
    if middle is not None:
        line(axes, middle[0].tolist(), middle[1].tolist(), VERMILION, zorder=5)
    heading(axes, f"predicted − true {shorten(name, 20)}", dx=-20)
    foot(axes, f"predicted {shorten(name, 24)}{_of_all(order, truth)}")
    return figure


def running_median(
    x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Return the medians of both in tenths of the items by ``x``; None of fewer than 40 items."""
    if len(x) < _FEW:
        return None
    parts = np.array_split(np.argsort(x, kind="stable"), 10)
    return (
        np.array([float(np.median(x[rows])) for rows in parts]),
        np.array([float(np.median(y[rows])) for rows in parts]),
    )


def parts_figure(
    names: Sequence[str], scores: Sequence[Score], items: Sequence[int], about: str, *,
    percent: bool = False, limit: int = 30,
) -> Figure:  # fmt: skip
    """Draw a score of every part of the items with its interval, in the order given.

    Args:
        names: of the parts, the worst first.
        scores: of each.
        items: how many each has.
        about: what is drawn, below the axis.
        percent: whether scores are shares, which are drawn in per cent.
        limit: at most this many parts; the figure says how many are left out.
    """
    factor, left_out = 100 if percent else 1, max(0, len(names) - limit)
    shown = [shorten(name, 26) for name in names[:limit]]
    supports = [f"n = {n:,}" for n in items[:limit]]
    kept = scores[:limit]
    bands = [score.interval for score in kept]
    values = [factor * score.value for score in kept]
    ends = [factor * end for band in bands if band is not None for end in (band.low, band.high)]
    low, high = (-1.0, 101.0) if percent else finite_range([0.0, *values, *ends])
    margins = Margins(
        left=widest(shown) + 16, right=widest(supports, SMALL) + 22, top=20, bottom=48
    )
    figure = frame(WIDE, margins.top + margins.bottom + 22 * max(len(shown), 1))
    axes = panel(figure, margins)
    axes.set(xlim=(low, high), ylim=(max(len(shown), 1) - 0.5, -0.5))
    ticks = nice_ticks(low, high)
    set_ticks(axes, "x", ticks, [tick_label(tick) for tick in ticks])
    set_ticks(axes, "y", range(len(shown)), shown, grid=False, size=12, color=INK)
    for at, (value, band) in enumerate(zip(values, bands, strict=True)):
        if band is not None:
            line(axes, [factor * band.low, factor * band.high], [at] * 2, BLUE, alpha=0.35)
        marks(axes, [value], [at], BLUE)
        label(axes, 1, at, supports[at], dx=12, at=axes.get_yaxis_transform(), size=SMALL,
              color=MUTED)  # fmt: skip
    rest = f"; {count(left_out, 'better one')} {verb(left_out)} not shown" if left_out else ""
    foot(axes, about + rest)
    return figure


def _shown(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return which items a scatter shows, in the order of their values."""
    order = np.argsort(values, kind="stable")
    if len(order) > POINTS:
        order = order[np.linspace(0, len(order) - 1, POINTS).astype(np.int64)]
    return order


def _of_all(shown: NDArray[np.int64], every: NDArray[np.float64]) -> str:
    if len(shown) == len(every):
        return ""
    return f" ({POINTS:,} of {format_number(len(every))} items)"


def _points(axes: Axes, x: NDArray[np.float64], y: NDArray[np.float64]) -> None:
    few = len(x) <= 200
    marks(axes, x.tolist(), y.tolist(), BLUE, size=6 if few else 5, alpha=0.8 if few else 0.35)


__all__ = ["labels_figure", "parts_figure", "residuals_figure", "running_median", "values_figure"]
