"""A head that begins as texts about one's own classes, and what it is worth without a label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from headstart.backbones import Backbone
from headstart.backbones.text_tower import has_text_tower, text_weights
from headstart.core.errors import ConfigError
from headstart.core.records import Baseline
from headstart.core.wording import listed, quoted
from headstart.data import Split
from headstart.evaluation import evaluate
from headstart.heads.started import StartedHead
from headstart.store import FeatureSet

ZERO_SHOT = "zero-shot"
"""The name of the baseline."""
PROMPT = "a photo of a {}"
"""The usual prompt (Radford et al. 2021)."""


def head_from_texts(
    backbone: Backbone, classes: Sequence[str], named: Mapping[str, Any], prompt: str | None
) -> tuple[StartedHead, str]:
    """Return the head that is the texts of the classes, and what these are.

    Args:
        backbone: the image tower of a model that has one for texts, too.
        classes: one's own.
        named: by class what it is called in the prompt, or its several names.
        prompt: a text with ``{}`` in the place of the name; None: :data:`PROMPT`.

    Raises:
        ConfigError: the backbone has no tower of texts, or ``named`` names no class.
        BackboneError: the tower cannot be loaded.
    """
    if not has_text_tower(backbone):
        cut = "" if backbone.layer is None else f", cut at {backbone.layer},"
        raise ConfigError(
            (f"{backbone.name}{cut} has no text tower for these features",),
            hint="name a two-tower model, such as backbone='hf/openai/clip-vit-base-patch32',"
            " without layer and pooling, or leave out start='text'",
        )
    unknown = [f"there is no class '{name}' ({listed(classes)})" for name in named
               if name not in classes]  # fmt: skip
    if unknown:
        raise ConfigError(tuple(unknown), hint="change class_names")
    names = [_names(named.get(name, name)) for name in classes]
    texts = [(prompt or PROMPT).replace("{}", name) for each in names for name in each]
    found = text_weights(backbone, texts)
    members, at = [], 0
    for each in names:
        members.append(range(at, at + len(each)))
        at += len(each)
    start = StartedHead.untrained(found.weight, np.zeros(len(texts)), members, unit=True)
    said = f"the texts {quoted(texts, 3)}, embedded by {backbone.name}"
    if found.cut:
        said += f"; longer than it reads: {quoted(found.cut, 3)}"
    return start, said


def zero_shot_baseline(head: StartedHead, test: Split, rows: FeatureSet, said: str) -> Baseline:
    """Return the accuracy of the texts alone on test items."""
    scored = evaluate(test.labels, head.likelihoods(rows), test.classes, groups=test.groups)
    return Baseline(ZERO_SHOT, f"without a label: {said}", scored.accuracy)


def _names(given: Any) -> list[str]:
    names = [given] if isinstance(given, str) else list(given)
    return [name.replace("_", " ") for name in names]


__all__ = ["PROMPT", "ZERO_SHOT", "head_from_texts", "zero_shot_baseline"]
