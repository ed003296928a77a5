"""Pages: nothing in them runs, nothing comes from outside, the same input gives the same bytes."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from headstart.core.errors import ConfigError, HeadstartError
from headstart.core.records import Excerpt
from headstart.report import (
    Callout,
    Code,
    Example,
    Gallery,
    Headline,
    Page,
    Picture,
    Section,
    Table,
    Text,
    render_page,
    write_page,
)
from tests.report.conftest import HOSTILE

MakePage = Callable[[tuple[str, ...]], Page]

PLAIN = ("ants", "bees", "wasps")
DRAWING = {"svg", "g", "path", "text", "use", "defs", "clippath", "rect", "image"}
ELEMENTS = DRAWING | {
    "html", "head", "meta", "title", "style", "body", "main", "header", "h1", "bdi", "p", "dl",
    "div", "dt", "dd", "nav", "ol", "li", "a", "section", "h2", "figure", "figcaption", "pre",
    "code", "aside", "strong", "details", "summary", "table", "caption", "thead", "tbody",
    "tr", "th", "td", "ul", "img", "span", "footer",
}  # fmt: skip
VOID = {"meta", "img"}


class Document(HTMLParser):
    """What a browser would make of the page: elements, attributes, text; balanced or not."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.open: list[str] = []
        self.unbalanced: list[str] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.unbalanced.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(params=[PLAIN, HOSTILE], ids=["plain", "hostile"])
def page(request: pytest.FixtureRequest, make_page: MakePage) -> Page:
    return make_page(request.param)


def test_holds_only_known_elements_and_is_balanced(page: Page) -> None:
    document = Document(render_page(page))
    assert set(document.elements) <= ELEMENTS
    assert document.unbalanced == []
    assert document.open == []


def test_hostile_names_change_no_structure(make_page: MakePage) -> None:
    # The same page with harmless names of the same number has the same elements outside figures,
    # whose number of labels depends on the names' widths.
    harmless = (*(f"name {index}" for index in range(len(HOSTILE) - 1)), "")

    def outline(names: tuple[str, ...]) -> list[str]:
        elements = Document(render_page(make_page(names))).elements
        return [element for element in elements if element not in DRAWING]

    assert outline(HOSTILE) == outline(harmless)


def test_hostile_names_are_shown_as_text(make_page: MakePage) -> None:
    text = Document(render_page(make_page(HOSTILE))).text
    for name in ("<script>alert(1)</script>", "{{ 7 * 7 }}", "$x_1$ & $\\frac{1}{$", "نملة كبيرة"):
        assert name in text


def test_no_attribute_can_run_or_fetch(page: Page) -> None:
    for tag, name, value in Document(render_page(page)).attributes:
        assert not name.startswith("on"), (tag, name)
        if name in {"src", "href", "xlink:href"}:
            assert value.startswith(("#", "data:image/png;base64,")), (tag, name, value[:60])
        if name == "style":
            assert not re.search(r"url\((?!#)|expression|@import", value), value
        assert name not in {"srcset", "action", "formaction", "background", "poster", "srcdoc"}


def test_no_address_in_markup(make_page: MakePage) -> None:
    assert "http" not in re.sub(r"http-equiv", "", render_page(make_page(PLAIN)))


def test_content_policy_forbids_everything_else(page: Page) -> None:
    attributes = Document(render_page(page)).attributes
    policy = next(value for tag, name, value in attributes if value.startswith("default-src"))
    assert {part.strip() for part in policy.split(";")} >= {
        "default-src 'none'",
        "style-src 'unsafe-inline'",
        "img-src data:",
    }


def test_no_control_character_and_valid_utf8(make_page: MakePage) -> None:
    source = render_page(make_page(HOSTILE))
    source.encode("utf-8")
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", source)


def test_same_input_same_bytes(make_page: MakePage) -> None:
    assert render_page(make_page(PLAIN)) == render_page(make_page(PLAIN))


def test_identifiers_are_unique_and_every_reference_resolves(page: Page) -> None:
    document = Document(render_page(page))
    identifiers = [value for _, name, value in document.attributes if name == "id"]
    assert len(identifiers) == len(set(identifiers))
    for _, name, value in document.attributes:
        targets = re.findall(r"url\(#([^)]+)\)", value)
        targets += [value[1:]] if name == "href" else []
        for target in targets:
            if not target.startswith("data:"):
                assert target in identifiers or value.startswith("data:")


def test_a_report_is_small(make_page: MakePage) -> None:
    assert len(render_page(make_page(PLAIN)).encode()) < 150_000
    hundred = tuple(f"class {index}" for index in range(100))
    assert len(render_page(make_page(hundred)).encode()) < 400_000


def test_every_block_is_rendered(thumbnail: bytes) -> None:
    page = Page(
        "title",
        "sub",
        (Headline("label", "value", "detail"),),
        (
            Section(
                "section",
                (
                    "a string",
                    Text("a text"),
                    Code("line 1\n  line 2", "how"),
                    Callout("careful", "warning"),
                    Table(("name", "n"), (("a", 1234), ("b", None)), "a table"),
                    Table(("name", "n"), (("c", 0.125),), "a folded table", folded=True),
                    Picture(thumbnail, "an image", "below it"),
                    Gallery(
                        (
                            Example("file.png", (("true", "a"),), Excerpt(thumbnail)),
                            Example("row 3", (), Excerpt(text="an excerpt")),
                        ),
                        "examples",
                    ),
                ),
            ),
        ),
        "more",
    )  # fmt: skip
    source = render_page(page)
    text = Document(source).text
    for words in ("title", "sub", "label", "value", "detail", "section", "a string", "a text",
                  "line 1\n  line 2", "how", "Warning.", "careful", "1,234", "–", "a table",
                  "a folded table", "0.125", "below it", "file.png", "row 3", "an excerpt",
                  "true: a", "examples", "more"):  # fmt: skip
        assert words in text
    assert 'alt="an image"' in source


def test_numbers_align_right_unless_told_otherwise() -> None:
    table = Table(("name", "n", "x"), (("a", 1, "x"), ("b", None, 2.0)))
    assert table.alignment == "lrl"
    assert Table(("a", "b"), (("1", 2),), align="rl").alignment == "rl"


def test_a_ragged_table_is_refused_with_all_faults() -> None:
    with pytest.raises(ConfigError) as caught:
        Table(("a", "b"), (("1",), ("1", "2"), ("1", "2", "3")), "scores", align="lx")
    assert len(caught.value.faults) == 3


def test_bytes_that_are_no_image_are_refused() -> None:
    page = Page("t", sections=(Section("s", (Picture(b"<svg onload=alert(1)>", "x"),)),))
    with pytest.raises(HeadstartError, match="PNG, JPEG or GIF"):
        render_page(page)


def test_write_replaces_and_leaves_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    assert write_page(Page("new"), path) == path
    assert path.read_bytes() == render_page(Page("new")).encode("utf-8")
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]


def test_write_to_a_missing_folder_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(HeadstartError, match=r"cannot write .*No such file") as caught:
        write_page(Page("x"), tmp_path / "nowhere" / "report.html")
    assert caught.value.hint


def test_write_over_a_folder_leaves_no_temporary_file(tmp_path: Path) -> None:
    (tmp_path / "report.html").mkdir()
    with pytest.raises(HeadstartError, match="cannot write"):
        write_page(Page("x"), tmp_path / "report.html")
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]
