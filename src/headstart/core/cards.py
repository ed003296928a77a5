"""How objects show themselves: HTML in a notebook, a few lines in a terminal. The one renderer.

An object says what there is to see as a :class:`Card` of plain values; markup is made here alone.
Every string is escaped, there is no script and no style sheet, and the colours are those of the
notebook, light or dark.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from headstart.core.wording import clean, columns, format_number, shorten

if TYPE_CHECKING:
    from jinja2 import Template

Cell: TypeAlias = str | int | float | None

_ROWS = 12
"""Rows of a table that a notebook shows."""
_LINES, _WIDTH = 6, 100
"""Rows and columns of a table that a terminal shows."""
_NOTES = 4

_HTML = """\
<div class="headstart-card" style="color: inherit; background: transparent; line-height: 1.4">
<div><strong>{{ card.kind }}</strong>{% if card.title %} &nbsp;{{ card.title }}{% endif %}</div>
{% if card.facts %}<table style="{{ plain }}"><tbody>
{% for name, value in card.facts %}<tr><th scope="row" style="{{ name_cell }}">{{ name }}</th>\
<td style="{{ left }}">{{ value }}</td></tr>
{% endfor %}</tbody></table>
{% endif %}{% for table in tables %}<table style="{{ plain }}">
{% if table.caption %}<caption style="{{ caption }}">{{ table.caption }}</caption>
{% endif %}<thead><tr>{% for name in table.header %}<th scope="col" style="{{ head_cell }};\
 text-align: {{ table.sides[loop.index0] }}">{{ name }}</th>{% endfor %}</tr></thead>
<tbody>{% for row in table.rows %}<tr>{% for cell in row %}<td style="{{ body_cell }};\
 text-align: {{ table.sides[loop.index0] }}">{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table>
{% if table.more %}<div style="{{ dim }}">{{ table.more }}</div>
{% endif %}{% endfor %}{% if notes %}<details><summary>{{ summary }}</summary><ul>
{% for note in notes %}<li>{{ note }}</li>
{% endfor %}</ul></details>
{% endif %}</div>
"""
_CELL = "padding: 0.15em 0.8em 0.15em 0; background: transparent; vertical-align: top"
_LINE = "rgba(128, 128, 128, 0.5)"
_STYLES = {
    "plain": "border-collapse: collapse; border: 0; margin: 0.3em 0; color: inherit;"
    " background: transparent",
    "left": f"{_CELL}; text-align: left",
    "name_cell": f"{_CELL}; text-align: left; font-weight: normal; opacity: 0.75",
    "head_cell": f"{_CELL}; border-bottom: 1px solid {_LINE}",
    "body_cell": _CELL,
    "caption": "caption-side: top; text-align: left; color: inherit; opacity: 0.75; padding: 0",
    "dim": "opacity: 0.75",
}


@dataclass(frozen=True)
class Grid:
    """A small table.

    Attributes:
        header: names of the columns.
        rows: cells; numbers are written with three significant digits, None as a dash.
        caption: what it shows.
        total: rows that there are, where ``rows`` are not all of them.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""
    total: int | None = None

    def cells(self, most: int) -> list[list[str]]:
        """Return the first rows in words."""
        return [[_cell(cell) for cell in row] for row in self.rows[:most]]

    def more(self, most: int) -> str:
        """Say how many rows are not shown; empty where all are."""
        left = (len(self.rows) if self.total is None else self.total) - min(most, len(self.rows))
        return f"and {left:,} more" if left > 0 else ""

    @property
    def sides(self) -> list[str]:
        """Where each column is aligned: numbers on the right."""
        numbers = [
            any(isinstance(row[at], int | float) for row in self.rows)
            for at in range(len(self.header))
        ]
        return ["right" if number else "left" for number in numbers]


@dataclass(frozen=True)
class Card:
    """What there is to see of an object.

    Attributes:
        kind: of the object: ``Run``.
        title: what it is, in one line.
        facts: names with values.
        tables: where one line an item is needed.
        notes: what was decided on the user's behalf, folded in a notebook.
    """

    kind: str
    title: str = ""
    facts: tuple[tuple[str, Cell], ...] = ()
    tables: tuple[Grid, ...] = ()
    notes: Sequence[str] = ()

    def html(self) -> str:
        """Return it as HTML that is safe in any notebook."""
        tables = [
            {
                "header": [clean(name) for name in grid.header],
                "rows": grid.cells(_ROWS),
                "caption": clean(grid.caption),
                "more": grid.more(_ROWS),
                "sides": grid.sides,
            }
            for grid in self.tables
        ]
        shown = {
            "kind": clean(self.kind),
            "title": clean(self.title),
            "facts": [(clean(name), _cell(value)) for name, value in self.facts],
        }
        notes = [clean(note) for note in self.notes]
        summary = "1 note" if len(notes) == 1 else f"{len(notes):,} notes"
        return _template().render(
            card=shown, tables=tables, notes=notes, summary=summary, **_STYLES
        )

    def text(self) -> str:
        """Return it as a few lines for a terminal."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield shorten(f"{self.kind}: {self.title}" if self.title else self.kind, _WIDTH)
        width = max((len(name) for name, _ in self.facts), default=0)
        for name, value in self.facts:
            yield shorten(f"  {clean(name):<{width}}  {_cell(value)}", _WIDTH)
        for grid in self.tables:
            yield from _aligned(grid)
        for note in self.notes[:_NOTES]:
            yield shorten(f"  note: {note}", _WIDTH)
        if len(self.notes) > _NOTES:
            yield f"  and {len(self.notes) - _NOTES:,} more notes"


class Shown:
    """An object that shows itself by its card.

    A dataclass that inherits it is one with ``repr=False``.
    """

    def card(self) -> Card:
        """Return what there is to see. It computes nothing and reads nothing."""
        raise NotImplementedError

    def __repr__(self) -> str:
        try:
            return self.card().text()
        except Exception as error:  # a debugger shows objects that are half made, too
            return f"<{type(self).__name__}, which cannot be shown: {type(error).__name__}>"

    def _repr_html_(self) -> str:
        return self.card().html()


@functools.cache
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined

    made = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=False)
    return made.from_string(_HTML)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return format_number(value) if isinstance(value, float) else clean(value)


def _aligned(grid: Grid) -> Iterator[str]:
    """Yield the lines of a table whose columns are aligned."""
    if grid.caption:
        yield shorten(f"  {grid.caption}", _WIDTH)
    lines = [[clean(name) for name in grid.header], *grid.cells(_LINES)]
    lines = [[shorten(cell, 40) for cell in line] for line in lines]
    widths = [max(columns(line[at]) for line in lines) for at in range(len(grid.header))]
    for line in lines:
        parts = []
        for cell, width, side in zip(line, widths, grid.sides, strict=True):
            space = " " * (width - columns(cell))
            parts.append(space + cell if side == "right" else cell + space)
        yield shorten(f"  {'  '.join(parts)}".rstrip(), _WIDTH)
    if left := grid.more(_LINES):
        yield f"  {left}"


__all__ = ["Card", "Grid", "Shown"]
