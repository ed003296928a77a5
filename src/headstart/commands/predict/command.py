"""``headstart predict`` and ``headstart evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headstart.commands import options
from headstart.commands.console import print_json, reporter, stdout


def predict(
    run: options.RunFolder,
    data: options.Items,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Write predictions to this .csv or .parquet file.",
            show_default=False,
        ),
    ] = None,
    top: Annotated[int, typer.Option(help="Classes an item.", min=1)] = 3,
    image_column: options.ImageColumn = None,
    bad_files: options.BadFiles = "raise",
    cache: options.Cache = None,
    batch_size: options.BatchSize = 64,
    device: options.Device = "auto",
    workers: options.Workers = None,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Predict classes for images, in the order of the input.

    Without --out, the first predictions are printed.
    """
    from headstart.commands.predict.job import check_table_path
    from headstart.commands.predict.job import predict as run_predict
    from headstart.commands.sources import DataOptions

    if out is not None:
        check_table_path(out)
    said = run_predict(
        run,
        data,
        data_options=DataOptions(image_column=image_column),
        extraction=options.extraction(batch_size, "float32", device, False, workers),
        on_bad=bad_files,  # type: ignore[arg-type]
        cache=cache,
        reporter=reporter(quiet),
    )
    columns = said.columns(top)
    if out is not None:
        said.write(out, top)
    if as_json:
        names = list(columns)
        print_json(
            [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        )
        return
    console = stdout()
    console.print(_table(columns, 20))
    if len(said) > 20:
        console.print(f"and {len(said) - 20:,} more")
    if out is not None:
        console.print(f"{len(said):,} predictions written to {out}")


def evaluate(
    run: options.RunFolder,
    data: options.Data,
    image_column: options.ImageColumn = None,
    label_column: options.LabelColumn = None,
    bad_files: options.BadFiles = "raise",
    cache: options.Cache = None,
    batch_size: options.BatchSize = 64,
    device: options.Device = "auto",
    workers: options.Workers = None,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Score a run on labelled data: its test split if it has one, else all of it."""
    from headstart.commands.predict.job import evaluate as run_evaluate
    from headstart.commands.sources import DataOptions
    from headstart.core.records import to_plain
    from headstart.report import evaluation_table

    evaluation = run_evaluate(
        run,
        data,
        data_options=DataOptions(image_column, label_column),
        extraction=options.extraction(batch_size, "float32", device, False, workers),
        on_bad=bad_files,  # type: ignore[arg-type]
        cache=cache,
        reporter=reporter(quiet),
    )
    if as_json:
        print_json(to_plain(evaluation))
        return
    stdout().print(evaluation_table(evaluation))


def _table(columns: dict[str, list[object]], most: int) -> object:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        table.add_column(name.replace("_", " "), justify="right" if "prob" in name else "left")
    for row in list(zip(*columns.values(), strict=True))[:most]:
        table.add_row(*(Text(f"{v:.3f}" if isinstance(v, float) else str(v)) for v in row))
    return table
