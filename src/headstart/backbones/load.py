"""``load_backbone``: the entry point to every family."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from headstart.backbones.backbone import Backbone
from headstart.backbones.families import family_of, in_folder, whole_file
from headstart.backbones.families.keras_models import built_from, known_of
from headstart.backbones.family import Built, Request
from headstart.backbones.fitting import (
    Fit,
    Network,
    describe,
    fits_of,
    rename_flat,
)
from headstart.backbones.misfits import misfit, rename_refused, several
from headstart.backbones.tensor_file import inputs_in, read_flat
from headstart.backbones.trial import check_runs
from headstart.backbones.unreadable import no_file
from headstart.backbones.weights import load_tensors
from headstart.core.arguments import Arguments
from headstart.core.errors import BackboneError
from headstart.core.fingerprints import stamp
from headstart.core.wording import count, quoted, verb
from headstart.data import Preprocessing
from headstart.data.inputs import Inputs, inputs_kind
from headstart.modules.forward import find_layer
from headstart.modules.keras import is_keras
from headstart.modules.layers import live_parts
from headstart.modules.modes import evaluate
from headstart.modules.pooling import Pooling
from headstart.modules.values import compiled_away


def load_backbone(
    source: str | nn.Module,
    *,
    weights: str | Path | None = None,
    rename: Mapping[str, str | None] | None = None,
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
            the weights that the name stands for. Only what runs up to ``layer`` must be in it. The
            one prefix under which the network fits is found (``state_dict.module.``, ``model.``,
            ``teacher.backbone.``, ...), classifiers and heads are left out, and position tables
            of another input size are resampled by timm.
        rename: for a file whose names do not say it: new names for whole names or leading parts,
            such as ``{"teacher.backbone": ""}``; the longest match counts, and None leaves out.
        model_args: further arguments of the architecture.
        layer: the submodule whose output is the feature; None is the family's own feature: the
            pooled input of the classifier.
        pooling: ``avg``, ``cls``, ``last``, ``gem`` or ``none``; default ``avg`` at a layer, and
            ``none`` at the family's own feature, which is pooled already. Without a layer, models
            of texts pool their last hidden states by it.
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
    backbone = build_backbone(
        source,
        weights=weights,
        rename=rename,
        model_args=model_args,
        layer=layer,
        pooling=pooling,
        inputs=inputs,
        code_sha256=code_sha256,
        **options,
    )
    notes = check_runs(backbone)
    backbone.check_layer()
    return dataclasses.replace(backbone, notes=(*backbone.notes, *notes)) if notes else backbone


def build_backbone(
    source: str | nn.Module,
    *,
    weights: str | Path | None,
    rename: Mapping[str, str | None] | None,
    model_args: Mapping[str, Any] | None,
    layer: str | None,
    pooling: Pooling | None,
    inputs: Inputs | None = None,
    code_sha256: str | None = None,
    **options: Any,
) -> Backbone:
    """Do what :func:`load_backbone` does, without running the network to see whether it can."""
    given = {name: value for name, value in options.items() if value is not None}
    if isinstance(source, str) and weights is None and (named := whole_file(source)) is not None:
        source, weights = named, source
    if isinstance(source, str):
        source, weights = in_folder(source, weights)
    file = None if weights is None else Path(weights).expanduser()
    if file is not None and not file.is_file():
        if file.is_dir():
            raise no_file(file)
        raise BackboneError(f"there is no weights file '{file}'", hint="check the path")
    if rename and file is None:
        raise BackboneError(
            "rename=… applies to names in a weights file", hint="also pass weights='FILE'"
        )
    name, built = _as_written(
        *_build(source, Request("", file, dict(model_args or {}), code_sha256))
    )
    if layer is not None and layer not in dict(built.module.named_modules()):
        layer = compiled_away(layer)  # a name that was read off the compiled module
    said: tuple[str, ...] = ()
    if inputs is not None:
        chosen_inputs = inputs.changed(**given)
    else:
        kind = inputs_kind(built.kind).suited({**built.known, **given})
        known = {**built.known, **inputs_in(file, kind)}
        if kind is not inputs_kind(built.kind) and built.known:
            known.setdefault("in_channels", 3)  # what states its colours takes three
        try:
            chosen_inputs, said = kind.resolve(name, known, given)
        except BackboneError as error:
            if not built.unstated:
                raise
            raise BackboneError(f"{error.message}; {built.unstated}", hint=error.hint) from error
    if layer is not None:
        find_layer(built.module, layer)
    elif pooling is not None and pooling != "none" and built.tokens is not None:
        layer = built.tokens
    chosen: Pooling = pooling or ("none" if layer is None else "avg")
    stated = (f"weights: {built.about}",) if str(built.about) else ()
    notes = (*built.notes, *stated, *said, *_scaled_twice(built, chosen_inputs))
    backbone = Backbone(
        name, built.module, chosen_inputs, layer, chosen, built.blocks, {}, notes, built.about
    )
    if file is not None and not built.loaded:
        example = backbone.probe()
        notes += _load_up_to(built.module, file, layer, example, built, rename)
    elif isinstance(source, str):
        _evaluate(built.module)
    origin = {
        "name": name,
        "weights": None if file is None else str(file.resolve()),
        "rename": dict(rename or {}),
        "model_args": dict(model_args or {}),
        "rebuildable": isinstance(source, str),
        "files": {
            **({} if built.code is None else {"code": dict(built.code)}),
            **({} if file is None else {"weights": stamp(file)}),
            **built.files,
        },
    }
    return dataclasses.replace(backbone, notes=notes, origin=origin)


def _scaled_twice(built: Built, inputs: Inputs) -> tuple[str, ...]:
    """Say it where a module scales pixels itself, and its inputs are scaled before, too."""
    if not built.scaling or not isinstance(inputs, Preprocessing):
        return ()
    if inputs.scale == 1 and not any(inputs.mean) and set(inputs.std) == {1}:
        return ()
    return (
        f"inputs are scaled twice: '{built.scaling}' of the model scales pixels of 0 to 255, and"
        " scale, mean and std are applied before; omit these",
    )


def _evaluate(module: nn.Module) -> None:
    """Put a network of ours in evaluation mode, by its own ``eval`` where it has one."""
    try:
        module.eval()
    except NotImplementedError:  # an exported program
        evaluate(module)


def _as_written(name: str, built: Built) -> tuple[str, Built]:
    """Take the module that a compiled one was made from, which layers and keys are read from."""
    inner = getattr(built.module, "_orig_mod", None)
    if not isinstance(inner, nn.Module) or not type(built.module).__module__.startswith(
        "torch._dynamo"
    ):
        return name, built
    note = (
        "the compiled module runs as written, uncompiled; engine='compile' compiles the extraction"
    )
    blocks = tuple(name for name, _ in inner.named_children())
    name = type(inner).__name__ if name == type(built.module).__name__ else name
    return name, dataclasses.replace(built, module=inner, blocks=blocks, notes=(*built.notes, note))


def _build(source: str | nn.Module, request: Request) -> tuple[str, Built]:
    given: Any = source
    if not isinstance(given, str | nn.Module):
        exported = type(given).__name__ == "ExportedProgram"
        raise BackboneError(
            f"a backbone is a name or a torch.nn.Module, not a {type(given).__name__}",
            hint="pass program.module()" if exported else "",
        )
    if not isinstance(source, str):
        _check_own(source, request)
    if is_keras(source):
        return type(source).__name__, built_from(source, known_of(source))
    if isinstance(source, nn.Module):
        blocks = tuple(name for name, _ in source.named_children())
        return type(source).__name__, Built(source, {}, blocks)
    family, name = family_of(source)
    return source, family.build(dataclasses.replace(request, name=name))


def _check_own(module: nn.Module, request: Request) -> None:
    """Refuse what a module of the user's own cannot be given, and one without values."""
    who = type(module).__name__
    if request.model_args:
        raise BackboneError(
            f"model_args apply to an architecture given by name, and the {who} is already built",
            hint="omit them",
        )
    tensors = dict(module.named_parameters()) | dict(module.named_buffers())
    empty = [name for name, each in tensors.items() if is_lazy(each) or each.device.type == "meta"]
    if empty:
        raise BackboneError(
            f"{count(len(empty), 'tensor')} of the {who} {verb(len(empty), 'has', 'have')} no"
            f" values ({quoted(empty, 3)})",
            hint="run it once, or load its weights, before it is used as a backbone",
        )


