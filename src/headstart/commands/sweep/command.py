"""``headstart sweep``: every head on every cut."""

from __future__ import annotations

from typing import Annotated

import typer

from headstart.commands.console import (
    Printing,
    plain_table,
    print_json,
    print_lines,
    print_quietly,
    stdout,
)
from headstart.commands.generate import generated
from headstart.commands.settings import BackboneSpec, ReadOptions, RunOptions
from headstart.commands.sweep.options import SWEEP, SweepConfig


@generated(SWEEP)
def sweep(
    data: Annotated[
        str,
        typer.Argument(
            help="Data as for fit; or features: an .npz or a folder of .npy with x_train, "
            "y_train, x_test, y_test.",
            show_default=False,
        ),
    ],
    config: SweepConfig,
    backbone: BackboneSpec,
    reading: ReadOptions,
    run: RunOptions,
    printing: Printing,
) -> None:
    """Try every head on every layer, choose inside the training split, test the winner once.

    With --backbones it compares backbones instead, and recommends one.
    """
    if config.backbones:
        _rank(data, config, backbone, reading, run, printing)
        return
    from headstart.commands.run_printing import mistakes_line, scores_table, time_line
    from headstart.commands.sweep.job import sweep as sweep_job
    from headstart.commands.sweep.page import HEADER, best_rows
    from headstart.commands.sweep.task_page import task_rows
    from headstart.core.records import to_plain
    from headstart.heads.task_sweeps import TaskSweep

    result = sweep_job(data, backbone, config=config, run=run, reading=reading)
    folder = None if result.folder is None else str(result.folder)
    if printing.json:
        print_json(
            {
                "winner": to_plain(result.sweep.winner),
                "candidates": to_plain(result.sweep.candidates),
                "curves": to_plain(getattr(result.sweep, "curves", ())),
                "evaluation": to_plain(result.evaluation),
                "folder": folder,
                "next": [] if result.run is None else list(result.run.commands.next),
            }
        )
        return
    if printing.quiet:
        print_quietly(result.folder, run.out)
        return
    console = stdout()
    if isinstance(result.sweep, TaskSweep):
        header, rows = task_rows(result.sweep)
        console.print(plain_table(header, rows))
    else:
        console.print(plain_table(HEADER, best_rows(result.sweep)))
    if result.evaluation is not None:
        console.print("\nthe first, refitted on all training items, on the test split:\n")
        console.print(scores_table(result.evaluation))
        console.print(f"\n{mistakes_line(result.evaluation)}")
    if result.run is not None:
        console.print(f"\n{time_line(result.run.seconds)}")
    if folder is not None:
        print_lines(console, (f"\nreport: {folder}/report.html",))
    if result.run is not None:
        print_lines(console, result.run.commands.lines())


def _rank(
    data: str,
    config: SweepConfig,
    backbone: BackboneSpec,
    reading: ReadOptions,
    run: RunOptions,
    printing: Printing,
) -> None:
    from headstart.commands.sweep.rank.job import plain, rank
    from headstart.commands.sweep.rank.page import RIGHT, correlation_line, header, table_rows

    made = rank(data, config.backbones, config=config, backbone=backbone, run=run, reading=reading)
    if printing.json:
        print_json(plain(made))
        return
    if printing.quiet:
        print_quietly(made.folder, run.out)
        return
    console = stdout()
    titles, rows = header(made.ranking), table_rows(made.ranking)
    table = plain_table(titles[:-1], [row[:-1] for row in rows], RIGHT)
    table.columns[0].no_wrap = True  # two backbones must not look alike
    console.print(table)
    line = correlation_line(made.ranking)
    failed = [f"{row.name} was not tried: {row.why}" for row in made.ranking.rows if row.why]
    front = [row.name for row in made.ranking.rows if row.on_front]
    said = [f"\nrecommended: {made.ranking.reason}", *([line] if line else []), *failed]
    if front:
        said.append(f"for these, no other is both cheaper and more accurate: {', '.join(front)}")
    print_lines(console, said)
    if made.folder is not None:
        print_lines(console, (f"report: {made.folder}/report.html",))
    print_lines(console, made.commands.lines())
