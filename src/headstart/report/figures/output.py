"""A figure to a PNG file, or to an SVG that belongs into a page.

In the SVG text stays text: the page's own font sets it, any script the browser knows is shown, and
it can be searched and copied. Colours follow the page, see ``report/palette.py``. The same figure
gives the same bytes.
"""

from __future__ import annotations

import io
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import RendererSVG
from matplotlib.figure import Figure

from headstart.core.files import clear_errors, write_bytes
from headstart.core.wording import clean
from headstart.report.figures.style import HALF

_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))


class _PageRenderer(RendererSVG):
    """Numbers no groups: nothing refers to them, and a page holds several figures."""

    def open_group(self, s: str, gid: str | None = None) -> None:  # noqa: ARG002
        """Open a group."""
        self.writer.start("g")  # type: ignore[no-untyped-call]


@contextmanager
def _dots_per_inch(figure: Figure, dpi: float) -> Iterator[None]:
    before = figure.dpi
    figure.dpi = dpi
    try:
        with warnings.catch_warnings():
            # A script for which no installed font has glyphs shows as boxes in the PNG; the page
            # is set by the browser, which has them.
            warnings.filterwarnings("ignore", r"Glyph .* missing from", UserWarning)
            yield
    finally:
        figure.dpi = before


def png(figure: Figure, *, scale: float = 2.0) -> bytes:
    """Return the figure as PNG, ``scale`` pixels per CSS pixel, without date or software name."""
    buffer = io.BytesIO()
    with _dots_per_inch(figure, 72 * scale):
        canvas: Any = FigureCanvasAgg(figure)
        canvas.print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


def save_png(figure: Figure, path: str | os.PathLike[str], *, scale: float = 2.0) -> Path:
    """Write the figure as a PNG file and return its path.

    Args:
        figure: a figure made by this package.
        path: the file; its folder must exist. An existing file is replaced.
        scale: pixels of the file per CSS pixel of the figure; 2 is sharp on most screens.

    Raises:
        HeadstartError: the file cannot be written.
    """
    path = Path(path)
    with clear_errors(f"write {path}"):
        write_bytes(path, png(figure, scale=scale))
    return path


def inline(figure: Figure, *, alt: str = "", name: str = "figure") -> str:
    """Return the figure as an ``<svg>`` element for a page: no script, no external reference.

    Args:
        figure: a figure made by this package.
        alt: what the figure shows, for people who do not see it; escaped here.
        name: tells its identifiers from those of other figures of the page.

    Returns:
        The element, scaled by its ``viewBox``; one unit is one pixel at natural size.
    """
    width, height = (72 * inches for inches in figure.get_size_inches())
    buffer = io.StringIO()
    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": name, "svg.image_inline": True}
    with mpl.rc_context(settings), _dots_per_inch(figure, 72):
        make: Any = _PageRenderer  # matplotlib leaves the backends without types
        renderer = make(width, height, buffer, image_dpi=72, metadata=_NO_METADATA)
        header = buffer.tell()  # the document's own frame, which a page does not need
        figure.draw(renderer)
        renderer.finalize()
    body = buffer.getvalue()[header:]
    # "<" and ">" in text are escaped, so this touches tags and never a user's words.
    body = re.sub(r"<[^<>]*>", lambda tag: tag[0].replace("xlink:href=", "href="), body)
    label = f' aria-label="{escape(clean(alt), quote=True)}"' if alt else ""
    wide = ' class="wide"' if width > 1.5 * HALF else ""
    return (
        f'<svg role="img"{wide}{label} viewBox="0 0 {width:g} {height:g}" width="{width:g}"'
        f' height="{height:g}">\n{body[: body.rindex("</svg>")]}</svg>'
    )
