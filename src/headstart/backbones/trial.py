"""Run a network on inputs of its own kind when it is loaded, so that what it lacks is said now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from headstart.backbones.backbone import Backbone
from headstart.core.errors import BackboneError, HeadstartError
from headstart.core.wording import first_line, listed
from headstart.modules.forward import find_layer, hooked, named_tensors_of
from headstart.modules.keras import KerasPart
from headstart.modules.modes import evaluation_mode


def check_runs(backbone: Backbone) -> tuple[str, ...]:
    """Run the probe, so that a network that cannot take its own input says so now.

    Returns:
        Notes: which of several tensors of an output are the features.
    """
    seen: dict[str, tuple[tuple[str, Tensor], ...]] = {}
    name = backbone.layer or ""
    part = find_layer(backbone.module, name) if name else backbone.module

    def after(name: str, output: Any) -> None:
        seen[name] = named_tensors_of(output)

    try:
        with hooked({name: part}, after=after):
            shape = backbone.feature_shape()
    except (HeadstartError, MemoryError):
        raise
    except Exception as error:  # of a network's own code
        raise BackboneError(
            f"{backbone.name} cannot run on {backbone.inputs.extent}: {first_line(error)}",
            hint=_what_may_help(backbone, error),
        ) from error
    if backbone.pooling != "none" and len(shape) != 1:
        raise BackboneError(f"{backbone.name} returns features of shape {shape} after pooling")
    if _is_graph(backbone):  # recorded for a number of items, perhaps
        try:
            with torch.no_grad(), evaluation_mode(backbone.module):
                backbone.features(backbone.probe(5))
        except (RuntimeError, AssertionError) as error:
            raise BackboneError(
                f"{backbone.name} runs on two items but not on five: {first_line(error)}",
                hint=_DYNAMIC,
            ) from error
    if not name and isinstance(backbone.module, KerasPart):
        return ()  # its family names the outputs as the model does
    return _which_of(backbone, seen.get(name, ()))


def _which_of(backbone: Backbone, tensors: Sequence[tuple[str, Tensor]]) -> tuple[str, ...]:
    """Say which of several tensors of an output is the feature: the first."""
    if len(tensors) < 2:
        return ()
    who = f"layer '{backbone.layer}'" if backbone.layer else f"the {type(backbone.module).__name__}"
    shapes = [f"{name} {tuple(tensor.shape[1:])} an item" for name, tensor in tensors]
    return (
        f"{who} returns {len(tensors)} tensors ({listed(shapes, 4)}): the first is the feature; for"
        " another one, pass a module that returns it alone, or name a layer",
    )


def _what_may_help(backbone: Backbone, error: Exception) -> str:
    """Return what to do about a network that cannot take its own input."""
    if _is_graph(backbone):
        return _DYNAMIC
    kinds = {each.dtype for each in backbone.module.parameters() if each.is_floating_point()}
    if kinds - {torch.float32}:
        named = " and ".join(sorted(str(kind).removeprefix("torch.") for kind in kinds))
        return f"its weights are {named}, but items are float32: pass module.float()"
    if not backbone.origin.get("rebuildable"):
        if isinstance(error, TypeError | NotImplementedError):
            return "it is called with only a batch: wrap it in a module that supplies the rest"
        return "pass another size=…, or a module that takes such a batch"
    return "pass another size=…, or check model_args"


_DYNAMIC = (
    "export it for any number of items: "
    "torch.export.export(…, dynamic_shapes=({0: torch.export.Dim('items')},))"
)


def _is_graph(backbone: Backbone) -> bool:
    kinds = (fx.GraphModule, torch.jit.ScriptModule)
    return any(isinstance(part, kinds) for part in backbone.module.modules())


__all__ = ["check_runs"]
