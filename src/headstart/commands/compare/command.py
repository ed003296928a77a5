"""``headstart compare``: which way of running the backbone is right for this data, and why."""

from __future__ import annotations

from typing import Annotated

import typer

from headstart.commands import options
from headstart.commands.console import print_json, reporter, stdout
from headstart.commands.grouped import grouped
from headstart.heads.registry import describe_heads


@grouped
def compare(
    data: options.Data,
    *,
    backbone: options.BackboneName = "headstart/glyphs",
    layer: options.Layer = None,
    pooling: options.Pooling = None,
    network: options.Network,
    source: options.Source,
    configs: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,NAME,…",
            help="Configurations: words joined by '+', such as eval+no_grad, reestimated, "
            "blend(0.5), no_grad+unscaled, layer=stage2, finetune+adam, finetune:lp-ft. Default: "
            "the usual eight, none of which fine-tunes; '--configs list' lists all words.",
            show_default=False,
        ),
    ] = None,
    repeats: Annotated[int, typer.Option(help="Repetitions with independent seeds.", min=1)] = 5,
    head: Annotated[str, typer.Option(help=describe_heads())] = "linear",
    epochs: Annotated[
        int | None,
        typer.Option(
            help="Epochs of an mlp head, and of every stage of a fine-tuning. Default: those of "
            "the recipe.",
            show_default=False,
            min=1,
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            help="The configuration to compare with. Default: eval+inference_mode.",
            show_default=False,
        ),
    ] = None,
    passes: Annotated[
        int, typer.Option("--recompute-passes", help="Passes of the recompute configuration.")
    ] = 5,
    train_items: Annotated[
        int | None, typer.Option(help="Use at most so many training items.", show_default=False)
    ] = None,
    test_items: Annotated[
        int | None, typer.Option(help="Use at most so many test items.", show_default=False)
    ] = None,
    out: options.Out = None,
    bad_files: options.BadFiles = "raise",
    seed: options.Seed = 0,
    cache: options.Cache = None,
    batch_size: options.BatchSize = 32,
    precision: options.Precision = "float32",
    device: options.Device = "auto",
    workers: options.Workers = None,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Compare ways of running a frozen backbone on your data, with repetitions and causes.

    finetune+sgd and finetune+adam train a copy of it in every repetition, to see what freezing
    costs; they take by far the longest.

    Writes a run folder with comparison.json, figures and report.html. An interrupted comparison
    goes on where it stopped when the same command is given again.
    """
    from headstart.commands.compare.job import compare as run_compare
    from headstart.commands.compare.tables import terminal

    if configs is not None and configs.strip() == "list":
        _list_words()
        return
    run = run_compare(
        data,
        network.spec(backbone, layer, pooling),
        extraction=options.extraction(batch_size, precision, device, False, workers),
        seed=seed,
        on_bad=bad_files,  # type: ignore[arg-type]
        out=out,
        cache=cache,
        data_options=source.options(),
        reporter=reporter(quiet),
        configs=configs,
        repeats=repeats,
        head=head,
        epochs=epochs,
        reference=reference,
        recompute_passes=passes,
        train_items=train_items,
        test_items=test_items,
    )
    if as_json:
        print_json({**run.document(), **run.description(), "folder": str(run.folder)})
        return
    console = stdout()
    console.print(terminal(run.comparison))
    console.print(f"\nreport: {run.folder}/report.html")
    for command in run.commands:
        console.print(f"next:   {command}", soft_wrap=True)


def _list_words() -> None:
    from headstart.study import DEFAULT, TERMS

    console = stdout()
    for word, (_, about) in TERMS.items():
        console.print(f"{word:18}{about}")
    console.print(f"{'blend(0.5)':18}half of the way from running to re-estimated statistics")
    console.print(f"{'finetune:NAME':18}backbone trained by a recipe of headstart finetune, or a")
    console.print(f"{'':18}file: finetune:lp-ft, finetune:mine.toml")
    console.print(f"{'layer=NAME':18}another cut; likewise pooling=, batch=, size=, scale=, mean=,")
    console.print(f"{'':18}std=, crop=, channels= (three numbers with slashes: mean=0.4/0.5/0.6)")
    console.print(f"\ndefault: {','.join(DEFAULT)}")
