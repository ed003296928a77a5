"""What a head may begin as: the backbone's own classifier, or texts about the classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headstart.backbones import Backbone
from headstart.commands.own_classifier import head_without_labels
from headstart.commands.text_start import head_from_texts
from headstart.heads.started import StartedHead

STARTS = {"classifier": "the network's own classifier", "text": "the texts of the classes"}
"""What a start is called in notes."""


def starting_head(
    start: str | None,
    backbone: Backbone,
    classes: Sequence[str],
    named: Mapping[str, Any],
    prompt: str | None = None,
) -> tuple[StartedHead, str]:
    """Return the head before any label, and what it is.

    Args:
        start: a key of :data:`STARTS`.
        backbone: whose features the head reads.
        classes: one's own.
        named: what they are called, where their names do not say so.
        prompt: for texts; None: the usual one.

    Raises:
        ConfigError, BackboneError: see :func:`head_without_labels` and :func:`head_from_texts`.
    """
    if start == "text":
        return head_from_texts(backbone, classes, named, prompt)
    return head_without_labels(backbone, classes, named)


__all__ = ["STARTS", "starting_head"]
