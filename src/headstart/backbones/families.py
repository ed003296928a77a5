"""The families of backbones: how each builds a module and what its weights say of their input.

A family turns a name into a :class:`Built`: a module whose output is its features, the known part
of the preprocessing, and the main blocks. To add a family, write a function and enter it in
``FAMILIES``.
"""

from __future__ import annotations

import difflib
import importlib.util
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from headstart.backbones import preprocess
from headstart.data.preprocessing import Preprocessing
from headstart.errors import BackboneError


@dataclass(frozen=True)
class Request:
    """What a family is asked to build.

    Attributes:
        name: the name behind the family's prefix ("resnet18.a1_in1k").
        weights: a local file, or None for the weights that the name stands for.
        model_args: further arguments of the architecture.
    """

    name: str
    weights: Path | None = None
    model_args: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Built:
    """What a family built.

    Attributes:
        module: gives features ``(n, d)``; its classifier is removed.
        known: the part of the preprocessing that is known.
        blocks: names of the main blocks, in forward order.
        classifier: parameter prefixes of the removed classifier, which a local file may have.
        notes: what was decided on the user's behalf.
    """

    module: nn.Module
    known: Mapping[str, Any]
    blocks: tuple[str, ...] = ()
    classifier: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Family:
    """One kind of backbone."""

    prefix: str
    summary: str
    build: Callable[[Request], Built]
    names: Callable[[], list[str]]


def build_glyphs(request: Request) -> Built:
    """Build the bundled backbone; it takes no arguments and needs no download."""
    from headstart.backbones.glyphs import BLOCKS, GlyphNet, glyphs_metadata, load_glyphs

    if request.name != "glyphs":
        raise BackboneError(
            f"there is no bundled backbone 'headstart/{request.name}'",
            hint="the bundled one is headstart/glyphs",
        )
    try:
        module = (
            GlyphNet(**request.model_args)
            if request.weights is not None or request.model_args
            else load_glyphs()
        )
    except TypeError as error:
        raise _bad_arguments("headstart/glyphs", error) from error
    if request.model_args and request.weights is None:
        raise BackboneError(
            "headstart/glyphs with other model arguments has no pre-trained weights",
            hint="give --weights FILE, or leave --model-args out",
        )
    return Built(module, glyphs_metadata()["preprocessing"], BLOCKS)


def build_timm(request: Request) -> Built:
    """Build a timm model, with timm's own weights (downloaded by timm) or a local file's."""
    import timm

    architecture = request.name.split(".")[0]
    if not timm.is_model(architecture):
        raise _unknown("timm", architecture, timm.list_models())
    tags = timm.list_pretrained(architecture + ".*")
    if "." in request.name and request.name not in tags:
        raise _unknown("timm", request.name, tags)
    try:
        module = timm.create_model(
            request.name,
            pretrained=request.weights is None,
            num_classes=0,
            **{key: _tuples(value) for key, value in request.model_args.items()},
        )
    except TypeError as error:
        raise _bad_arguments(f"timm/{request.name}", error) from error
    except Exception as error:
        if request.weights is not None or not tags:
            raise BackboneError(
                f"timm cannot build '{request.name}': {_first_line(error)}"
            ) from error
        raise _no_download(f"timm/{request.name}", error) from error
    config = module.pretrained_cfg
    known = preprocess.from_timm(config)
    blocks = tuple(str(entry["module"]) for entry in getattr(module, "feature_info", []) or [])
    classifier = config.get("classifier") or ()
    notes: tuple[str, ...] = ()
    if request.weights is None:
        notes = (
            f"preprocessing from timm's metadata for {config['architecture']}.{config['tag']}",
        )
    else:
        # What the file was trained on is not what timm's own weights were trained on: geometry
        # is the architecture's, colours are asked for.
        known = {key: known[key] for key in ("size", "crop_fraction", "interpolation", "resize")}
        notes = (
            f"image size and crop from timm's configuration of {architecture}, "
            "since a local file does not say them",
        )
    names = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    return Built(module, known, blocks, names, notes)


def build_torchvision(request: Request) -> Built:
    """Build a torchvision classification model, cut before its last linear layer."""
    from torchvision import models

    architecture, _, tag = request.name.partition(".")
    available = models.list_models(module=models)
    if architecture not in available:
        raise _unknown("torchvision", architecture, available)
    enum = models.get_model_weights(architecture)
    tags = [entry.name for entry in enum]
    if tag and tag not in [*tags, "DEFAULT"]:
        raise _unknown("torchvision", request.name, [f"{architecture}.{name}" for name in tags])
    weights = enum[tag] if tag else enum.DEFAULT
    try:
        module = models.get_model(
            architecture,
            weights=weights if request.weights is None else None,
            **request.model_args,
        )
    except TypeError as error:
        raise _bad_arguments(f"torchvision/{request.name}", error) from error
    except Exception as error:
        if request.weights is not None:
            raise BackboneError(
                f"torchvision cannot build '{request.name}': {_first_line(error)}"
            ) from error
        raise _no_download(f"torchvision/{request.name}", error) from error
    classifier = remove_classifier(module)
    known = preprocess.from_torchvision(weights.transforms())
    blocks = tuple(
        f"{name}.{child}" if name in {"features", "encoder.layers"} else name
        for name, part in _trunk(module)
        for child in (
            dict(part.named_children()) if name in {"features", "encoder.layers"} else [""]
        )
    )
    if request.weights is None:
        return Built(
            module,
            known,
            blocks,
            (classifier,),
            (f"preprocessing from torchvision's {weights}",),
        )
    geometry = {key: known[key] for key in ("size", "crop_fraction", "interpolation")}
    note = (
        f"image size and crop from torchvision's configuration of {architecture}, "
        "since a local file does not say them"
    )
    return Built(module, geometry, blocks, (classifier,), (note,))


