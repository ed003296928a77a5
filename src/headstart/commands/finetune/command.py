"""``headstart finetune``: thaw in stages, never computing a frozen prefix twice."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headstart.commands import options
from headstart.commands.console import print_json, reporter, stdout
from headstart.commands.grouped import grouped
from headstart.heads.registry import describe_heads

if TYPE_CHECKING:
    from headstart.finetuning.plan import Plan

_TRAINING = "Training"


@grouped
def finetune(
    data: options.Data,
    *,
    backbone: options.BackboneName = "headstart/glyphs",
    layer: options.Layer = None,
    pooling: options.Pooling = None,
    network: options.Network,
    source: options.Source,
    recipe: Annotated[
        str,
        typer.Option(
            "--recipe",
            "-r",
            help="linear-probe, lp-ft, last-block, gradual, full, layer-decay, bn-affine, "
            "surgical, sgd-step, adam-step, sgd-step-head, adam-step-head, or FILE.toml.",
            rich_help_panel=_TRAINING,
        ),
    ] = "lp-ft",
    epochs: Annotated[
        int | None,
        typer.Option(
            help="Epochs of every stage instead of the recipe's.",
            show_default=False,
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option(
            help="Learning rate of every stage instead of the recipe's.",
            show_default=False,
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    train_batch: Annotated[
        int | None,
        typer.Option(
            help="Images a training step instead of the recipe's.",
            show_default=False,
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    views: Annotated[
        int | None,
        typer.Option(
            help="Numbered augmentations of an image, instead of the recipe's; 0: none.",
            show_default=False,
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    cache: Annotated[
        str,
        typer.Option(
            help="auto: train on stored rows of the frozen part where that is faster. "
            "on: refuse a recipe that cannot. off: compute everything in every epoch.",
            rich_help_panel=_TRAINING,
        ),
    ] = "auto",
    probe: Annotated[
        str,
        typer.Option(
            help="Kind of head that a recipe with a probe starts from. "
            + describe_heads(linear=True),
            rich_help_panel=_TRAINING,
        ),
    ] = "linear",
    stored_dtype: Annotated[
        str,
        typer.Option(
            help="Type of stored rows: float32, float16 or bfloat16.", rich_help_panel=_TRAINING
        ),
    ] = "float32",
    devices: Annotated[
        int,
        typer.Option(
            help="GPUs that share every batch, or processes on the CPU.",
            rich_help_panel=_TRAINING,
        ),
    ] = 1,
    log: Annotated[
        list[str] | None,
        typer.Option(
            help="tensorboard or mlflow, into the run folder; can be repeated.",
            show_default=False,
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print the plan and stop.", rich_help_panel=_TRAINING),
    ] = False,
    out: options.Out = None,
    bad_files: options.BadFiles = "raise",
    seed: options.Seed = 0,
    cache_dir: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the cache. Default: $HEADSTART_CACHE or the platform's.",
            show_default=False,
            rich_help_panel="Running",
        ),
    ] = None,
    batch_size: options.BatchSize = 64,
    device: options.Device = "auto",
    workers: options.Workers = None,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Fine-tune a backbone in stages: plan, train, keep the best epoch, test once.

    Writes a run folder as fit does, which predict and evaluate open. Killed at any moment, the
    same command with the same --out goes on with the last finished epoch.
    """
    from headstart.commands.finetune.job import FinetuneConfig, plan_finetune
    from headstart.commands.finetune.job import finetune as run_finetune
    from headstart.commands.run_report import next_steps
    from headstart.core.records import to_plain
    from headstart.finetuning import load_recipe
    from headstart.report import evaluation_table

    say, console = reporter(quiet), stdout()
    chosen = load_recipe(recipe).with_changes(
        epochs=epochs, lr=lr, batch_size=train_batch, views=views
    )
    config = FinetuneConfig(
        stored=cache,  # type: ignore[arg-type]
        stored_dtype=stored_dtype,  # type: ignore[arg-type]
        probe=probe,
        seed=seed,
        extraction=options.extraction(batch_size, "float32", device, False, workers),
        on_bad=bad_files,  # type: ignore[arg-type]
        devices=devices,
        loggers=tuple(log or ()),
    )
    spec = network.spec(backbone, layer, pooling)
    data_options = source.options()
    if dry_run:
        plan = plan_finetune(
            data,
            spec,
            chosen,
            config=config,
            out=out,
            cache=cache_dir,
            data_options=data_options,
            reporter=say,
        )
        if as_json:
            print_json({**to_plain(plan), "seconds": plan.seconds})
        else:
            _show_plan(plan)
        return
    run = run_finetune(
        data,
        spec,
        chosen,
        config=config,
        out=out,
        cache=cache_dir,
        data_options=data_options,
        reporter=say,
        show_plan=None if as_json or quiet else _show_plan,
    )
    if as_json:
        print_json({**run.metrics(), "folder": str(run.folder)})
        return
    console.print(evaluation_table(run.evaluation, baselines=run.baselines))
    parts = [f"{step} {value:.1f} s" for step, value in run.seconds.items() if step != "total"]
    console.print(f"\ntime:   {run.seconds['total']:.1f} s: {', '.join(parts)}")
    console.print(f"\nreport: {run.folder}/report.html")
    for command in next_steps(run):
        console.print(f"next:   {command}")


def _show_plan(plan: Plan) -> None:
    from headstart.commands.finetune.plan_table import plan_table

    stdout().print(plan_table(plan))
