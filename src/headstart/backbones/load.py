"""``load_backbone``: the entry point to every family."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from headstart.backbones.backbone import Backbone
from headstart.backbones.families import FAMILIES, Built, Request, build_file
from headstart.backbones.local_weights import load_up_to
from headstart.backbones.preprocess import from_file
from headstart.core.errors import BackboneError
from headstart.data.inputs import Inputs, inputs_kind
from headstart.modules.forward import find_layer
from headstart.modules.pooling import Pooling


def load_backbone(
    source: str | nn.Module,
    *,
    weights: str | Path | None = None,
    model_args: Mapping[str, Any] | None = None,
    layer: str | None = None,
    pooling: Pooling | None = None,
    inputs: Inputs | None = None,
    **options: Any,
) -> Backbone:
    """Load a pre-trained network with its inputs.

    Args:
        source: ``headstart/glyphs``, ``timm/NAME[.TAG]``, ``torchvision/NAME[.WEIGHTS]``,
            ``path/to/file.py:factory``, or a module of your own. A module is used as it is, in
            place; its mode and weights are not changed.
        weights: a local checkpoint (safetensors, or a torch file of tensors) to load instead of
            the weights that the name stands for. Only what runs up to ``layer`` must be in it.
        model_args: further arguments of the architecture.
        layer: the submodule whose output is the feature; None is the family's own feature: the
            pooled input of the classifier.
        pooling: ``avg``, ``cls``, ``gem`` or ``none``; default ``avg`` at a layer, and ``none``
            at the family's own feature, which is pooled already.
        inputs: what the weights expect of an item, all at once; for images a
            :class:`~headstart.data.preprocessing.Preprocessing`.
        options: single values of the inputs that override those of the weights' metadata, such
            as ``mean``, ``std`` and ``size`` of a ``Preprocessing``.

    Returns:
        The backbone, its module in evaluation mode unless it is your own.

    Raises:
        BackboneError: an unknown name, arguments or layer; weights that do not fit or cannot be
            downloaded; inputs that nobody states.
        ConfigError: ``options`` names what the inputs do not have.
    """
    given = {name: value for name, value in options.items() if value is not None}
    file = None if weights is None else Path(weights).expanduser()
    if file is not None and not file.is_file():
        raise BackboneError(f"there is no weights file '{file}'")
    name, built = _build(source, Request("", file, dict(model_args or {})))
    said: tuple[str, ...] = ()
    if inputs is not None:
        chosen_inputs = inputs.changed(**given)
    else:
        kind = inputs_kind(built.kind)
        chosen_inputs, said = kind.resolve(name, {**built.known, **from_file(file)}, given)
    if layer is not None:
        find_layer(built.module, layer)
    chosen: Pooling = pooling or ("none" if layer is None else "avg")
    notes = (*built.notes, *said)
    backbone = Backbone(name, built.module, chosen_inputs, layer, chosen, built.blocks, {}, notes)
    if file is not None:
        example = backbone.probe()
        notes += load_up_to(built.module, file, layer, example, classifier=built.classifier)
    elif isinstance(source, str):
        built.module.eval()
    origin = {
        "name": name,
        "weights": None if file is None else str(file.resolve()),
        "model_args": dict(model_args or {}),
        "rebuildable": isinstance(source, str),
    }
    backbone = dataclasses.replace(backbone, notes=notes, origin=origin)
    _check_runs(backbone)
    backbone.check_layer()
    return backbone


def _build(source: str | nn.Module, request: Request) -> tuple[str, Built]:
    if isinstance(source, nn.Module):
        blocks = tuple(name for name, _ in source.named_children())
        return type(source).__name__, Built(source, {}, blocks)
    if ".py:" in source:
        return source, build_file(dataclasses.replace(request, name=source))
    prefix, _, name = source.partition("/")
    for family in FAMILIES:
        if family.prefix == prefix and name:
            return source, family.build(dataclasses.replace(request, name=name))
    raise BackboneError(
        f"'{source}' names no backbone",
        hint="write headstart/glyphs, timm/NAME, torchvision/NAME or path/to/file.py:factory",
    )


def _check_runs(backbone: Backbone) -> None:
    """Run the probe once, so that a network that cannot take its own input says so now."""
    try:
        shape = backbone.feature_shape()
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise BackboneError(
            f"{backbone.name} cannot run on {backbone.inputs.extent}: {lines[0]}",
            hint="give another --size, or check the model arguments",
        ) from error
    if backbone.pooling != "none" and len(shape) != 1:
        raise BackboneError(f"{backbone.name} gives features of shape {shape} after pooling")
