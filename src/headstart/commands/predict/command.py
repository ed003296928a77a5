"""``headstart predict`` and ``headstart evaluate``."""

from __future__ import annotations

from headstart.commands.console import Printing, plain_table, print_json, print_lines, stdout
from headstart.commands.generate import Data, Items, RunFolder, generated
from headstart.commands.predict.options import EVALUATE, PREDICT, EvaluateConfig, PredictConfig
from headstart.commands.settings import ReadOptions, RunOptions
from headstart.core.terminal import say_row
from headstart.core.wording import clean, count

SHOWN = 20
"""So many predictions are printed; a file gets all of them."""
SHOWN_LABELS = 4
"""With more labels their probabilities are not printed."""


@generated(PREDICT)
def predict(
    run: RunFolder,
    data: Items,
    config: PredictConfig,
    reading: ReadOptions,
    running: RunOptions,
    printing: Printing,
) -> None:
    """Predict classes, labels or numbers for items, in the order of the input.

    Without --out, the first predictions are printed.
    """
    from headstart.commands.predict.job import predict as predict_job
    from headstart.commands.run_printing import time_line

    said = predict_job(data, run, config=config, run=running, reading=reading)
    columns = said.columns(config.top)
    if said.task == "multi-label" and len(said.classes) > SHOWN_LABELS and not printing.json:
        columns = {n: cells for n, cells in columns.items() if not n.startswith("probability")}
    rows = list(zip(*columns.values(), strict=True))
    if printing.json:
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
        return
    if printing.quiet:
        if config.table is None:
            for row in rows:
                say_row(map(_plain, row[:3]))
        return
    console = stdout()
    titles = [name.replace("_", " ") for name in columns]
    shown = [
        [f"{cell:.3f}" if isinstance(cell, float) else cell for cell in row] for row in rows[:SHOWN]
    ]
    console.print(plain_table(titles, shown, right=[t for t in titles if "prob" in t]))
    if len(said) > SHOWN:
        console.print(f"and {len(said) - SHOWN:,} more")
    if said.sets is not None and said.task != "regression":
        open_ = int(said.sets.abstain.sum())
        print_lines(console, (f"no single answer for {open_:,} of {count(len(said), 'item')}",))
    if config.table is not None:
        print_lines(
            console, (f"{count(len(said), 'prediction')} written to {clean(config.table)}",)
        )
    if said.seconds:
        print_lines(console, ("", time_line(said.seconds, rest="imports")))


def _plain(cell: object) -> str:
    return f"{cell:.6g}" if isinstance(cell, float) else clean(cell)


@generated(EVALUATE)
def evaluate(
    run: RunFolder,
    data: Data,
    config: EvaluateConfig,
    reading: ReadOptions,
    running: RunOptions,
    printing: Printing,
) -> None:
    """Score a run on labelled data: its test split if it has one, else all of it.

    With --out it writes a folder with report.html, evaluation.json and all predictions.
    """
    from headstart.commands.predict.job import evaluate as evaluate_job
    from headstart.commands.run_facts import main_score
    from headstart.commands.run_printing import mistakes_line, scores_table
    from headstart.commands.sets_page import sets_lines
    from headstart.core.records import to_plain
    from headstart.report.task_text import format_named

    evaluation = evaluate_job(data, run, config=config, run=running, reading=reading)
    if printing.json:
        print_json(to_plain(evaluation))
        return
    console = stdout()
    if printing.quiet:
        first = main_score(evaluation)
        print_lines(console, (f"{first.name} {format_named(first)}",))
        return
    console.print(scores_table(evaluation))
    lines = [f"\n{mistakes_line(evaluation)}", *sets_lines(evaluation)]
    if running.out is not None:
        lines[0] += f"; all are in {running.out}/predictions.csv"
        lines.append(f"\nreport: {running.out}/report.html")
    print_lines(console, lines)