def _trunk(module: nn.Module) -> list[tuple[str, nn.Module]]:
    parts = [
        (name, part)
        for name, part in module.named_children()
        if name not in {"fc", "classifier", "head", "heads", "avgpool", "dropout"}
    ]
    return [
        (f"{name}.layers", part.layers)
        if name == "encoder" and isinstance(getattr(part, "layers", None), nn.Module)
        else (name, part)
        for name, part in parts
    ]


def remove_classifier(module: nn.Module) -> str:
    """Replace the last linear (or 1×1 convolution) layer by the identity; return its name."""
    candidates = [
        name for name, part in module.named_modules() if isinstance(part, nn.Linear | nn.Conv2d)
    ]
    name = candidates[-1]
    if isinstance(module.get_submodule(name), nn.Conv2d) and not name.startswith("classifier"):
        raise BackboneError(
            f"{type(module).__name__} does not end in a linear classifier",
            hint="cut it with --layer NAME",
        )
    parent, _, child = name.rpartition(".")
    setattr(module.get_submodule(parent), child, nn.Identity())
    return name


def build_file(request: Request) -> Built:
    """Run ``path/to/file.py:factory``; it returns a module, or a module and a Preprocessing."""
    path_text, _, function_name = request.name.rpartition(":")
    path = Path(path_text).expanduser()
    if not path.is_file():
        raise BackboneError(f"there is no file '{path}' to take a backbone from")
    factory = getattr(_import(path), function_name, None)
    if not callable(factory):
        raise BackboneError(
            f"{path} has no function '{function_name}'",
            hint="write it as path/to/file.py:function",
        )
    try:
        made = factory(**request.model_args)
    except TypeError as error:
        raise _bad_arguments(request.name, error) from error
    module, own = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(module, nn.Module):
        raise BackboneError(
            f"{request.name} returned a {type(made).__name__}, and a torch.nn.Module is needed",
            hint="return the module, or (module, Preprocessing(...))",
        )
    known: dict[str, Any] = {}
    if isinstance(own, Preprocessing):
        known = {name: getattr(own, name) for name in own.__dataclass_fields__}
    return Built(module, known, tuple(name for name, _ in module.named_children()))


def _import(path: Path) -> ModuleType:
    # The name is unique to the path, so that two files of one name do not meet in sys.modules,
    # where pickling and inspect look classes up.
    name = "headstart_user_" + re.sub(r"\W", "_", str(path.resolve()))
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise BackboneError(f"'{path}' is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise BackboneError(f"{path} fails on import: {_first_line(error)}") from error
    return module


def _timm_names() -> list[str]:
    import timm

    return [str(name) for name in timm.list_pretrained()]


def _torchvision_names() -> list[str]:
    from torchvision import models

    return [
        f"{name}.{entry.name}"
        for name in models.list_models(module=models)
        for entry in models.get_model_weights(name)
    ]


FAMILIES: tuple[Family, ...] = (
    Family("headstart", "bundled with the package, no download", build_glyphs, lambda: ["glyphs"]),
    Family("timm", "weights and preprocessing from timm", build_timm, _timm_names),
    Family(
        "torchvision",
        "weights and preprocessing from torchvision",
        build_torchvision,
        _torchvision_names,
    ),
)


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}".rstrip(": ")


def _unknown(family: str, name: str, names: list[str]) -> BackboneError:
    near = difflib.get_close_matches(name, names, n=4, cutoff=0.5)
    hint = "the nearest are " + ", ".join(f"{family}/{other}" for other in near)
    return BackboneError(
        f"{family} knows no model '{name}'",
        hint=hint if near else f"list them with: headstart backbones {family}",
    )


def _bad_arguments(name: str, error: TypeError) -> BackboneError:
    return BackboneError(
        f"{name} does not take these model arguments: {error}", hint="see --model-args"
    )


def _no_download(name: str, error: Exception) -> BackboneError:
    return BackboneError(
        f"the weights of {name} cannot be downloaded ({_first_line(error)[:160]})",
        hint="with a file of weights at hand, give --weights FILE.safetensors; "
        "headstart/glyphs needs no download",
    )
