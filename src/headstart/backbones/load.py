"""``load_backbone``: one door to every family."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from headstart.backbones.backbone import Backbone
from headstart.backbones.families import FAMILIES, Built, Request, build_file
from headstart.backbones.local_weights import load_up_to
from headstart.backbones.preprocess import Numbers, Overrides, from_file, resolve
from headstart.core.errors import BackboneError
from headstart.data.preprocessing import Preprocessing
from headstart.modules.forward import find_layer
from headstart.modules.pooling import Pooling


def load_backbone(
    source: str | nn.Module,
    *,
    weights: str | Path | None = None,
    model_args: Mapping[str, Any] | None = None,
    layer: str | None = None,
    pooling: Pooling | None = None,
    preprocessing: Preprocessing | None = None,
    mean: Numbers | None = None,
    std: Numbers | None = None,
    size: int | tuple[int, int] | None = None,
    scale: float | None = None,
    crop_fraction: float | None = None,
    resize: str | None = None,
    interpolation: str | None = None,
    channels: str | None = None,
) -> Backbone:
    """Load a pre-trained network with its preprocessing.

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
        preprocessing: all of the preprocessing at once.
        mean, std, size, scale, crop_fraction, resize, interpolation, channels: single values that
            override those of the weights' metadata; see
            :class:`~headstart.data.preprocessing.Preprocessing`.

    Returns:
        The backbone, its module in evaluation mode unless it is your own.

    Raises:
        BackboneError: an unknown name, arguments or layer; weights that do not fit or cannot be
            downloaded; preprocessing that nobody states.
    """
    overrides = Overrides(mean, std, size, scale, crop_fraction, resize, interpolation, channels)
    file = None if weights is None else Path(weights).expanduser()
    if file is not None and not file.is_file():
        raise BackboneError(f"there is no weights file '{file}'")
    name, built = _build(source, Request("", file, dict(model_args or {})))
    said: tuple[str, ...] = ()
    if preprocessing is not None:
        plan = dataclasses.replace(preprocessing, **overrides.given())
    else:
        plan, said = resolve(name, {**built.known, **from_file(file)}, overrides)
    if layer is not None:
        find_layer(built.module, layer)
    chosen: Pooling = pooling or ("none" if layer is None else "avg")
    notes = (*built.notes, *said)
    backbone = Backbone(name, built.module, plan, layer, chosen, built.blocks, {}, notes)
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
        height, width = backbone.preprocessing.size
        raise BackboneError(
            f"{backbone.name} cannot run on images of {height}×{width}: {lines[0]}",
            hint="give another --size, or check the model arguments",
        ) from error
    if backbone.pooling != "none" and len(shape) != 1:
        raise BackboneError(f"{backbone.name} gives features of shape {shape} after pooling")
