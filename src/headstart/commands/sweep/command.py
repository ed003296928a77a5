"""``headstart sweep``: every head on every cut."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from headstart.commands import options
from headstart.commands.console import print_json, reporter, stdout
from headstart.commands.grouped import grouped
from headstart.core.errors import ConfigError
from headstart.heads.registry import describe_heads


@grouped
def sweep(
    data: Annotated[
        str,
        typer.Argument(
            help="Data as for fit; or features: an .npz or a folder of .npy with x_train, "
            "y_train, x_test, y_test.",
            show_default=False,
        ),
    ],
    *,
    backbone: options.BackboneName = "headstart/glyphs",
    network: options.Network,
    source: options.Source,
    layers: Annotated[
        str | None,
        typer.Option(
            help="Layers with commas; 'output' is the network's own feature.", show_default=False
        ),
    ] = None,
    poolings: Annotated[
        str | None,
        typer.Option(help="Poolings with commas, at each of --layers.", show_default=False),
    ] = None,
    heads: Annotated[
        str | None,
        typer.Option(
            help=f"Kinds of head, with commas. Default: all but the slow ones. {describe_heads()}",
            show_default=False,
        ),
    ] = None,
    grid: Annotated[
        str | None,
        typer.Option(
            help="Values of C with commas. Default: 45 from 1e-6 to 1e5.", show_default=False
        ),
    ] = None,
    standardise: Annotated[str, typer.Option(help="yes, no or both.")] = "yes",
    folds: Annotated[int, typer.Option(help="Folds of the cross-validation.")] = 5,
    seeds: Annotated[
        str, typer.Option(help="Seeds with commas, one division each, none twice.")
    ] = "0",
    out: options.Out = None,
    bad_files: options.BadFiles = "raise",
    cache: options.Cache = None,
    batch_size: options.BatchSize = 64,
    precision: options.Precision = "float32",
    device: options.Device = "auto",
    workers: options.Workers = None,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Try every head on every layer, choose inside the training split, test the winner once."""
    from headstart.commands.sweep.job import SweepConfig
    from headstart.commands.sweep.job import sweep as run_sweep
    from headstart.core.records import to_plain
    from headstart.report import evaluation_table

    faults: list[str] = []
    scaled = {"yes": (True,), "no": (False,), "both": (True, False)}.get(standardise)
    if scaled is None:
        faults.append(f"--standardise takes yes, no or both, not '{standardise}'")
    values = None if grid is None else _numbers("--grid", grid, float, faults)
    seed_values = _numbers("--seeds", seeds, int, faults)
    if faults:
        raise ConfigError(tuple(faults))
    more: dict[str, Any] = {} if values is None else {"grid": values}
    if heads is not None:
        more["heads"] = _words(heads)
    config = SweepConfig(
        layers=tuple(None if name == "output" else name for name in _words(layers)),
        poolings=_words(poolings),
        standardise=scaled or (True,),
        folds=folds,
        seeds=seed_values,
        extraction=options.extraction(batch_size, precision, device, False, workers),
        on_bad=bad_files,  # type: ignore[arg-type]
        **more,
    )
    result = run_sweep(
        data,
        network.spec(backbone, _some_layer(config.layers)),
        config=config,
        out=out,
        cache=cache,
        data_options=source.options(),
        reporter=reporter(quiet),
    )
    folder = None if result.run is None else str(result.run.folder)
    if as_json:
        print_json(
            {
                "winner": to_plain(result.sweep.winner),
                "candidates": to_plain(result.sweep.candidates),
                "curves": to_plain(result.sweep.curves),
                "evaluation": to_plain(result.evaluation),
                "folder": folder,
            }
        )
        return
    console = stdout()
    console.print(_table(result.sweep))
    if result.evaluation is not None:
        console.print("\nthe first, refitted on all training items, on the test split:\n")
        console.print(evaluation_table(result.evaluation))
    if folder is not None:
        console.print(f"\nreport: {folder}/report.html")


def _some_layer(layers: tuple[str | None, ...]) -> str | None:
    """Return one of the layers, where the output is not among them.

    The job finds the deepest, up to which weights have to be complete: it takes a network to know.
    """
    return None if None in layers or not layers else layers[-1]


def _words(text: str | None) -> tuple[str, ...]:
    return tuple(word.strip() for word in (text or "").split(",") if word.strip())


def _numbers(option: str, text: str, kind: type, faults: list[str]) -> tuple[Any, ...]:
    try:
        return tuple(kind(word) for word in _words(text))
    except ValueError:
        faults.append(f"{option} takes numbers with commas, not '{text}'")
        return ()


def _table(found: Any) -> object:
    """Show the best of every kind of head on every view."""
    from rich.table import Table
    from rich.text import Text

    from headstart.report import format_score

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("features", "head", "chosen", "seeds", "held-out accuracy"):
        table.add_column(title)
    seen: set[tuple[str, str]] = set()
    for candidate in found.candidates:
        kind = (candidate.view, candidate.head)
        if kind in seen:
            continue
        seen.add(kind)
        options_text = ", ".join(
            f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in candidate.options.items()
        )
        seeds = ", ".join(map(str, candidate.seeds))
        row = (
            candidate.view,
            candidate.head,
            options_text,
            seeds,
            format_score(candidate.accuracy),
        )
        table.add_row(*map(Text, row))
    return table
