"""``headstart fit``: from data to a tested classifier."""

from __future__ import annotations

from typing import Annotated

import typer

from headstart.commands import options
from headstart.commands.console import print_json, reporter, stdout
from headstart.commands.grouped import grouped
from headstart.heads.registry import describe_heads


@grouped
def fit(
    data: options.Data,
    *,
    backbone: options.BackboneName = "headstart/glyphs",
    layer: options.Layer = None,
    pooling: options.Pooling = None,
    network: options.Network,
    source: options.Source,
    head: Annotated[str, typer.Option(help=describe_heads())] = "linear",
    out: options.Out = None,
    bad_files: options.BadFiles = "raise",
    folds: Annotated[
        int, typer.Option(help="Folds of the cross-validation inside the training split.")
    ] = 5,
    seed: options.Seed = 0,
    cache: options.Cache = None,
    batch_size: options.BatchSize = 64,
    precision: options.Precision = "float32",
    storage: options.Storage = "float32",
    device: options.Device = "auto",
    compile_it: options.Compile = False,
    workers: options.Workers = None,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Embed images once, train a head on the features, test it once.

    Writes a run folder with the head, metrics.json, run.json, figures and report.html.
    """
    from headstart.commands.fit.job import FitConfig
    from headstart.commands.fit.job import fit as run_fit
    from headstart.commands.run_report import next_steps
    from headstart.report import evaluation_table

    say = reporter(quiet)
    config = FitConfig(
        head=head,
        folds=folds,
        seed=seed,
        extraction=options.extraction(batch_size, precision, device, compile_it, workers, storage),
        on_bad=bad_files,  # type: ignore[arg-type]
    )
    run = run_fit(
        data,
        network.spec(backbone, layer, pooling),
        config=config,
        out=out,
        cache=cache,
        data_options=source.options(),
        reporter=say,
    )
    if as_json:
        print_json({**run.metrics(), "folder": str(run.folder)})
        return
    console = stdout()
    console.print(evaluation_table(run.evaluation, baselines=run.baselines))
    console.print(_timing(run.seconds, run.images_per_second))
    console.print(f"\nreport: {run.folder}/report.html")
    for command in next_steps(run):
        console.print(f"next:   {command}")


def _timing(seconds: object, rate: float | None) -> str:
    from collections.abc import Mapping

    assert isinstance(seconds, Mapping)
    parts = [f"{name} {value:.1f} s" for name, value in seconds.items() if name != "total"]
    speed = "" if rate is None else f" ({rate:,.0f} images/s)"
    return f"\ntime:   {seconds['total']:.1f} s{speed}: " + ", ".join(parts)
