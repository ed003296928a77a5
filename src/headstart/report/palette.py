"""The colours of pages and figures. They are written once, in ``page.css``."""

from __future__ import annotations

import functools
import re
from importlib import resources


def resource(name: str) -> str:
    """Return the text of a file beside this module."""
    return resources.files("headstart.report").joinpath(name).read_text(encoding="utf-8")


@functools.cache
def colours() -> dict[str, str]:
    """Return the light colours by name: ``{"ink": "#1b1f24", "blue": "#0072b2", ...}``."""
    css = resource("page.css")
    return dict(re.findall(r"--(\w+): (#[0-9a-f]{6});", css[: css.index("}")]))


def stylesheet() -> str:
    """Return the style of a page, with rules that let drawings follow it into dark mode.

    matplotlib writes the light colours into ``style`` attributes; a rule for each of them puts the
    page's variable in its place. The rules name no ancestor: inside a ``<use>`` there is none.
    """
    rules = [
        f'[style*="{part}: {colour}"] {{ {part}: var(--{name}) !important; }}'
        for name, colour in colours().items()
        for part in ("fill", "stroke")
    ]
    return "\n".join([resource("page.css"), *rules, ""])


__all__ = ["colours", "resource", "stylesheet"]
