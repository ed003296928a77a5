"""What is known of a backbone from an earlier run, so that it is built only where it has to run.

Building a network, importing its library and running the probe take seconds; a run that finds all
rows in the cache needs none of it. What is kept is the backbone's part of the cache key, under the
digest of everything that decides it: how it is built, the content of its file of weights, versions
of libraries, and the code of this package. A backbone that is not decided by these alone, such as
one whose weights are downloaded or whose code is the user's, is built every time.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch.nn.modules import module as torch_module

from headstart.backbones import Backbone
from headstart.backbones.backbone import Known
from headstart.backbones.families import family_of
from headstart.backbones.family import About, Request
from headstart.commands.backbone_spec import BackboneSpec
from headstart.core.errors import HeadstartError
from headstart.core.fingerprints import canonical_json, fingerprint, sha256_of_file
from headstart.core.records import from_plain, to_plain
from headstart.data import inputs_kind
from headstart.modules.layout import Layout
from headstart.modules.values import library_is_patched
from headstart.store import Store, result_key

_LIBRARIES = ("numpy", "pillow", "safetensors", "timm", "torch", "torchvision")
_PACKAGE = Path(__file__).resolve().parents[1]
_UNUSABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, HeadstartError)


def recalled_backbone(spec: BackboneSpec | Backbone, store: Store) -> Backbone:
    """Return a backbone, its network built only where nothing is known of it yet.

    Args:
        spec: how to build it; one that is built already is taken unchanged.
        store: where it is kept what is known.

    Raises:
        BackboneError: see :func:`headstart.load_backbone`.
    """
    if isinstance(spec, Backbone):
        return spec
    try:
        key = _key(spec)
    except _UNUSABLE:
        key = None
    if key is None:
        return spec.load()
    results = store.results("backbones")
    found = results.get(key)
    if found is not None:
        try:
            return _unpacked(found.values, spec)
        except _UNUSABLE:
            pass  # of another version: it is built, and known again
    backbone = spec.load()
    values = _packed(backbone)
    if values is not None:
        try:
            results.put(key, values=values)
        except HeadstartError:
            pass  # a full or read-only disk costs the next run its time
    return backbone


def _key(spec: BackboneSpec) -> str | None:
    """Return the key of everything that decides a backbone; None where more than that does."""
    if spec.own_module:
        return None
    family, name = family_of(spec.source)
    file = None if spec.weights is None else Path(spec.weights)
    if not family.fixed(Request(name, file, spec.model_args)) or family.suffix:
        return None
    if set(spec.model_args) & set(family.loading) or _is_changed():
        return None
    described = {
        "backbone": spec.plain(),
        "weights": None if file is None else sha256_of_file(file),
        "libraries": {library: _version(library) for library in _LIBRARIES},
        "package": _package(),
        "dtype": str(torch.get_default_dtype()),
    }
    return result_key(described)


def _is_changed() -> bool:
    """Whether the user's code has changed in this process what library networks compute."""
    hooks = (torch_module._global_forward_hooks, torch_module._global_forward_pre_hooks)
    return any(hooks) or library_is_patched()


def _version(library: str) -> str | None:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None


@functools.cache
def _package() -> str:
    """Return a digest of sizes and times of this package's own files of code."""
    files = sorted(_PACKAGE.rglob("*.py"))
    stamps = [(path, path.stat()) for path in files]
    return fingerprint(
        canonical_json([
            [str(path.relative_to(_PACKAGE)), found.st_size, found.st_mtime_ns]
            for path, found in stamps
        ])
    )  # fmt: skip


def _packed(backbone: Backbone) -> dict[str, Any] | None:
    """Return what is kept of a backbone; None where it has parts that only this process knows."""
    identity = backbone.identity()
    if identity["own_code"]:
        return None
    values: dict[str, Any] = {
        "name": backbone.name,
        "inputs": {"kind": backbone.inputs.kind, "values": to_plain(backbone.inputs.values())},
        "layer": backbone.layer,
        "pooling": backbone.pooling,
        "claimed": list(backbone.claimed),
        "origin": to_plain(dict(backbone.origin)),
        "notes": list(backbone.notes),
        "about": to_plain(backbone.about),
        "identity": identity,
        "shape": list(backbone.feature_shape()),
        "layout": to_plain(backbone.layout),
    }
    try:
        same = json.loads(json.dumps(values)) == values
    except (TypeError, ValueError):
        return None
    return values if same else None


def _unpacked(values: Mapping[str, Any], spec: BackboneSpec) -> Backbone:
    """Return the backbone that was kept."""
    kept = values["inputs"]
    fields = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in kept["values"].items()
    }
    known = Known(
        dict(values["identity"]),
        tuple(values["shape"]),
        from_plain(Layout, values["layout"]),
        partial(spec.load, checked=True),
    )
    return Backbone.recalled(
        known,
        name=values["name"],
        inputs=inputs_kind(kept["kind"])(**fields),
        layer=values["layer"],
        pooling=values["pooling"],
        claimed=tuple(values["claimed"]),
        origin=values["origin"],
        notes=tuple(values["notes"]),
        about=from_plain(About, values["about"]),
    )


__all__ = ["recalled_backbone"]
