"""``headstart suggest``: which items to label next."""

from __future__ import annotations

from headstart.commands.console import Printing, plain_table, print_json, print_lines, stdout
from headstart.commands.generate import Items, RunFolder, generated
from headstart.commands.settings import ReadOptions, RunOptions
from headstart.commands.suggest.options import SUGGEST, SuggestConfig
from headstart.core.terminal import say_row
from headstart.core.wording import clean, count

SHOWN = 20
"""So many suggestions are printed; a file gets all of them."""


@generated(SUGGEST)
def suggest(
    run: RunFolder,
    data: Items,
    config: SuggestConfig,
    reading: ReadOptions,
    running: RunOptions,
    printing: Printing,
) -> None:
    """Say which of some unlabelled items to label next, and why.

    Items that trained or tested the run are left out, copies of one another count once.
    """
    from headstart.commands.suggest.job import suggest as suggest_job

    found = suggest_job(data, run, config=config, run=running, reading=reading)
    columns = found.columns()
    rows = list(zip(*columns.values(), strict=True))
    if printing.json:
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
        return
    if printing.quiet:
        if config.table is None:
            for item in found.origins:
                say_row((clean(item),))
        return
    console = stdout()
    shown = [(row[0], clean(row[1]), clean(row[2])) for row in rows[:SHOWN]]
    cells = [tuple(str(cell) for cell in row) for row in shown]
    console.print(plain_table(("rank", "item", "why"), cells, right=("rank",)))
    if len(rows) > SHOWN:
        console.print(f"and {len(rows) - SHOWN:,} more")
    if config.table is not None:
        print_lines(
            console, (f"{count(len(rows), 'suggestion')} written to {clean(config.table)}",)
        )
