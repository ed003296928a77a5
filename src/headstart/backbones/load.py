"""``load_backbone``: the entry point to every family."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from headstart.backbones.backbone import Backbone
from headstart.backbones.families import family_of
from headstart.backbones.family import Built, Request
from headstart.backbones.tensor_file import inputs_in, tensor_names
from headstart.backbones.weights import load_weights
from headstart.core.arguments import Arguments
from headstart.core.errors import BackboneError
from headstart.core.fingerprints import stamp
from headstart.data.inputs import Inputs, inputs_kind
from headstart.modules.forward import find_layer
from headstart.modules.layers import live_parts
from headstart.modules.pooling import Pooling


def load_backbone(
    source: str | nn.Module,
    *,
    weights: str | Path | None = None,
    model_args: Mapping[str, Any] | None = None,
    layer: str | None = None,
    pooling: Pooling | None = None,
    inputs: Inputs | None = None,
    code_sha256: str | None = None,
    **options: Any,
) -> Backbone:
    """Load a pre-trained network with its inputs.

    Args:
        source: a name such as ``headstart/glyphs``, ``timm/NAME[.TAG]``,
            ``torchvision/NAME[.WEIGHTS]`` or ``path/to/file.py:factory`` (``headstart backbones``
            lists the families), or a module of your own. A module is used in place; its mode and
            weights are not changed.
        weights: a local checkpoint (safetensors, or a torch file of tensors) to load instead of
            the weights that the name stands for. Only what runs up to ``layer`` must be in it.
        model_args: further arguments of the architecture.
        layer: the submodule whose output is the feature; None is the family's own feature: the
            pooled input of the classifier.
        pooling: ``avg``, ``cls``, ``gem`` or ``none``; default ``avg`` at a layer, and ``none``
            at the family's own feature, which is pooled already.
        inputs: what the weights expect of an item, all at once; for images a
            :class:`~headstart.data.preprocessing.Preprocessing`.
        code_sha256: refuse to run ``path/to/file.py`` unless its content has this digest.
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
    name, built = _build(source, Request("", file, dict(model_args or {}), code_sha256))
    said: tuple[str, ...] = ()
    if inputs is not None:
        chosen_inputs = inputs.changed(**given)
    else:
        kind = inputs_kind(built.kind)
        chosen_inputs, said = kind.resolve(name, {**built.known, **inputs_in(file, kind)}, given)
    if layer is not None:
        find_layer(built.module, layer)
    chosen: Pooling = pooling or ("none" if layer is None else "avg")
    notes = (*built.notes, *said)
    backbone = Backbone(name, built.module, chosen_inputs, layer, chosen, built.blocks, {}, notes)
    if file is not None:
        example = backbone.probe()
        notes += _load_up_to(built.module, file, layer, example, classifier=built.classifier)
    elif isinstance(source, str):
        built.module.eval()
    origin = {
        "name": name,
        "weights": None if file is None else str(file.resolve()),
        "model_args": dict(model_args or {}),
        "rebuildable": isinstance(source, str),
        "files": {
            **({} if built.code is None else {"code": dict(built.code)}),
            **({} if file is None else {"weights": stamp(file)}),
        },
    }
    backbone = dataclasses.replace(backbone, notes=notes, origin=origin)
    _check_runs(backbone)
    backbone.check_layer()
    return backbone


def _build(source: str | nn.Module, request: Request) -> tuple[str, Built]:
    if isinstance(source, nn.Module):
        blocks = tuple(name for name, _ in source.named_children())
        return type(source).__name__, Built(source, {}, blocks)
    family, name = family_of(source)
    return source, family.build(dataclasses.replace(request, name=name))


def _load_up_to(
    module: nn.Module,
    file: Path,
    layer: str | None,
    example: Arguments,
    *,
    classifier: Sequence[str] = (),
) -> tuple[str, ...]:
    """Load a checkpoint of which only the part up to ``layer`` needs to be complete.

    Args:
        module: the network, changed in place.
        file: a safetensors file, or a torch file of tensors.
        layer: the layer that features are taken from; None for the whole module.
        example: what the module is called with, to find out what runs up to the layer.
        classifier: names of removed classifiers; the file may have them.

    Returns:
        Notes: what was loaded, and what the file lacks behind the layer; one sentence each.

    Raises:
        BackboneError: a tensor up to the layer is missing or misshaped, or the file has unexpected
            names; all of them are listed.
    """
    allow_missing: list[str] = []
    if layer is not None:
        used = set(live_parts(module, layer, *example.args, **example.kwargs).tensors)
        names = [name for name, _ in module.named_parameters(remove_duplicate=False)]
        names += [name for name, _ in module.named_buffers()]
        allow_missing = [name for name in names if name not in used]
    present = tensor_names(file)
    extra = [
        name
        for name in classifier
        if any(key == name or key.startswith(name + ".") for key in present)
    ]
    try:
        report = load_weights(module, file, allow_missing=allow_missing, allow_unexpected=extra)
    except BackboneError as error:
        raise BackboneError(
            error.message,
            hint="choose a layer before what is missing, layer='NAME', "
            "or pass the model_args=… that the weights were made with",
        ) from error
    module.eval()
    beyond = [name for name in report.allowed if name in set(allow_missing)]
    notes = [f"{len(report.matched)} tensors loaded from {file.name}"]
    if beyond:
        notes.append(
            f"{file.name} lacks {len(beyond)} tensors behind {layer} "
            f"(the first is {beyond[0]}); they do not run"
        )
    return tuple(notes)


def _check_runs(backbone: Backbone) -> None:
    """Run the probe once, so that a network that cannot take its own input says so now."""
    try:
        shape = backbone.feature_shape()
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise BackboneError(
            f"{backbone.name} cannot run on {backbone.inputs.extent}: {lines[0]}",
            hint="pass another size=…, or check model_args",
        ) from error
    if backbone.pooling != "none" and len(shape) != 1:
        raise BackboneError(f"{backbone.name} returns features of shape {shape} after pooling")
