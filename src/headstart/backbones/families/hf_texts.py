"""Models of texts of transformers, with their tokenizer and their pooling."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.backbones.families.hf_folder import (
    Loaded,
    blocks_of,
    class_of,
    load_model,
    quiet,
    settings_of,
    takes,
)
from headstart.backbones.family import Built
from headstart.backbones.sentence_folder import SentenceFolder
from headstart.core.errors import BackboneError
from headstart.core.wording import first_line

if TYPE_CHECKING:
    from torch import nn

_UNLIMITED = 10**6
"""Tokenizers without a limit state one of 10**30."""
_USUAL_LENGTH = 512


def build_texts(
    transformers: Any, folder: Path, config: Any, who: str, says: SentenceFolder | None
) -> Built:
    """Build a model of texts.

    Args:
        transformers: the library.
        folder: of the transformer.
        config: its configuration.
        who: what to call it, in messages.
        says: what a sentence-transformers folder says of pooling and texts; None: it is none.
    """
    more = {"add_pooling_layer": False}
    bare = takes(class_of(transformers, config, who), "add_pooling_layer")
    loaded = load_model(transformers, folder, config, who, **(more if bare else {}))
    model, notes = _encoder(loaded, config, who)
    digest, pad, segments, longest = _tokenizer(transformers, folder, config, who)
    causal = _is_causal(model, config)
    if says is None:
        says = SentenceFolder(folder, ("last",) if causal else ("mean",))
        way = "the last token, since it reads from left to right" if causal else "the mean"
        notes.append(f"{who} does not state how it pools its tokens: {way} is used")
    stated = says.max_length or longest or _USUAL_LENGTH
    if says.max_length is None and longest is None:
        notes.append(f"{who} does not state a maximum length: {_USUAL_LENGTH} tokens are read")
    known = {
        "tokenizer": digest,
        "max_length": min(stated, longest or stated),
        "pad": pad,
        "segments": segments,
        "prompt": says.prompt,
        "lower": says.lower,
    }
    return Built(
        _network(model, says, config),
        known,
        tuple(f"model.{name}" for name in blocks_of(model)),
        notes=tuple(notes),
        kind="text",
        loaded=True,
        tokens="model",
    )


def _encoder(loaded: Loaded, config: Any, who: str) -> tuple[nn.Module, list[str]]:
    """Return the model, or of an encoder-decoder the encoder; refuse weights that lack tensors."""
    model, missing, notes = loaded.model, loaded.missing, []
    if getattr(config, "is_encoder_decoder", False):
        model = model.get_encoder()  # type: ignore[operator]
        missing = loaded.used_by(model)
        notes.append(f"{who} is an encoder-decoder: only the encoder is used")
    unused = {name for name in missing if name.startswith("pooler.")}
    loaded.refuse(who, missing - unused)
    return model, notes


def _tokenizer(
    transformers: Any, folder: Path, config: Any, who: str
) -> tuple[str, int, bool, int | None]:
    """Keep the tokenizer.

    Returns:
        Its digest, the token that pads, whether the model needs segments, and the longest text
        that tokenizer and model state (None: neither does).
    """
    from headstart.data.tokenizers import keep_tokenizer, tokenize

    names = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model", "tokenizer_config.json")
    if not any(any(folder.glob(name)) for name in names):
        raise BackboneError(
            f"{who} has no tokenizer in '{folder}'",
            hint="save it next to the model: tokenizer.save_pretrained(FOLDER)",
        )
    try:
        with quiet(transformers):
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, config=config
            )
    except Exception as error:
        raise BackboneError(
            f"the tokenizer of {who} cannot be loaded: {first_line(error)}",
            hint="save it next to the model: tokenizer.save_pretrained(FOLDER)",
        ) from error
    written = getattr(tokenizer, "backend_tokenizer", None)
    if written is None or not hasattr(written, "to_str"):
        raise BackboneError(
            f"the tokenizer of {who} ({type(tokenizer).__name__}) has no fast version, which"
            " headstart needs",
            hint="use a model with a tokenizer.json",
        )
    if tokenizer.pad_token_id is None:
        raise BackboneError(
            f"the tokenizer of {who} has no padding token, which batches of texts of different"
            " lengths need",
            hint="set one and save the tokenizer next to the model: tokenizer.pad_token ="
            " tokenizer.eos_token",
        )
    digest = keep_tokenizer(written.to_str())
    trial = tokenize("a short text", digest, _USUAL_LENGTH)
    segments = any(trial.segments) and "token_type_ids" in tokenizer.model_input_names
    limits = [tokenizer.model_max_length, _positions(config)]
    stated = [int(each) for each in limits if each and 0 < each < _UNLIMITED]
    return digest, int(tokenizer.pad_token_id), segments, min(stated, default=None)


def _positions(config: Any) -> int | None:
    """Return how many tokens a model has positions for; None where it does not say."""
    found = getattr(config, "max_position_embeddings", None)
    if not isinstance(found, int) or found <= 0:
        return None
    # RoBERTa and its kin count positions from behind the number of the token that pads
    behind = config.model_type in _FROM_PADDING and isinstance(config.pad_token_id, int)
    return found - config.pad_token_id - 1 if behind else found


_FROM_PADDING = frozenset((
    "roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "roberta-prelayernorm", "mpnet",
    "longformer", "esm", "ibert", "data2vec-text", "luke", "xmod",
))  # fmt: skip


def _is_causal(model: nn.Module, config: Any) -> bool:
    """Whether every token sees only the tokens before it: found by changing the last one."""
    import torch

    if getattr(config, "is_encoder_decoder", False):
        return False
    tokens = torch.arange(5, 11).remainder(max(2, int(config.vocab_size) - 1)).unsqueeze(0)
    other = tokens.clone()
    other[0, -1] = (other[0, -1] + 1) % int(config.vocab_size)
    with torch.no_grad():
        try:
            first, second = (
                model(input_ids=each, attention_mask=torch.ones_like(each))[0][0, 0]
                for each in (tokens, other)
            )
        except (RuntimeError, ValueError, IndexError, TypeError, AttributeError):
            return False  # trying the whole network says what is wrong with it
    return bool(torch.equal(first, second))


def _network(model: nn.Module, says: SentenceFolder, config: Any) -> nn.Module:
    from headstart.backbones.text_network import TextNetwork, TokenPooling

    caches = takes(model.forward, "use_cache")
    pooling = TokenPooling(says.pooling)
    return TextNetwork(model, pooling, says.modules(), settings_of(config), caches).eval()


__all__ = ["build_texts"]
