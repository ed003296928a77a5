"""``headstart advise``: is unfreezing likely to pay?"""

from __future__ import annotations

from typing import Annotated

import typer

from headstart.commands import options
from headstart.commands.console import print_json, reporter, stdout
from headstart.commands.grouped import grouped


@grouped
def advise(
    data: options.Data,
    *,
    backbone: options.BackboneName = "headstart/glyphs",
    layer: options.Layer = None,
    pooling: options.Pooling = None,
    network: options.Network,
    source: options.Source,
    epochs: Annotated[int, typer.Option(help="Epochs of the trial of the last block.")] = 5,
    seed: options.Seed = 0,
    cache: options.Cache = None,
    batch_size: options.BatchSize = 64,
    device: options.Device = "auto",
    workers: options.Workers = None,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Say whether unfreezing is likely to pay, with the evidence.

    Measures inside the training split only: a short trial of the last block, the probe's learning
    curve, the drift of batch-norm statistics, gradients relative to weights.
    """
    from headstart.commands.advise.job import AdviseConfig
    from headstart.commands.advise.job import advise as run_advise
    from headstart.core.records import to_plain

    advice = run_advise(
        data,
        network.spec(backbone, layer, pooling),
        config=AdviseConfig(
            epochs=epochs,
            seed=seed,
            extraction=options.extraction(batch_size, "float32", device, False, workers),
        ),
        cache=cache,
        data_options=source.options(),
        reporter=reporter(quiet),
    )
    if as_json:
        print_json(to_plain(advice))
        return
    from rich.table import Table
    from rich.text import Text

    console = stdout()
    console.print(Text(advice.verdict, style="bold"))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("indicator", "measured", "usually means", "leans to"):
        table.add_column(name)
    for item in advice.indicators:
        table.add_row(*(Text(c) for c in (item.name, item.value, item.meaning, item.leaning)))
    console.print(table)
    console.print(f"next:   {advice.command}")
