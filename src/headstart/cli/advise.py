"""``headstart advise``: is unfreezing likely to pay?"""

from __future__ import annotations

from typing import Annotated

import typer

from headstart.cli import options
from headstart.cli.console import print_json, reporter, stdout


def advise(
    data: options.Data,
    backbone: options.BackboneName = "headstart/glyphs",
    epochs: Annotated[int, typer.Option(help="Epochs of the trial of the last block.")] = 5,
    weights: options.Weights = None,
    model_args: options.ModelArgs = None,
    layer: options.Layer = None,
    pooling: options.Pooling = None,
    mean: options.Mean = None,
    std: options.Std = None,
    size: options.Size = None,
    scale: options.Scale = None,
    crop: options.CropFraction = None,
    interpolation: options.Interpolation = None,
    channels: options.Channels = None,
    image_column: options.ImageColumn = None,
    label_column: options.LabelColumn = None,
    test_fraction: options.TestFraction = 0.2,
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
    from headstart.jobs import DataOptions
    from headstart.jobs.advise import AdviseConfig
    from headstart.jobs.advise import advise as run_advise
    from headstart.records import to_plain

    spec = options.backbone_spec(
        backbone,
        weights=weights,
        model_args=model_args,
        layer=layer,
        pooling=pooling,
        mean=mean,
        std=std,
        size=size,
        scale=scale,
        crop=crop,
        interpolation=interpolation,
        channels=channels,
    )
    advice = run_advise(
        data,
        spec,
        config=AdviseConfig(
            epochs=epochs,
            seed=seed,
            extraction=options.extraction(batch_size, "float32", device, False, workers),
        ),
        cache=cache,
        data_options=DataOptions(image_column, label_column, test_fraction),
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
