"""What a model of two towers makes of texts: the weights of a head that needs no labels.

CLIP, SigLIP and their kin were trained so that an image lies near the text that describes it, CLAP
so that a sound does. The vectors of texts are then a linear classifier of images or sounds: the
cosine, times the temperature that the weights state, is the logit (Radford et al. 2021, §3.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.families import family_of
from headstart.backbones.family import Request
from headstart.core.errors import BackboneError

if TYPE_CHECKING:
    from headstart.backbones.backbone import Backbone

_TOWER = "tower"


@dataclass(frozen=True, eq=False)
class TextWeights:
    """A classifier of images or sounds made of texts.

    Attributes:
        weight: ``(d, k) float64``, one text a column: of unit length, times the temperature.
        cut: texts that are longer than the tower reads.
    """

    weight: NDArray[np.float64]
    cut: tuple[str, ...] = ()


def has_text_tower(backbone: Backbone) -> bool:
    """Return whether the rows of a backbone are vectors beside which those of texts can be put."""
    whole = backbone.layer is None and backbone.pooling == "none"
    if not whole or not backbone.origin.get("rebuildable", False):
        return False
    try:
        family, _ = family_of(backbone.name)
    except BackboneError:
        return False
    return family.texts is not None and getattr(backbone.module, "way", None) == _TOWER


def text_weights(backbone: Backbone, texts: Sequence[str]) -> TextWeights:
    """Embed texts by the tower of texts of a backbone, which is loaded for it.

    Args:
        backbone: for which :func:`has_text_tower` holds.
        texts: one or more.

    Raises:
        BackboneError: the tower or its tokenizer cannot be loaded.
    """
    family, name = family_of(backbone.name)
    assert family.texts is not None
    weights = backbone.origin.get("weights")
    request = Request(
        name,
        None if weights is None else Path(weights),
        dict(backbone.origin.get("model_args", {})),
    )
    found = family.texts(request, texts)
    rows = found.vectors / np.linalg.norm(found.vectors, axis=1, keepdims=True)
    return TextWeights(np.ascontiguousarray(rows.T * found.factor), found.cut)


__all__ = ["TextWeights", "has_text_tower", "text_weights"]
