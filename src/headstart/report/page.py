"""A page as plain values, and the one self-contained HTML file it becomes.

A :class:`Page` is text, tables and figures. It never holds markup: every string is escaped when
the page is rendered, and a picture is a figure or the bytes of an image, never a piece of HTML.
So nothing in a data set (a class name, a file name, a note) can become part of the document's
structure.
"""

from __future__ import annotations

import base64
import functools
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from markupsafe import Markup

from headstart._version import __version__
from headstart.core.errors import ConfigError, HeadstartError
from headstart.core.files import clear_errors, write_text
from headstart.core.records import Excerpt
from headstart.core.wording import NOT_DEFINED, clean, count, format_number
from headstart.report.palette import resource, stylesheet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Cell: TypeAlias = str | int | float | None

# The browser itself refuses whatever is not named here: scripts, frames, forms, any request.
CONTENT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none';"
    " form-action 'none'"
)

_IMAGE_KINDS = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
)


@dataclass(frozen=True)
class Headline:
    """One of the few figures at the top of a page: ``value`` large, ``detail`` small below."""

    label: str
    value: str
    detail: str = ""


@dataclass(frozen=True)
class Text:
    """One paragraph."""

    text: str


@dataclass(frozen=True)
class Code:
    """A command or lines of code, shown verbatim.

    Attributes:
        code: the lines.
        caption: what they are.
        wrapped: whether a long line goes on below; else it is scrolled, as columns of text need it.
    """

    code: str
    caption: str = ""
    wrapped: bool = False


@dataclass(frozen=True)
class Callout:
    """A highlighted remark. Its kind is written out, not shown by colour alone."""

    text: str
    kind: Literal["note", "advice", "warning"] = "note"


@dataclass(frozen=True)
class Notes:
    """Remarks that few readers need, folded under their number: what was decided, and why."""

    notes: tuple[str, ...]

    @property
    def caption(self) -> str:
        """What stands for them until a reader opens them."""
        return f"{count(len(self.notes), 'note')} on how this was made"


@dataclass(frozen=True)
class Table:
    """A table of strings and numbers.

    Attributes:
        header: the names of the columns.
        rows: one tuple per row, as long as ``header``. Numbers are written with three significant
            digits, None as a dash; give a string to word a value otherwise.
        caption: what the table shows.
        align: one letter per column, ``l`` or ``r``; empty aligns a column of numbers right.
        folded: whether the table is collapsed under its caption until a reader opens it.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""
    align: str = ""
    folded: bool = False

    def __post_init__(self) -> None:
        faults = [
            f"row {number} of the table '{clean(self.caption)}' has {len(row)} cells,"
            f" expected {len(self.header)}"
            for number, row in enumerate(self.rows, start=1)
            if len(row) != len(self.header)
        ]
        if self.align and (len(self.align) != len(self.header) or set(self.align) - set("lr")):
            faults.append(
                f"align of the table '{clean(self.caption)}' is {self.align!r},"
                f" expected {len(self.header)} letters, each l or r"
            )
        if faults:
            raise ConfigError(tuple(faults))

    @property
    def alignment(self) -> str:
        """One letter per column: as given, or right where every cell is a number or None."""
        return self.align or "".join(
            "r" if self.rows and not any(isinstance(row[column], str) for row in self.rows) else "l"
            for column in range(len(self.header))
        )


@dataclass(frozen=True)
class Picture:
    """A figure or an image.

    Attributes:
        content: a figure of ``headstart.report.figures``, or the bytes of a PNG, JPEG or GIF.
        alt: what it shows, in words, for those who do not see it.
        caption: a sentence below it.
        file: what :func:`save_pictures` names its file, as ``confusion.png``; empty: it has none.
    """

    content: Figure | bytes
    alt: str
    caption: str = ""
    file: str = ""


@dataclass(frozen=True)
class Example:
    """One item of a :class:`Gallery`: its name, facts as (what, value), and an excerpt of it.

    Facts are pairs so that each value is set apart: a right-to-left name must not reorder the
    figures beside it.
    """

    name: str
    facts: tuple[tuple[str, str], ...]
    excerpt: Excerpt | None = None


@dataclass(frozen=True)
class Gallery:
    """Small examples side by side."""

    examples: tuple[Example, ...]
    caption: str = ""


@dataclass(frozen=True)
class Case:
    """One item beside others that explain it: groups of examples, each with a title."""

    example: Example
    groups: tuple[tuple[str, tuple[Example, ...]], ...] = ()


@dataclass(frozen=True)
class Cases:
    """Items one below another, each beside what explains it."""

    cases: tuple[Case, ...]
    caption: str = ""


Block: TypeAlias = str | Text | Code | Callout | Notes | Table | Picture | Gallery | Cases


@dataclass(frozen=True)
class Section:
    """A titled part of a page. A plain string among the blocks is a paragraph."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Page:
    """A whole report.

    Attributes:
        title, subtitle: what it is about.
        headlines: the few figures at its top.
        sections: the rest.
        footer: adds to the line that names the version of headstart.
        verdict: what came out, in a sentence or two; stands before everything else.
    """

    title: str
    subtitle: str = ""
    headlines: tuple[Headline, ...] = ()
    sections: tuple[Section, ...] = ()
    footer: str = field(default="")
    verdict: str = ""


