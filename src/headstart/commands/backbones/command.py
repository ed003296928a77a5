"""``headstart backbones``: list families, find names, describe one backbone."""

from __future__ import annotations

from typing import Annotated

import typer

from headstart.commands import options
from headstart.commands.console import print_json, stdout
from headstart.commands.grouped import grouped


@grouped
def backbones(
    *,
    name: Annotated[
        str | None,
        typer.Argument(
            help="A family (timm), part of a name (timm/resnet), or a backbone to describe "
            "(headstart/glyphs).",
            show_default=False,
        ),
    ] = None,
    network: options.Network,
    layers: Annotated[
        bool, typer.Option("--layers", help="List every layer, not only the main blocks.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """List the backbones, or describe one: preprocessing, parameters, where it can be cut."""
    from headstart.backbones.families import FAMILIES

    if name is None:
        _families(as_json)
        return
    family_name, _, rest = name.partition("/")
    family = next((f for f in FAMILIES if f.prefix == family_name), None)
    names = [] if family is None else family.names()
    exact = network.weights is not None or ".py:" in name or rest in names
    if family is not None and not exact:
        found = [f"{family.prefix}/{n}" for n in names if rest.lower() in n.lower()]
        if found:
            if as_json:
                print_json(found)
            else:
                stdout().print("\n".join(found))
            return
    spec = network.spec(name)
    _describe(spec, layers, as_json)


def _families(as_json: bool) -> None:
    from headstart.backbones.families import FAMILIES

    rows = [(f"{f.prefix}/…", f"{len(f.names()):,}", f.summary) for f in FAMILIES]
    rows.append(("FILE.py:factory", "", "a function of yours that returns a torch.nn.Module"))
    if as_json:
        print_json([{"name": a, "count": b, "summary": c} for a, b, c in rows])
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title, side in (("backbone", "left"), ("count", "right"), ("", "left")):
        table.add_column(title, justify=side)  # type: ignore[arg-type]
    for row in rows:
        table.add_row(*row)
    console = stdout()
    console.print(table)
    console.print("\ndescribe one:  headstart backbones headstart/glyphs")
    console.print("search names:  headstart backbones timm/resnet18")


def _describe(spec: object, all_layers: bool, as_json: bool) -> None:
    from headstart.commands.backbone_spec import BackboneSpec

    assert isinstance(spec, BackboneSpec)
    backbone = spec.load()
    shapes = {layer.name: layer.shape for layer in backbone.layers}
    names = [
        name
        for name in shapes
        if all_layers
        or name in backbone.blocks
        or (name.rpartition(".")[0] in backbone.blocks and name.rpartition(".")[2].isdigit())
    ]
    (features,) = backbone.feature_shape()[:1] or (0,)
    if as_json:
        print_json(
            {
                "name": backbone.name,
                "parameters": backbone.parameter_count(),
                "features": features,
                "preprocessing": backbone.preprocessing.describe(),
                "layers": [{"name": name, "shape": list(shapes[name])} for name in names],
                "notes": list(backbone.notes),
            }
        )
        return
    console = stdout()
    console.print(
        f"{backbone.name}: {backbone.parameter_count():,} parameters, {features} features"
    )
    console.print(f"preprocessing: {backbone.preprocessing}")
    for note in backbone.notes:
        console.print(note)
    console.print("\ncut it with --layer NAME:")
    width = max((len(name) for name in names), default=0)
    for name in names:
        console.print(f"  {name:<{width}}  {'×'.join(map(str, shapes[name]))}")
