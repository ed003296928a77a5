"""The page of ``similar``: every query with what was found for it."""

from __future__ import annotations

from headstart.commands.similar.found import Answer, Similar, near_copy
from headstart.core.records import Excerpt
from headstart.core.wording import count, format_number, format_percent, singular
from headstart.report.page import Block, Callout, Example, Gallery, Notes, Page, Section

PICTURES = 300
"""So many items are shown with a thumbnail or an excerpt, which bounds the page to some 5 MB; the
others by name."""
_SHOWN_QUERIES = 200


def similar_page(found: Similar) -> Page:
    """Build the page."""
    left = PICTURES
    sections = []
    for answer in found.answers[:_SHOWN_QUERIES]:
        sections.append(Section(answer.query.name, _blocks(found, answer, left)))
        left -= len(answer.matches) + 1
    among = found.among
    unit = singular(among.backbone.inputs.unit)
    more = len(found.answers) - _SHOWN_QUERIES
    notes = list(found.notes)
    if more > 0:
        notes.append(f"{count(more, 'more query', 'more queries')} are only in the table")
    if found.recall is not None:
        notes.append(
            f"searched with an index that finds {format_percent(found.recall)} of the nearest"
        )
    return Page(
        title=f"Similar items in {among.name}",
        subtitle=f"{count(len(found.answers), 'query', 'queries')} among"
        f" {count(len(among), unit)}, by features of {among.backbone.name}",
        sections=(*sections, *((Section("Notes", (Notes(tuple(notes)),)),) if notes else ())),
    )


def _blocks(found: Similar, answer: Answer, left: int) -> tuple[Block, ...]:
    blocks: list[Block] = []
    if answer.itself:
        blocks.append(
            Callout(
                "It is in the data itself ("
                + ", ".join(answer.itself[:5])
                + (f" and {len(answer.itself) - 5} more" if len(answer.itself) > 5 else "")
                + "), and is left out below."
            )
        )
    examples = [Example(answer.query.name, (("query", "this item"),), answer.query.excerpt)]
    for match in answer.matches:
        facts = [("split", match.split), ("similarity", format_number(match.similarity))]
        facts[:0] = [("label", match.label)] if match.label else []
        if near_copy(found.compare, match.similarity):
            facts.append(("nearly the same", "see examine"))
        if match.copies:
            facts.append(("copies", f"{match.copies:,}"))
        glimpse: Excerpt | None = found.among.excerpt(match.at) if left > len(examples) else None
        examples.append(Example(match.item, tuple(facts), glimpse))
    if not answer.matches:
        return (*blocks, "Nothing else is in the data.")
    return (*blocks, Gallery(tuple(examples)))


__all__ = ["PICTURES", "similar_page"]