def _load_up_to(
    module: nn.Module,
    file: Path,
    layer: str | None,
    example: Arguments,
    built: Built,
    rename: Mapping[str, str | None] | None = None,
) -> tuple[str, ...]:
    """Load a checkpoint of which only the part up to ``layer`` needs to be complete.

    Args:
        module: the network, changed in place.
        file: a safetensors file, or a torch file of tensors.
        layer: the layer that features are taken from; None for the whole module.
        example: what the module is called with, to find out what runs up to the layer.
        built: what the family says of the network: its blocks, and the classifier it removed.
        rename: new names for names in the file.

    Returns:
        Notes: what was loaded, under which prefix, and what the file lacks behind the layer; one
        sentence each.

    Raises:
        BackboneError: the file fits under no prefix, or under several; the hint says what may
            mend this fault.
    """

    def used(cut: str | None) -> tuple[str, ...]:
        if cut is None:
            return tuple(module.state_dict())
        return live_parts(module, cut, *example.args, **example.kwargs).tensors

    flat: Mapping[str, Tensor] = read_flat(file)
    adapted = ""
    if built.adapt is not None:
        flat, adapted = built.adapt(flat)
    network = Network.of(module, used(layer), built.classifier)
    fit, flat, accepted = _fitting(network, flat, file, rename)
    if not fit.fits and not accepted:
        cut = _complete_at(used, fit, built.blocks)
        raise misfit(network, fit, flat, str(file), cut)
    absent = [n for n in network.tensors if n not in fit.tensors and n not in network.needed]
    report = load_tensors(module, fit.tensors, str(file), allow_missing=absent)
    _evaluate(module)
    about = describe(fit, flat)
    notes = [
        f"{count(len(report.matched), 'tensor')} loaded from {file.name}{about and f' ({about})'}"
    ]
    notes += [adapted] if adapted else []
    beyond = [name for name in report.allowed if not name.endswith("num_batches_tracked")]
    if beyond and layer is not None:
        notes.append(
            f"{file.name} lacks {count(len(beyond), 'tensor')} after {layer} (the first is"
            f" {beyond[0]}); they do not run"
        )
    return tuple(notes)


