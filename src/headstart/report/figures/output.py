"""A figure to a PNG file, or to an SVG that belongs into a page.

The SVG is not the one ``savefig`` writes. Text stays text, so that the page's own font sets it,
any script the browser knows is shown, and it can be searched and copied; colours refer to the
page's variables, so that one figure serves light and dark; identifiers are numbered instead of
random, and only those referred to are kept; namespaces, metadata and the style element, which
would apply to the whole page, are gone. The same figure gives the same bytes.
"""

from __future__ import annotations

import io
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from math import cos, radians, sin
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import RendererSVG
from matplotlib.figure import Figure
from matplotlib.font_manager import weight_dict

from headstart.core.files import clear_errors, write_bytes
from headstart.core.fingerprints import sha256
from headstart.core.wording import clean
from headstart.report.figures.style import CSS_VARIABLES, HALF

_ANCHORS = {"left": "start", "center": "middle", "right": "end"}
_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))


class _TextRenderer(RendererSVG):
    """Writes every text as one ``<text>`` element, anchored as the figure aligned it.

    matplotlib does this under the global setting ``svg.fonttype``; a subclass leaves the setting
    to the user.
    """

    def draw_text(
        self,
        gc: Any,
        x: float,
        y: float,
        s: str,
        prop: Any,
        angle: float,
        ismath: Any = False,  # noqa: ARG002 - the signature is matplotlib's
        mtext: Any = None,
    ) -> None:
        """Write the text; the figures of this package use plain, single-line text only."""
        anchor = "start"
        if mtext is not None and (angle == 0 or mtext.get_rotation_mode() == "anchor"):
            # Keep matplotlib's baseline, but the horizontal anchor of the text: the page's font
            # is not as wide as the one matplotlib measured.
            anchor = _ANCHORS[mtext.get_horizontalalignment()]
            wanted = mtext.get_transform().transform(mtext.get_unitless_position())
            anchor_x, anchor_y = wanted[0], self.height - wanted[1]
            up_x, up_y = sin(radians(angle)), cos(radians(angle))
            offset = up_x * (x - anchor_x) + up_y * (y - anchor_y)
            x, y = anchor_x + offset * up_x, anchor_y + offset * up_y
        red, green, blue = (round(255 * part) for part in gc.get_rgb()[:3])
        style = {
            "font-size": f"{prop.get_size_in_points():g}px",
            "fill": f"#{red:02x}{green:02x}{blue:02x}",
        }
        if anchor != "start":
            style["text-anchor"] = anchor
        weight = weight_dict.get(prop.get_weight(), prop.get_weight())
        if weight != 400:
            style["font-weight"] = str(weight)
        where = {"x": f"{x:.1f}", "y": f"{y:.1f}"}
        if angle:
            where["transform"] = f"rotate({-angle:g} {x:.1f} {y:.1f})"
        css = "; ".join(f"{name}: {value}" for name, value in style.items())
        self.writer.element("text", s, attrib={**where, "style": css})  # type: ignore[no-untyped-call]


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
    """Return the figure as PNG, ``scale`` pixels a CSS pixel, without date or software name."""
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
        scale: pixels of the file a CSS pixel of the figure; 2 is sharp on most screens.

    Raises:
        HeadstartError: the file cannot be written.
    """
    path = Path(path)
    with clear_errors(f"write {path}"):
        write_bytes(path, png(figure, scale=scale))
    return path


def inline(figure: Figure, *, alt: str = "") -> str:
    """Return the figure as an ``<svg>`` element for a page: no script, no external reference.

    Args:
        figure: a figure made by this package.
        alt: what the figure shows, for people who do not see it; escaped here.

    Returns:
        The element, scaled by its ``viewBox``; one unit is one pixel at natural size.
    """
    width, height = (72 * inches for inches in figure.get_size_inches())
    buffer = io.StringIO()
    with _dots_per_inch(figure, 72):
        make: Any = _TextRenderer  # matplotlib leaves the backends without types
        renderer = make(width, height, buffer, image_dpi=72, metadata=_NO_METADATA)
        figure.draw(renderer)
        renderer.finalize()
    body = _tidy(buffer.getvalue())
    name = f' aria-label="{escape(clean(alt), quote=True)}"' if alt else ""
    wide = ' class="wide"' if width > 1.5 * HALF else ""
    return (
        f'<svg role="img"{wide}{name} viewBox="0 0 {width:g} {height:g}" width="{width:g}"'
        f' height="{height:g}">\n{body}</svg>'
    )


def _tidy(document: str) -> str:
    """Keep the drawing of an SVG document as it belongs into a page; see the module docstring."""
    body = document[document.index(">", document.index("<svg")) + 1 : document.rindex("</svg>")]
    for element in ("metadata", "style"):
        body = re.sub(rf"<{element}\b.*?</{element}>\s*", "", body, count=1, flags=re.DOTALL)
    # "<" and ">" in text are escaped, so what follows touches tags and never a user's words.
    body = re.sub(r"<!--.*?-->\s*", "", body, flags=re.DOTALL)
    body = re.sub(r"<[^<>]*>", _recolour, body).replace("xlink:href=", "href=")
    body = _renumber(body)
    body = re.sub(r"\n\s*", "\n", body).lstrip()
    empty = 1
    while empty:  # matplotlib opens a group for every artist, also for those that draw nothing
        body, empty = re.subn(r"<g/>\n?|<g>\s*</g>\n?|<defs>\s*</defs>\n?|<defs/>\n?", "", body)
    return body


def _recolour(tag: re.Match[str]) -> str:
    return re.sub(
        "|".join(CSS_VARIABLES),
        lambda colour: f"var({CSS_VARIABLES[colour[0]]}, {colour[0]})",
        tag[0],
    )


def _renumber(body: str) -> str:
    """Drop identifiers nothing refers to; number the rest, apart from those of other figures."""
    used = set(re.findall(r'(?:url\(|href=")#([^)"]+)', body))
    order = [name for name in re.findall(r'<[^<>]*?\bid="([^"]*)"', body) if name in used]
    # matplotlib's identifiers are random unless a global setting says otherwise, so the prefix
    # comes from the drawing without them.
    rest = re.sub(r'\bid="[^"]*"|#[^)"\s;]+', "", body)
    prefix = "f" + sha256(rest.encode("utf-8", "replace"))[:8]
    names = {name: f"{prefix}-{number}" for number, name in enumerate(order)}

    def rename(tag: re.Match[str]) -> str:
        text = re.sub(r' ?\bid="([^"]*)"', _identifier, tag[0])
        return re.sub(r'(url\(|href=")#([^)"]+)', lambda m: f"{m[1]}#{names.get(m[2], m[2])}", text)

    def _identifier(match: re.Match[str]) -> str:
        return f' id="{names[match[1]]}"' if match[1] in names else ""

    return re.sub(r"<[^<>]*>", rename, body)
