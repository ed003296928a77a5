"""How a backbone was asked for: a plain value that a run folder keeps and ``predict`` repeats."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headstart.backbones import Backbone, load_backbone
from headstart.core.errors import BackboneError
from headstart.data import Preprocessing


@dataclass(frozen=True)
class BackboneSpec:
    """The arguments of :func:`headstart.load_backbone`.

    Attributes:
        source: name of the backbone; for a module of the user's own, the name of its class.
        weights: absolute path of a local checkpoint, or None.
        model_args: further arguments of the architecture.
        layer, pooling: the cut.
        preprocessing: single values that override the weights' metadata.
        own_module: whether ``source`` is a module that only its owner can build again.
    """

    source: str = "headstart/glyphs"
    weights: str | None = None
    model_args: Mapping[str, Any] = field(default_factory=dict)
    layer: str | None = None
    pooling: str | None = None
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    own_module: bool = False

    def load(self) -> Backbone:
        """Build the backbone.

        Raises:
            BackboneError: see :func:`headstart.load_backbone`; also for a module of the user's
                own, which has to be given again.
        """
        if self.own_module:
            raise BackboneError(
                f"the run was made with a module of your own ({self.source}), "
                "which a run folder cannot hold",
                hint="give it again: predict(run, data, backbone=load_backbone(module, ...))",
            )
        return load_backbone(
            self.source,
            weights=self.weights,
            model_args=self.model_args,
            layer=self.layer,
            pooling=self.pooling,
            **{key: _tuple(value) for key, value in self.preprocessing.items()},
        )

    @classmethod
    def of(cls, backbone: Backbone) -> BackboneSpec:
        """Describe a backbone that is already built, with all of its preprocessing."""
        values = {
            f.name: getattr(backbone.preprocessing, f.name)
            for f in dataclasses.fields(Preprocessing)
        }
        return cls(
            source=backbone.name,
            weights=backbone.origin.get("weights"),
            model_args=dict(backbone.origin.get("model_args", {})),
            layer=backbone.layer,
            pooling=backbone.pooling,
            preprocessing=values,
            own_module=not backbone.origin.get("rebuildable", False),
        )

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> BackboneSpec:
        """Rebuild from what ``records.to_plain`` made of a spec.

        Raises:
            BackboneError: names that a spec does not have.
        """
        known = {f.name for f in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise BackboneError(f"a backbone has no settings {', '.join(unknown)}")
        return cls(**values)


def resolve_backbone(backbone: str | Path | BackboneSpec | Backbone) -> Backbone:
    """Return a built backbone from any of the ways to name one."""
    if isinstance(backbone, Backbone):
        return backbone
    if isinstance(backbone, BackboneSpec):
        return backbone.load()
    return load_backbone(str(backbone))


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
