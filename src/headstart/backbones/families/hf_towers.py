"""The tower of texts of a model of transformers that has one for images, too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headstart.backbones.families.hf_folder import (
    find_folder,
    library,
    load_model,
    quiet,
    read_config,
)
from headstart.backbones.family import Request, TextVectors
from headstart.core.errors import BackboneError
from headstart.core.wording import first_line


def vectors_of_texts(request: Request, texts: Sequence[str]) -> TextVectors:
    """Embed texts by the tower of texts of a model, which is loaded for it.

    Raises:
        BackboneError: the tower or its tokenizer cannot be loaded.
    """
    import torch

    transformers, who = library(), f"hf/{request.name}"
    folder = find_folder(request)
    config = read_config(transformers, folder, who, request)
    loaded = load_model(transformers, folder, config, who)
    loaded.refuse(who, frozenset(n for n in loaded.missing if n.startswith("text")))
    model: Any = loaded.model
    tokens, cut = _tokens(transformers, folder, config, who, texts)
    with torch.no_grad():
        found = model.get_text_features(**tokens)
        vectors = found if isinstance(found, torch.Tensor) else found.pooler_output
        scale = getattr(model, "logit_scale", getattr(model, "logit_scale_a", None))
        factor = 1.0 if scale is None else float(scale.detach().exp())
    return TextVectors(vectors.double().numpy(), factor, cut)


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
            hint="save it next to the model: tokenizer.save_pretrained(FOLDER)",
        ) from error
    taken = {key: found[key] for key in ("input_ids", "attention_mask") if key in found}
    return taken, tuple(t for t, n in zip(texts, lengths, strict=True) if n > longest)


__all__ = ["vectors_of_texts"]
