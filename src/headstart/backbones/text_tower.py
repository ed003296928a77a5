"""What a model of two towers makes of texts: the weights of a head that needs no labels.

CLIP, SigLIP and their kin were trained so that an image lies near the text that describes it, CLAP
so that a sound does. The vectors of texts are then a linear classifier of images or sounds: the
cosine, times the temperature that the weights state, is the logit (Radford et al. 2021, §3.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.families.hf_folder import library, load_model, quiet, read_config
from headstart.backbones.families.hf_models import find_folder
from headstart.backbones.family import Request, first_line
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
    named = backbone.name.startswith("hf/") and backbone.origin.get("rebuildable", False)
    return whole and named and getattr(backbone.module, "way", None) == _TOWER


def text_weights(backbone: Backbone, texts: Sequence[str]) -> TextWeights:
    """Embed texts by the tower of texts of a backbone, which is loaded for it.

    Args:
        backbone: for which :func:`has_text_tower` holds.
        texts: one or more.

    Raises:
        BackboneError: the tower or its tokenizer cannot be loaded.
    """
    import torch

    transformers = library()
    name = backbone.name.removeprefix("hf/")
    request = Request(name, model_args=dict(backbone.origin.get("model_args", {})))
    folder = find_folder(request)
    config = read_config(transformers, folder, backbone.name, request)
    loaded = load_model(transformers, folder, config, backbone.name)
    loaded.refuse(backbone.name, frozenset(n for n in loaded.missing if n.startswith("text")))
    model: Any = loaded.model
    tokens, cut = _tokens(transformers, folder, config, backbone.name, texts)
    with torch.no_grad():
        found = model.get_text_features(**tokens)
        vectors = found if isinstance(found, torch.Tensor) else found.pooler_output
        scale = getattr(model, "logit_scale", getattr(model, "logit_scale_a", None))
        factor = 1.0 if scale is None else float(scale.detach().exp())
    rows = vectors.double().numpy()
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return TextWeights(np.ascontiguousarray(rows.T * factor), cut)


def _tokens(
    transformers: Any, folder: Any, config: Any, who: str, texts: Sequence[str]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Tokenize as the tower was trained: SigLIP's texts all have one length."""
    longest = int(getattr(config.text_config, "max_position_embeddings", 77))
    padding = "max_length" if config.model_type.startswith("siglip") else True
    try:
        with quiet(transformers):
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
            longest = min(longest, int(tokenizer.model_max_length))
            lengths = [len(tokenizer(text)["input_ids"]) for text in texts]
            found = tokenizer(
                list(texts), padding=padding, truncation=True, max_length=longest,
                return_tensors="pt",
            )  # fmt: skip
    except Exception as error:
        raise BackboneError(
            f"the tokenizer of {who} cannot be used: {first_line(error)}",
            hint="save it beside the model: tokenizer.save_pretrained(FOLDER)",
        ) from error
    taken = {key: found[key] for key in ("input_ids", "attention_mask") if key in found}
    return taken, tuple(t for t, n in zip(texts, lengths, strict=True) if n > longest)


__all__ = ["TextWeights", "has_text_tower", "text_weights"]
