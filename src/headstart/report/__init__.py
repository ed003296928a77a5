"""Reports: records in, figures and one self-contained HTML page out.

A report is read by mail, on a phone, in five years, beside data that a stranger named. So a page
is one file that refers to nothing outside itself, holds no script, and forbids the browser to run
or fetch anything. Its figures are drawn by matplotlib as inline SVG with real text: crisp at any
size, searchable, in light and dark, and a report is some 100 to 300 KB. An interactive chart
library would add about 5 MB of script to every run folder, and would need the page to execute it.

Pages are built from frozen values (:class:`Page`, :class:`Section`, :class:`Table`, ...), and
nothing here reads or writes a file but :func:`write_page`, :func:`save_pictures` and
``figures.save_png``.

The figures load matplotlib; they live in ``headstart.report.figures`` and are imported from there.
"""

from headstart.report.page import (
    Callout,
    Code,
    Example,
    Gallery,
    Headline,
    Notes,
    Page,
    Picture,
    Section,
    Table,
    Text,
    render_page,
    save_pictures,
    write_page,
)
from headstart.report.text import evaluation_table, format_score

__all__ = [
    "Callout",
    "Code",
    "Example",
    "Gallery",
    "Headline",
    "Notes",
    "Page",
    "Picture",
    "Section",
    "Table",
    "Text",
    "evaluation_table",
    "format_score",
    "render_page",
    "save_pictures",
    "write_page",
]
