"""Transitional: see ``commands/settings.py`` and ``commands/embedding.py``."""

from __future__ import annotations

from pathlib import Path

from headstart.backbones import Backbone, load_backbone
from headstart.commands.settings import BackboneSpec


def resolve_backbone(backbone: str | Path | BackboneSpec | Backbone) -> Backbone:
    """Return a built backbone from any of the ways to name one."""
    if isinstance(backbone, Backbone):
        return backbone
    if isinstance(backbone, BackboneSpec):
        return backbone.load()
    return load_backbone(str(backbone))


__all__ = ["BackboneSpec", "resolve_backbone"]
