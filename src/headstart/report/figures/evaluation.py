"""Figures of one evaluation: confusion matrix, scores of every class, reliability."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from headstart.core.records import ClassScores, Evaluation
from headstart.core.wording import count, format_number, shorten, verb
from headstart.report.figures.scales import nice_ticks, tick_label
from headstart.report.figures.style import (
    BLUE,
    HALF,
    INK,
    MUTED,
    RULE,
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
    text_options,
    widest,
)

ANNOTATED_CLASSES = 15  # counts are written into the cells up to here
NAMED_CLASSES = 40  # beyond, only every second, fifth, ... class has its name beside the matrix


def confusion_figure(evaluation: Evaluation) -> Figure:
    """Draw the confusion matrix: true classes as rows, predictions as columns.

    A cell is the share of its row (the items of one true class), on a square-root scale so that
    rare mistakes stay visible. The diagonal is blue, mistakes are vermilion. Counts are written
    into the cells up to 15 classes; beyond 40 classes the names are thinned. Rows of classes
    without items hold dashes.
    """
    counts = np.array(evaluation.confusion, dtype=float).reshape(
        len(evaluation.classes), len(evaluation.classes)
    )
    n = len(counts)
    cell = min(52.0, 600 / max(n, 1))  # a matrix of many classes is as wide as the page, no more
    size = SMALL if cell >= 11 else 9.0
    step = _thinning(n, cell)
    shown = range(0, n, step)
    names = [shorten(evaluation.classes[index], 22) for index in shown]
    name_width = widest(names, size)
    turn = _turn(name_width, size, cell * step)
    depth = name_width * math.sin(math.radians(turn)) + size * math.cos(math.radians(turn))
    margins = Margins(left=name_width + 14, right=14, top=30, bottom=depth + 16)
    side = cell * n
    width = max(margins.left + side + margins.right, 300)
    figure = frame(width, margins.top + side + margins.bottom)
    axes = panel(figure, Margins(margins.left, width - margins.left - side, margins.top,
                                 margins.bottom))  # fmt: skip
    axes.set(xlim=(-0.5, max(n, 1) - 0.5), ylim=(max(n, 1) - 0.5, -0.5))
    _cells(axes, counts)
    if n <= ANNOTATED_CLASSES:
        _counts(axes, counts, cell)
    positions = [float(index) for index in shown]
    set_ticks(axes, "y", positions, names, grid=False, size=size, color=INK)
    turned = {0: {}, 45: {"ha": "right", "va": "top"}, 90: {"ha": "right", "va": "center"}}[turn]
    set_ticks(
        axes, "x", positions, names, grid=False, size=size, color=INK, rotation=turn, **turned
    )
    axes.add_patch(
        Rectangle((-0.5, -0.5), n, n, fill=False, edgecolor=RULE, linewidth=1, clip_on=False)
    )
    heading(axes, "true class ↓   predicted class →", dx=-margins.left + 4)
    return figure


def _turn(width: float, size: float, spacing: float) -> int:
    """Return by how many degrees names below the matrix turn so that they do not touch."""
    if width < spacing - 6:
        return 0
    return 45 if spacing * math.cos(math.radians(45)) > size else 90


def _thinning(n: int, cell: float) -> int:
    if n <= NAMED_CLASSES and cell >= 10:
        return 1
    return next((step for step in (2, 5, 10, 20, 50) if step * cell >= 11), math.ceil(n / 10))


def _shares(counts: np.ndarray) -> np.ndarray:
    """Return the row shares of a confusion matrix, zero in rows without items."""
    totals = counts.sum(axis=1, keepdims=True)
    shares: np.ndarray = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    return shares


def _cells(axes: Axes, counts: np.ndarray) -> None:
    """Paint the shares as one image whose transparency lets the page's colour through."""
    n = len(counts)
    if n == 0:
        return
    image = np.zeros((n, n, 4))
    image[..., :3] = _rgb(VERMILION)
    image[np.arange(n), np.arange(n), :3] = _rgb(BLUE)
    image[..., 3] = np.sqrt(_shares(counts))
    axes.imshow(
        image, interpolation="none", extent=(-0.5, n - 0.5, n - 0.5, -0.5), aspect="auto", zorder=1,
        origin="upper", resample=False,
    )  # fmt: skip


def _rgb(colour: str) -> tuple[float, float, float]:
    red, green, blue = (int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5))
    return red, green, blue


def _counts(axes: Axes, counts: np.ndarray, cell: float) -> None:
    shares = _shares(counts)
    for row, column in np.ndindex(*counts.shape):
        if counts[row].sum() == 0:
            label(axes, column, row, "–", ha="center", size=SMALL, color=MUTED)
        elif counts[row, column]:
            strong = shares[row, column] > 0.3  # opacity is its square root
            text = f"{int(counts[row, column]):,}"
            size = min(SMALL + 1, 1.5 * cell / max(len(text), 2))
            axes.text(
                column,
                row,
                text,
                **text_options(size, color="#fefefe" if strong else INK, ha="center",
                               va="center_baseline", zorder=5),
            )  # fmt: skip


