"""The one look of every figure: colours, type, frame, ticks and keys.

Sizes are CSS pixels: a figure is made at 72 dots per inch, so that one point is one pixel of the
page and text in a figure is as large as text beside it. Everything visible is set explicitly on
the objects. No global setting of matplotlib is written, and none that shows is read.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from matplotlib.transforms import ScaledTranslation, Transform

from headstart.core.wording import clean, shorten
from headstart.report.palette import colours

_COLOURS = colours()
PAPER, INK, MUTED, RULE = (_COLOURS[name] for name in ("paper", "ink", "muted", "rule"))
# Okabe and Ito's colour-blind-safe palette (2008), without its yellow, which fades on white.
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = (
    _COLOURS[name] for name in ("blue", "vermilion", "green", "purple", "orange", "sky")
)
SERIES = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
MARKERS = ("o", "s", "^", "D", "v")  # so that no series depends on colour alone

SIZE, SMALL = 12.0, 11.0
WIDE, HALF = 720, 350  # the page shows one wide figure, or two half ones, in a row
_KEY_LINE, _KEY_GAP = 18, 18

_BASE_FONT = "DejaVu Sans"  # ships with matplotlib, so a layout is the same on every machine
# For scripts that DejaVu Sans lacks, in PNG files only; a page leaves this to the browser.
_MORE_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Source Han Sans SC",
    "WenQuanYi Micro Hei",
    "Droid Sans Fallback",
    "PingFang SC",
    "Hiragino Sans",
    "Microsoft YaHei",
    "Malgun Gothic",
    "Noto Sans Arabic",
    "Noto Sans Hebrew",
    "Noto Sans Devanagari",
    "Noto Sans Thai",
)


@functools.cache
def _families() -> tuple[str, ...]:
    installed = set(font_manager.fontManager.get_font_names())
    return (_BASE_FONT, *(name for name in _MORE_FONTS if name in installed))


def font(size: float = SIZE, *, bold: bool = False) -> FontProperties:
    """Return the font at ``size`` pixels."""
    return FontProperties(
        family=list(_families()),
        size=size,
        weight="bold" if bold else "normal",
        style="normal",
        variant="normal",
        stretch="normal",
    )


def text_options(
    size: float = SIZE, *, bold: bool = False, color: str = INK, **more: Any
) -> dict[str, Any]:
    """Return keyword arguments for any text: never TeX, so ``$`` in a class name is a ``$``."""
    plain = {"parse_math": False, "usetex": False, "rotation_mode": "anchor"}
    return {"fontproperties": font(size, bold=bold), "color": color, **plain, **more}


def text_width(text: str, size: float = SIZE) -> float:
    """Return the width of ``text`` in pixels as the base font sets it; wide characters are 1 em."""
    measured = "".join("W" if unicodedata.east_asian_width(m) in "WF" else m for m in text)
    properties = FontProperties(family=[_BASE_FONT], size=size)
    width, _, _ = text_to_path.get_text_width_height_descent(measured, properties, ismath=False)
    return float(width)


def widest(labels: Sequence[str], size: float = SIZE) -> float:
    """Return the width in pixels of the widest label; 0 where there is none."""
    return max((text_width(label, size) for label in labels), default=0.0)


@dataclass(frozen=True)
class Margins:
    """Space in pixels between the edges of a figure and the axes."""

    left: float = 44
    right: float = 12
    top: float = 30
    bottom: float = 44


def frame(width: float, height: float) -> Figure:
    """Return an empty figure of ``width`` × ``height`` pixels."""
    figure = Figure(
        figsize=(width / 72, height / 72),
        dpi=72,
        facecolor=PAPER,
        edgecolor="none",
        linewidth=0,
        frameon=True,
    )
    figure.set_layout_engine("none")
    return figure


def panel(figure: Figure, margins: Margins) -> Axes:
    """Return bare axes that fill ``figure`` but for ``margins``: no spines, ticks or grid."""
    width, height = figure.get_size_inches() * 72
    axes = figure.add_axes(
        (
            margins.left / width,
            margins.bottom / height,
            max(1.0, width - margins.left - margins.right) / width,
            max(1.0, height - margins.top - margins.bottom) / height,
        )
    )
    axes.patch.set_visible(False)
    axes.grid(False, which="both")
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(
        which="both",
        length=0,
        pad=6,
        top=False,
        right=False,
        bottom=True,
        left=True,
        labeltop=False,
        labelright=False,
        labelbottom=True,
        labelleft=True,
    )
    axes.minorticks_off()
    axes.margins(0)
    return axes


def shifted(axes: Axes, base: Transform, x: float, y: float) -> Transform:
    """Return ``base`` moved right by ``x`` and up by ``y`` pixels."""
    return base + ScaledTranslation(x / 72, y / 72, axes.figure.dpi_scale_trans)


def label(
    axes: Axes,
    x: float,
    y: float,
    text: str,
    *,
    dx: float = 0,
    dy: float = 0,
    at: Transform | None = None,
    ha: str = "left",
    va: str = "center_baseline",
    size: float = SIZE,
    color: str = INK,
    bold: bool = False,
    rotation: float = 0,
    zorder: float = 5,
) -> None:
    """Write ``text`` at (x, y), in data coordinates unless ``at`` says otherwise."""
    axes.text(
        x,
        y,
        clean(text),
        transform=shifted(axes, axes.transData if at is None else at, dx, dy),
        **text_options(
            size, bold=bold, color=color, ha=ha, va=va, rotation=rotation, zorder=zorder
        ),
    )


def fitted(axes: Axes, text: str) -> str:
    """Return a text, shortened in its middle until it is no wider than the figure of a panel."""
    room, columns = 0.85 * float(axes.figure.bbox.width), len(text)
    shown = clean(text)
    while text_width(shown) > room and columns > 8:
        columns = int(0.8 * columns)
        shown = shorten(text, columns)
    return shown


def heading(axes: Axes, text: str, *, dx: float = 0, dy: float = 12) -> None:
    """Write what the y axis (or the whole panel) shows, level, above its left end."""
    label(axes, 0, 1, fitted(axes, text), dx=dx, dy=dy, at=axes.transAxes, va="baseline",
          color=MUTED)  # fmt: skip


def foot(axes: Axes, text: str, *, dy: float = -36) -> None:
    """Write what the x axis shows, centred below its tick labels."""
    label(axes, 0.5, 0, fitted(axes, text), dy=dy, at=axes.transAxes, ha="center", va="baseline",
          color=MUTED)  # fmt: skip


def set_ticks(
    axes: Axes,
    side: Literal["x", "y"],
    positions: Sequence[float],
    labels: Sequence[str],
    *,
    grid: bool = True,
    size: float = SMALL,
    color: str = MUTED,
    **text: Any,
) -> None:
    """Put exactly these ticks on one axis, with hairlines through the panel if ``grid``."""
    axis = axes.xaxis if side == "x" else axes.yaxis
    place = {"ha": "center", "va": "top"} if side == "x" else {"ha": "right"}
    place.setdefault("va", "center_baseline")
    inside = text_options(size, color=color, **{**place, **text})
    axis.set_ticks(list(positions), labels=[clean(name) for name in labels], **inside)
    axis.set_ticks([], minor=True)
    if grid:
        draw = axes.axvline if side == "x" else axes.axhline
        for position in positions:
            draw(position, color=RULE, linewidth=1, linestyle="-", zorder=0, marker="none")


def line(
    axes: Axes,
    x: Sequence[float],
    y: Sequence[float],
    color: str,
    *,
    width: float = 2,
    dashed: bool = False,
    alpha: float = 1,
    zorder: float = 3,
) -> None:
    """Draw a line through the points; a point that is not finite leaves a gap."""
    axes.plot(
        list(x),
        list(y),
        color=color,
        linewidth=width,
        linestyle=(0, (3, 2)) if dashed else "-",
        alpha=alpha,
        marker="none",
        zorder=zorder,
        clip_on=False,
        solid_capstyle="butt",
        solid_joinstyle="round",
    )


def marks(
    axes: Axes,
    x: Sequence[float],
    y: Sequence[float],
    color: str,
    *,
    shape: str = "o",
    size: float = 7,
    hollow: bool = False,
    alpha: float = 1,
    zorder: float = 4,
    at: Transform | None = None,
) -> None:
    """Draw a mark at every point, with a rim of paper (or of colour, if ``hollow``)."""
    axes.plot(
        list(x),
        list(y),
        color=color,
        linestyle="none",
        alpha=alpha,
        marker=shape,
        markersize=size - 1.5 if hollow else size,  # a rim of colour adds what paper takes away
        markerfacecolor=PAPER if hollow else color,
        markeredgecolor=color if hollow else PAPER,
        markeredgewidth=1.5 if hollow else min(1.0, size / 7),
        zorder=zorder,
        clip_on=False,
        transform=axes.transData if at is None else at,
    )


def key(axes: Axes, names: Sequence[str], *, y: float, width: float, paired: bool = False) -> None:
    """Write a line of coloured marks with their names at ``y`` pixels above the panel.

    Args:
        axes: the panel.
        names: one per series, in the order of ``SERIES``.
        y: pixels above the top of the panel; further lines go upwards.
        width: pixels until the line breaks.
        paired: whether the names are two faces of one series, the second one hollow.
    """
    rows = key_rows(names, width)
    for row, members in enumerate(rows):
        x, up = 0.0, y + _KEY_LINE * (len(rows) - 1 - row)
        for index in members:
            color, shape = series(0 if paired else index)
            spot = shifted(axes, axes.transAxes, x + 4, up + 4)
            marks(axes, [0], [1], color, shape=shape, hollow=paired and index > 0, at=spot)
            label(axes, 0, 1, names[index], dx=x + 13, dy=up, at=axes.transAxes, va="baseline")
            x += _key_width(names[index])


def key_rows(names: Sequence[str], width: float) -> list[list[int]]:
    """Divide a key into lines no wider than ``width`` pixels; returns the indices of each line."""
    rows: list[list[int]] = [[]]
    used = 0.0
    for index, name in enumerate(names):
        if rows[-1] and used + _key_width(name) - _KEY_GAP > width:
            rows.append([])
            used = 0.0
        rows[-1].append(index)
        used += _key_width(name)
    return rows


def key_height(names: Sequence[str], width: float) -> float:
    """Return how many pixels the lines of a key take."""
    return _KEY_LINE * len(key_rows(names, width)) if names else 0.0


def _key_width(name: str) -> float:
    return 13 + text_width(clean(name)) + _KEY_GAP


def series(index: int) -> tuple[str, str]:
    """Return colour and mark of a series; they repeat together only after 30 series."""
    return SERIES[index % len(SERIES)], MARKERS[index % len(MARKERS)]
