"""``headstart similar``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from headstart.commands.console import Printing, plain_table, print_json, print_lines, stdout
from headstart.commands.generate import RunOrData, generated
from headstart.commands.settings import BackboneSpec, ReadOptions, RunOptions
from headstart.commands.similar.options import SIMILAR, SimilarConfig
from headstart.core.terminal import say_row
from headstart.core.wording import clean, count, format_number

if TYPE_CHECKING:
    from headstart.commands.similar.found import Answer, Similar

SHOWN = 20
"""Queries that are printed; a file gets all of them."""

Queries = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="QUERY",
        help="An item of the data by its name, a file or a folder of them, or a text.",
        show_default=False,
    ),
]


@generated(SIMILAR)
def similar(
    items: RunOrData,
    config: SimilarConfig,
    backbone: BackboneSpec,
    reading: ReadOptions,
    run: RunOptions,
    printing: Printing,
    queries: Queries = None,
) -> None:
    """Find the items of a run, or of data, that are most like others, by their features.

    Every row is compared, in bounded memory. An item of the data is not found for itself, nor are
    its copies.
    """
    from headstart.commands.similar.job import similar as similar_job

    found = similar_job(
        items, list(queries or ()), backbone, config=config, run=run, reading=reading
    )
    if printing.json:
        table = found.columns()
        print_json(
            [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
        )
        return
    if printing.quiet:
        if config.table is None and config.page is None:
            for answer in found.answers:
                for match in answer.matches:
                    say_row((answer.query.name, match.item, f"{match.similarity:.6g}"))
        return
    _print(found)
    lines = [f"table: {clean(config.table)}"] if config.table is not None else []
    lines += [f"page: {clean(config.page)}"] if config.page is not None else []
    print_lines(stdout(), lines)


def _print(found: Similar) -> None:
    console = stdout()
    for answer in found.answers[:SHOWN]:
        if len(found.answers) > 1:
            console.print(f"\n{clean(answer.query.name)}")
        console.print(_table(found, answer))
    if len(found.answers) > SHOWN:
        more = count(len(found.answers) - SHOWN, "more query", "more queries")
        console.print(f"and {more}; --out FILE gets all of them")


def _table(found: Similar, answer: Answer) -> object:
    from headstart.commands.similar.found import near_copy

    similarity = "similarity" if found.compare == "euclidean" else "cosine"
    labelled = any(match.label for match in answer.matches)
    rows = []
    for match in answer.matches:
        said = "nearly the same" if near_copy(found.compare, match.similarity) else ""
        if match.copies:
            said = ", ".join(filter(None, [said, count(match.copies, "copy", "copies")]))
        value = (
            format_number(match.similarity)
            if similarity == "similarity"
            else f"{match.similarity:.3f}"
        )
        label = (match.label,) if labelled else ()
        rows.append((match.item, match.split, *label, value, said))
    titles = ("item", "split", *(("label",) if labelled else ()), similarity, "")
    return plain_table(titles, rows, right=[similarity])


__all__ = ["similar"]
