"""A map of items: where they lie in a plane, by class or by value, with the mistakes marked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from headstart.core.wording import format_number, shorten
from headstart.report.figures.style import (
    BLUE,
    INK,
    MUTED,
    WIDE,
    Margins,
    foot,
    frame,
    key,
    key_height,
    label,
    marks,
    panel,
    series,
    shifted,
)

COLOURED = 11
"""So many classes have a mark of their own; the items of others share one."""
_HEIGHT, _SIZE, _STEPS = 420, 6.0, 5


def map_figure(
    places: NDArray[np.float32],
    codes: NDArray[np.int64],
    names: Sequence[str],
    wrong: NDArray[np.bool_],
    *,
    about: str = "",
) -> Figure:
    """Draw items in a plane, a mark a class, with a ring around each mistake.

    Args:
        places: ``(n, 2)``.
        codes: ``(n,)``, the class of each item; −1 for any other, drawn muted.
        names: of the classes, at most :data:`COLOURED`.
        wrong: ``(n,) bool``, the items that are predicted wrong.
        about: what the axes are, below the panel.
    """
    shown = [shorten(name, 24) for name in names]
    margins = Margins(left=10, right=10, top=20 + key_height(shown, WIDE - 140), bottom=34)
    axes = _panel(places, margins, about)
    for ringed in (False, True):  # the mistakes on their rings, and those on all others
        for code in (-1, *range(len(names))):
            rows = np.flatnonzero((codes == code) & (wrong == ringed))
            colour, shape = (MUTED, "o") if code < 0 else series(code)
            if len(rows):
                alpha = 0.35 if code < 0 else 0.8
                x, y = places[rows].T.tolist()
                order = 6 if ringed else 2 + (code >= 0)
                marks(axes, x, y, colour, shape=shape, size=_SIZE, alpha=alpha, zorder=order)
    _rings(axes, places[wrong])
    key(axes, shown, y=10, width=WIDE - 140)
    _ring_key(axes, bool(wrong.any()))
    return axes.figure  # type: ignore[return-value]


def value_map_figure(
    places: NDArray[np.float32],
    values: NDArray[np.float64],
    wrong: NDArray[np.bool_],
    *,
    name: str,
    about: str = "",
) -> Figure:
    """Draw items in a plane, the stronger the higher their value, with a ring around the worst.

    Args:
        places: ``(n, 2)``.
        values: ``(n,)``; fifths of the items have the same strength.
        wrong: ``(n,) bool``, the items that are marked.
        name: what the values are.
        about: what the axes are, below the panel.
    """
    axes = _panel(places, Margins(left=10, right=10, top=38, bottom=34), about)
    edges = np.unique(np.quantile(values, np.linspace(0, 1, _STEPS + 1)[1:-1]))
    step = np.searchsorted(edges, values, side="right")
    for at in range(len(edges) + 1):
        for ringed in (False, True):
            x, y = places[(step == at) & (wrong == ringed)].T.tolist()
            order = 6 if ringed else 2 + at / 10
            strength = (at + 1) / (len(edges) + 1)
            marks(axes, x, y, BLUE, size=_SIZE, alpha=strength, zorder=order)
    _rings(axes, places[wrong])
    low, high = format_number(float(values.min())), format_number(float(values.max()))
    text = f"{shorten(name, 30)}: from {low} (pale) to {high} (strong)"
    label(axes, 0, 1, text, dy=12, at=axes.transAxes, va="baseline")
    _ring_key(axes, bool(wrong.any()), "largest errors")
    return axes.figure  # type: ignore[return-value]


def _panel(places: NDArray[np.float32], margins: Margins, about: str) -> Axes:
    figure = frame(WIDE, _HEIGHT + margins.top + margins.bottom)
    axes = panel(figure, margins)
    axes.set_xticks([])
    axes.set_yticks([])
    low, high = (np.quantile(places, q, axis=0) for q in (0.0, 1.0))
    middle = (low + high) / 2
    ratio = (WIDE - margins.left - margins.right) / _HEIGHT
    half = max(float(high[1] - low[1]) / 2, float(high[0] - low[0]) / 2 / ratio, 1e-6) * 1.06
    axes.set(
        xlim=(middle[0] - half * ratio, middle[0] + half * ratio),
        ylim=(middle[1] - half, middle[1] + half),
    )
    if about:
        foot(axes, about, dy=-20)
    return axes


def _rings(axes: Axes, places: NDArray[np.float32]) -> None:
    if len(places):
        x, y = places.T.tolist()
        marks(axes, x, y, INK, size=_SIZE + 5, hollow=True, zorder=5)


def _ring_key(axes: Axes, any_: bool, text: str = "mistakes") -> None:
    if any_:
        at = shifted(axes, axes.transAxes, -106, 14)
        marks(axes, [1], [1], INK, size=_SIZE + 5, hollow=True, at=at)
        label(axes, 1, 1, text, dx=-94, dy=10, at=axes.transAxes, va="baseline")


__all__ = ["COLOURED", "map_figure", "value_map_figure"]
