"""Figures of several labels an item, and of regressions."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from headstart.core.wording import count, format_number, shorten, verb
from headstart.evaluation.multi_label import LabelScores, MultiLabelEvaluation
from headstart.report.figures.scales import finite_range, nice_ticks, tick_label
from headstart.report.figures.style import (
    BLUE,
    HALF,
    INK,
    MUTED,
    SMALL,
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
"""Items of a scatter; of more, as many at equal distances in the order of their truth."""


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
    rest = f"; {count(left_out, 'label')} with a higher one {verb(left_out)} left out"
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
    order = np.argsort(truth, kind="stable")
    if len(order) > POINTS:
        order = order[np.linspace(0, len(order) - 1, POINTS).astype(np.int64)]
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
    alpha = 0.8 if len(x) <= 200 else 0.35
    marks(axes, x.tolist(), y.tolist(), BLUE, size=6 if len(x) <= 200 else 5, alpha=alpha)
    heading(axes, f"predicted {shorten(name, 24)}", dx=-20)
    shown = (
        "" if len(order) == len(truth) else f" ({POINTS:,} of {format_number(len(truth))} items)"
    )
    foot(axes, f"true {shorten(name, 24)}{shown}")
    return figure


__all__ = ["labels_figure", "values_figure"]