def _fitting(
    network: Network,
    flat: Mapping[str, Tensor],
    file: Path,
    rename: Mapping[str, str | None] | None,
) -> tuple[Fit, Mapping[str, Tensor], bool]:
    """Return the one way in which a file fits, or the nearest; its tensors; whether it fits.

    Raises:
        BackboneError: it fits in several ways, or ``rename`` names what is not there.
    """
    tried: Mapping[str, Tensor] = flat
    if rename:
        tried, fresh, (unused, clashes) = rename_flat(flat, rename)
        if unused or clashes:
            raise rename_refused(flat, str(file), unused, clashes)
        said = {name: tried[name] for name in fresh}
        fits, nearest = fits_of(network, said)
        if len(fits) == 1:
            return fits[0], tried, True
        if not fits and nearest is not None and not nearest.missing:
            return nearest, tried, False
    fits, nearest = fits_of(network, tried)
    if len(fits) > 1:
        raise several(fits, str(file))
    return (fits or [nearest or network.nothing])[0], tried, bool(fits)


def _complete_at(
    used: Callable[[str | None], tuple[str, ...]],
    fit: Fit,
    blocks: Sequence[str],
) -> str | None:
    """Return the deepest of the main blocks up to which a file has all that runs."""
    lacking = {*fit.missing, *fit.misshaped}
    for block in reversed(blocks if fit.missing else ()):
        needed: set[str] = set()
        with suppress(Exception):  # a block that does not run, or a network that cannot
            needed = set(used(block))
        if needed and not needed & lacking:
            return block
    return None