def render_page(page: Page) -> str:
    """Return the page as one HTML document that refers to nothing outside itself.

    The document holds no script, and its content policy forbids the browser to run or to fetch
    anything. The same page gives the same text.

    Raises:
        HeadstartError: a picture is neither a figure nor a PNG, JPEG or GIF.
    """
    names = (f"figure-{number}" for number in itertools.count(1))
    document: str = _template().render(
        page=page,
        sections=[(section.title, _grouped(section.blocks, names)) for section in page.sections],
        policy=CONTENT_POLICY,
        style=Markup(stylesheet()),  # noqa: S704 - our own file, no user data
        version=__version__,
    )
    # A name that is not valid text (a file name in an unknown encoding) must not fail the report.
    return document.encode("utf-8", "replace").decode("utf-8")


def write_page(page: Page, path: str | os.PathLike[str]) -> Path:
    """Render the page and write it to ``path``; a reader never sees half of a file.

    Returns:
        The path.

    Raises:
        HeadstartError: the file cannot be written.
    """
    path = Path(path)
    with clear_errors(f"write {path}"):
        write_text(path, render_page(page))
    return path


def save_pictures(page: Page, folder: str | os.PathLike[str]) -> tuple[Path, ...]:
    """Write the pictures of the page that name a file, each as PNG into ``folder``.

    Returns:
        The paths.

    Raises:
        HeadstartError: a file cannot be written.
    """
    from headstart.report.figures.output import save_png

    blocks = (block for section in page.sections for block in section.blocks)
    return tuple(
        save_png(block.content, Path(folder) / block.file)
        for block in blocks
        if isinstance(block, Picture) and block.file and not isinstance(block.content, bytes)
    )


def _grouped(
    blocks: Iterable[Block], names: Iterator[str]
) -> list[tuple[str, list[dict[str, Any]]]]:
    """Turn blocks into what the template shows; neighbouring pictures share a row."""
    shown = [_view(block, names) for block in blocks]
    return [
        (kind, list(members))
        for kind, members in itertools.groupby(shown, key=lambda view: view["kind"])
    ]


def _view(block: Block, names: Iterator[str]) -> dict[str, Any]:
    match block:
        case str():
            return {"kind": "text", "text": block}
        case Text():
            return {"kind": "text", "text": block.text}
        case Code():
            return {"kind": "code", "block": block, "lines": _lines(block.code)}
        case Callout():
            return {"kind": "callout", "block": block}
        case Notes():
            return {"kind": "notes", "block": block}
        case Table():
            return {"kind": "table", "block": block, "rows": [_cells(block, r) for r in block.rows]}
        case Picture():
            return {"kind": "picture", "block": block, **_drawing(block, next(names))}
        case Gallery():
            return {"kind": "gallery", "block": block, "examples": _sourced(block.examples)}
        case Cases():
            cases = [
                (
                    _sourced((case.example,)),
                    [(title, _sourced(members)) for title, members in case.groups],
                )
                for case in block.cases
            ]
            return {"kind": "cases", "block": block, "cases": cases}


def _sourced(examples: Sequence[Example]) -> list[tuple[Example, str | None]]:
    return [(example, _source(example.excerpt)) for example in examples]


def _source(excerpt: Excerpt | None) -> str | None:
    return data_uri(excerpt.picture) if excerpt is not None and excerpt.picture else None


def _lines(code: str) -> str:
    return "\n".join(clean(line) for line in code.rstrip().splitlines())


def _cells(table: Table, row: Sequence[Cell]) -> list[tuple[str, str]]:
    return list(zip(table.alignment, [_cell(cell) for cell in row], strict=True))


def _cell(cell: Cell) -> str:
    if cell is None:
        return NOT_DEFINED
    return cell if isinstance(cell, str) else format_number(cell)


def _drawing(picture: Picture, name: str) -> dict[str, Any]:
    """Return the only markup that the template does not write itself, and its width in pixels."""
    if isinstance(picture.content, bytes):
        source = data_uri(picture.content)
        image = Markup('<img src="{}" alt="{}">').format(source, clean(picture.alt))
        return {"drawing": image, "width": None}
    from headstart.report.figures.output import inline

    drawing = inline(picture.content, alt=picture.alt, name=name)
    width = round(72 * picture.content.get_size_inches()[0])
    return {"drawing": Markup(drawing), "width": width}  # noqa: S704 - escaped by inline


def data_uri(image: bytes) -> str:
    """Return the image as a data address.

    Raises:
        HeadstartError: the bytes are not those of a PNG, JPEG or GIF.
    """
    for magic, kind in _IMAGE_KINDS:
        if image.startswith(magic):
            return f"data:{kind};base64,{base64.b64encode(image).decode('ascii')}"
    raise HeadstartError(
        f"a picture of a report must be PNG, JPEG or GIF bytes, found {image[:8]!r}…",
        hint="encode it with Pillow: image.save(buffer, 'PNG')",
    )


def _finalize(value: object) -> object:
    return value if isinstance(value, Markup) else clean(value)


@functools.cache
def _template() -> Any:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["listing"] = lambda text: Markup.escape(text)  # keeps its line breaks
    return environment.from_string(resource("page.html.jinja"))
