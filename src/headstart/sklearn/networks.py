"""Networks by name, kept between calls.

scikit-learn clones an estimator for every candidate and fold of a search. What was loaded last
therefore stays in memory, in this process, until another network is requested.
"""

from __future__ import annotations

import dataclasses
import inspect
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from headstart.backbones import Backbone, load_backbone
from headstart.core.wording import did_you_mean
from headstart.data.inputs import INPUT_KINDS

EXTRACTING = threading.RLock()
"""Held while a network runs: two threads would set and restore the modes of one module."""

_OWN = ("source", "layer", "pooling")
_LOADING = tuple(
    p.name
    for p in inspect.signature(load_backbone).parameters.values()
    if p.name not in _OWN and p.kind is not p.VAR_KEYWORD
)


@dataclasses.dataclass
class _Kept:
    """The network loaded last, and its cuts, whose traced prefixes are worth keeping."""

    key: str
    network: Backbone
    cuts: dict[tuple[str | None, str | None], Backbone]


_kept: _Kept | None = None


def cut_network(
    backbone: str | Path | Backbone | nn.Module,
    layer: str | None,
    pooling: Any,
    arguments: Mapping[str, Any],
) -> Backbone:
    """Return a backbone, cut at the given layer. Call it with :data:`EXTRACTING` held.

    Args:
        backbone: a name, as :func:`headstart.load_backbone` takes it; a backbone; a module.
        layer: None keeps the backbone's own cut.
        pooling: None is ``avg`` at a layer, and the backbone's own otherwise.
        arguments: further arguments of :func:`headstart.load_backbone`.

    Raises:
        BackboneError: see :func:`headstart.load_backbone`.
    """
    global _kept
    if isinstance(backbone, Backbone):
        return _cut(backbone, layer, pooling)
    if isinstance(backbone, nn.Module):
        return load_backbone(backbone, layer=layer, pooling=pooling, **arguments)
    # Local weights may end at the layer, so loading has to know it.
    early = layer if arguments.get("weights") is not None else None
    key = _key(str(backbone), early, arguments)
    if _kept is None or _kept.key != key:
        _kept = None  # before the next is loaded: two large networks may not fit
        _kept = _Kept(key, load_backbone(str(backbone), layer=early, **arguments), {})
    at = (layer, pooling)
    if at not in _kept.cuts:
        _kept.cuts[at] = _cut(_kept.network, layer, pooling)
    return _kept.cuts[at]


def argument_faults(arguments: object) -> list[str]:
    """Return what is wrong with the names in ``backbone_args``."""
    if arguments is None:
        return []
    if not isinstance(arguments, Mapping):
        return [f"backbone_args must be a mapping or None, not {type(arguments).__name__}"]
    faults = []
    options = (f.name for kind in INPUT_KINDS.values() for f in dataclasses.fields(kind))  # type: ignore[arg-type]
    known = tuple(dict.fromkeys((*_LOADING, *options)))
    for name in arguments:
        if name in _OWN:
            other = "backbone" if name == "source" else name
            faults.append(f"backbone_args names '{name}', which is the parameter '{other}'")
        elif name not in known:
            near = did_you_mean(str(name), known) or "it may name " + ", ".join(known)
            faults.append(f"backbone_args names '{name}', which no backbone takes ({near})")
    return faults


def _cut(network: Backbone, layer: str | None, pooling: Any) -> Backbone:
    if layer is None and pooling is None:
        return network
    cut = network.at(network.layer if layer is None else layer, pooling)
    cut.check_layer()
    return cut


def _key(source: str, layer: str | None, arguments: Mapping[str, Any]) -> str:
    """Describe what is loaded. Files count with their time: a changed one is another network."""
    files = [arguments.get("weights"), source.rpartition(":")[0] if ".py:" in source else None]
    stamps = []
    for file in files:
        path = None if file is None else Path(file).expanduser()
        known = path is not None and path.is_file()
        stamps.append(path.stat().st_mtime_ns if known and path is not None else None)
    return repr((source, layer, sorted(arguments.items()), stamps))
