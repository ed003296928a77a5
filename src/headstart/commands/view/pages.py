"""The files of the page: a document, a style and scripts, all of the package's own."""

from __future__ import annotations

import functools
from importlib import resources

from headstart.report.palette import resource as report_resource

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
PAGE_FILES = ("", "view.css", "view.js", "map.js", "panel.js", "shared.js")
"""What may be asked for; the empty name is the document."""


@functools.cache
def page_file(name: str) -> tuple[str, bytes]:
    """Return the kind and the content of a file of the page, one of :data:`PAGE_FILES`.

    Args:
        name: of the file; empty for the document.
    """
    name = name or "view.html"
    here = resources.files("headstart.commands.view")
    text = here.joinpath(name).read_text(encoding="utf-8")
    if name == "view.css":  # the colours of reports, light and dark, are those of the page
        whole = report_resource("page.css")
        text = whole[: whole.index("* { box-sizing")] + text
    return f"{_KINDS[name[name.rindex('.') :]]}; charset=utf-8", text.encode()


__all__ = ["PAGE_FILES", "PAGE_POLICY", "page_file"]
