"""``headstart examine``: label budget, leaks, doubtful labels."""

from __future__ import annotations

from typing import Annotated

import typer

from headstart.commands import options
from headstart.commands.console import print_json, reporter, stdout
from headstart.commands.grouped import grouped


@grouped
def examine(
    data: options.Data,
    *,
    backbone: options.BackboneName = "headstart/glyphs",
    layer: options.Layer = None,
    pooling: options.Pooling = None,
    network: options.Network,
    source: options.Source,
    repetitions: Annotated[int, typer.Option(help="Repetitions of the learning curve.", min=2)] = 5,
    threshold: Annotated[
        float, typer.Option(help="Cosine from which two images are near copies.", min=-1, max=1)
    ] = 0.98,
    out: options.Out = None,
    most: Annotated[int, typer.Option(help="Rows of each list.", min=1)] = 20,
    bad_files: options.BadFiles = "raise",
    seed: options.Seed = 0,
    cache: options.Cache = None,
    batch_size: options.BatchSize = 64,
    precision: options.Precision = "float32",
    device: options.Device = "auto",
    workers: options.Workers = None,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Ask the features: would more labels help, do splits leak, which labels look wrong?

    Writes a folder with report.html (the learning curve, pictures of near copies and of doubtful
    labels) and examination.json.
    """
    from headstart.commands.examine.job import examine as run_examine
    from headstart.commands.examine.page import format_gain
    from headstart.report import format_score

    found = run_examine(
        data,
        network.spec(backbone, layer, pooling),
        repetitions=repetitions,
        threshold=threshold,
        seed=seed,
        extraction=options.extraction(batch_size, precision, device, False, workers),
        on_bad=bad_files,  # type: ignore[arg-type]
        out=out,
        cache=cache,
        data_options=source.options(),
        reporter=reporter(quiet),
    )
    budget = found.budget
    if as_json:
        print_json(found.plain())
        return
    console = stdout()
    console.print("accuracy by labels a class (held out of the training split)")
    for shots, point in zip(budget.shots, budget.scores, strict=True):
        console.print(f"  {shots:>6,}  {format_score(point)}")
    if budget.gain is not None:
        console.print(f"twice the labels would bring about {format_gain(budget.gain)}")
    console.print(f"\n{len(found.near_copies):,} of {found.n_test:,} test items are near copies")
    for copy in found.near_copies[:most]:
        console.print(f"  {copy.similarity:.3f}  {copy.test}  {copy.train}")
    console.print(f"\n{len(found.doubts):,} of {found.n_train:,} training labels look doubtful")
    for doubt in found.doubts[:most]:
        console.print(
            f"  {doubt.item}: labelled {doubt.label}, looks like {doubt.suggested} "
            f"({doubt.probability:.0%})"
        )
    console.print(f"\nreport: {found.folder}/report.html")