def per_class_figure(evaluation: Evaluation, *, limit: int = 30) -> Figure:
    """Draw precision and recall of every class, the lowest F1 first.

    Args:
        evaluation: what was scored.
        limit: at most this many classes, the worst; the figure says how many are left out.
    """
    ranked = sorted(evaluation.per_class, key=_rank)
    rows, left_out = ranked[:limit], max(0, len(ranked) - limit)
    names = [shorten(row.label, 26) for row in rows]
    supports = [f"n = {row.support:,}" for row in rows]
    gap = 22
    margins = Margins(
        left=widest(names) + 16, right=widest(supports, SMALL) + 22, top=48, bottom=48
    )
    figure = frame(WIDE, margins.top + margins.bottom + gap * max(len(rows), 1))
    axes = panel(figure, margins)
    values = [v for row in rows for v in (row.precision, row.recall) if math.isfinite(v)]
    low = min(0.9, math.floor(10 * min(values, default=0.0)) / 10)
    axes.set(xlim=(100 * low - 1, 101), ylim=(max(len(rows), 1) - 0.5, -0.5))
    ticks = nice_ticks(100 * low, 100)
    set_ticks(axes, "x", ticks, [tick_label(tick) for tick in ticks])
    set_ticks(axes, "y", range(len(rows)), names, grid=False, size=12, color=INK)
    for position, row in enumerate(rows):
        _class_row(axes, position, row)
        label(axes, 1, position, supports[position], dx=12, at=axes.get_yaxis_transform(),
              size=SMALL, color=MUTED)  # fmt: skip
    key(axes, ["recall", "precision"], y=18, width=400, paired=True)
    foot(
        axes,
        "per cent"
        + (
            f"; {count(left_out, 'class', 'classes')} with a higher F1 or no items"
            f" {verb(left_out)} not shown"
            if left_out
            else ""
        ),
    )
    return figure


def _rank(row: ClassScores) -> tuple[bool, float, str]:
    """Order by F1; classes without items, about which the split says little, come last."""
    return (row.support == 0, row.f1 if math.isfinite(row.f1) else -1.0, row.label)


def _class_row(axes: Axes, position: float, row: ClassScores) -> None:
    recall, precision = 100 * row.recall, 100 * row.precision
    line(axes, [recall, precision], [position] * 2, BLUE, alpha=0.35)
    marks(axes, [precision], [position], BLUE, hollow=True)
    marks(axes, [recall], [position], BLUE)
    if not math.isfinite(recall) and not math.isfinite(precision):
        text = "not defined: no items, and never predicted"
        label(axes, 0.5, position, text, at=axes.get_yaxis_transform(), ha="center", size=SMALL,
              color=MUTED)  # fmt: skip


def reliability_figure(evaluation: Evaluation) -> Figure:
    """Draw how often predictions of a given confidence are right (the reliability diagram).

    Points on the diagonal are calibrated: of the items predicted with 80 % confidence, 80 % are
    right. A point below it is overconfident. The area of a point is in proportion to the items
    in its bin; a vertical line shows its distance from the diagonal (Niculescu-Mizil and
    Caruana 2005; Guo et al. 2017).
    """
    figure = frame(HALF, HALF)
    axes = panel(figure, Margins(left=44, right=20, top=34, bottom=48))
    axes.set(xlim=(0, 100), ylim=(0, 100))
    ticks = [0.0, 25.0, 50.0, 75.0, 100.0]
    set_ticks(axes, "x", ticks, [tick_label(tick) for tick in ticks])
    set_ticks(axes, "y", ticks, [tick_label(tick) for tick in ticks])
    line(axes, [0, 100], [0, 100], MUTED, width=1, dashed=True, zorder=1)
    label(axes, 30, 30, "calibrated", dx=-6, dy=8, ha="center", size=SMALL, color=MUTED,
          rotation=45)  # fmt: skip
    total = sum(entry.count for entry in evaluation.reliability)
    for entry in evaluation.reliability:
        confidence, accuracy = 100 * entry.confidence, 100 * entry.accuracy
        line(axes, [confidence] * 2, [confidence, accuracy], VERMILION, width=1.5, zorder=2)
        size = 4 + 18 * math.sqrt(entry.count / max(total, 1))
        marks(axes, [confidence], [accuracy], BLUE, size=size, alpha=0.85, zorder=3)
    if not total:
        label(axes, 50, 50, "no items to show", ha="center", color=MUTED)
    heading(axes, "items that are right, %", dx=-30)
    foot(axes, "confidence of the prediction, %")
    if math.isfinite(evaluation.ece):
        ece = format_number(100 * evaluation.ece, digits=2)
        label(axes, 97, 6, f"ECE {ece} %", ha="right", size=SMALL, color=MUTED)
    return figure
