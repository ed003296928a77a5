"""``headstart backbones``: list families, find names, describe one backbone."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headstart.commands.console import plain_table, print_json, stdout
from headstart.commands.generate import generated
from headstart.commands.settings import BackboneSpec, Signature
from headstart.core.records import to_plain
from headstart.core.settings import option

if TYPE_CHECKING:
    from headstart.backbones import Backbone


@dataclasses.dataclass(frozen=True)
class Listing:
    """What of a backbone is listed.

    Attributes:
        layers: every layer, not only the main blocks.
        json: as JSON.
    """

    layers: bool = option(False, "List every layer, not only the main blocks.")
    json: bool = option(False, "Print JSON on standard output.")


BACKBONES = Signature("backbones", Listing(), hidden=("source", "layer", "pooling"))


@generated(BACKBONES)
def backbones(
    listing: Listing,
    network: BackboneSpec,
    name: Annotated[
        str | None,
        typer.Argument(
            help="A family (timm), part of a name (timm/resnet), or a backbone to describe "
            "(headstart/glyphs).",
            show_default=False,
        ),
    ] = None,
) -> None:
    """List the backbones, or describe one: preprocessing, parameters, where it can be cut."""
    from headstart.backbones.families import families

    if name is None:
        _families(listing.json)
        return
    family_name, _, rest = name.partition("/")
    family = next((f for f in families() if f.name == family_name), None)
    names = () if family is None else family.names()
    exact = network.weights is not None or rest in names
    if family is not None and not exact:
        found = [f"{family.name}/{n}" for n in names if rest.lower() in n.lower()]
        if found:
            if listing.json:
                print_json(found)
            else:
                stdout().print("\n".join(found))
            return
    _describe(dataclasses.replace(network, source=name).load(), listing)


def _families(as_json: bool) -> None:
    from headstart.backbones.families import families

    counts = [(family, len(family.names())) for family in families()]
    rows = [(family.form, f"{n:,}" if n else "", family.summary) for family, n in counts]
    stated = {
        f"{family.name}/{name}": family.about(name)
        for family in families()
        if family.about is not None
        for name in family.names()
    }
    if as_json:
        listed: list[dict[str, Any]] = [{"name": a, "count": b, "summary": c} for a, b, c in rows]
        print_json(listed + [{"name": name, **to_plain(it)} for name, it in stated.items()])
        return
    console = stdout()
    console.print(plain_table(("backbone", "count", ""), rows, right=["count"]))
    console.print()
    for name, about in stated.items():
        console.print(f"{name}: {about}")
    console.print("\ndescribe one:  headstart backbones headstart/glyphs")
    console.print("search names:  headstart backbones timm/resnet18")


def _describe(backbone: Backbone, listing: Listing) -> None:
    shapes = {layer.name: layer.shape for layer in backbone.layers}
    names = [
        name
        for name in shapes
        if listing.layers
        or name in backbone.blocks
        or (name.rpartition(".")[0] in backbone.blocks and name.rpartition(".")[2].isdigit())
    ]
    (features,) = backbone.feature_shape()[:1] or (0,)
    if listing.json:
        print_json(
            {
                "name": backbone.name,
                "parameters": backbone.parameter_count(),
                "features": features,
                "preprocessing": backbone.inputs.describe(),
                **to_plain(backbone.about),
                "layers": [{"name": name, "shape": list(shapes[name])} for name in names],
                "notes": list(backbone.notes),
            }
        )
        return
    console = stdout()
    console.print(
        f"{backbone.name}: {backbone.parameter_count():,} parameters, {features} features"
    )
    console.print(f"preprocessing: {backbone.inputs}")
    for note in backbone.notes:
        console.print(note)
    console.print("\ncut it with --layer NAME:")
    rows = [(f"  {name}", "×".join(map(str, shapes[name]))) for name in names]
    console.print(plain_table(("  layer", "shape"), rows))
