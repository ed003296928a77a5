"""Small models of texts with random weights and a tokenizer of their own, saved as folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headstart.data import Split
from headstart.data.items import TextItems

WORDS = [
    "the", "a", "red", "green", "blue", "small", "large", "old", "new",
    "cat", "dog", "bird", "fish",
    "tree", "river", "house", "road", "sea", "stone", "sky",
    "runs", "sleeps", "falls", "burns", "waits", "sings", "breaks", "grows", "stands", "flies",
    "over", "under", "near", "beyond", "what", "who", "where", "when", "how", "many",
    "is", "are", "was", "far", "long",
]  # fmt: skip
ANIMALS, THINGS = WORDS[9:13], WORDS[13:20]

SIZES: dict[str, Any] = {
    "vocab_size": 80, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
    "intermediate_size": 48, "max_position_embeddings": 66,
}  # fmt: skip
GPT: dict[str, Any] = {"vocab_size": 80, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("BertConfig", SIZES),
    "roberta": ("RobertaConfig", {**SIZES, "pad_token_id": 1}),
    "distilbert": (
        "DistilBertConfig",
        {"vocab_size": 80, "dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 48,
         "max_position_embeddings": 64},
    ),
    "electra": ("ElectraConfig", {**SIZES, "embedding_size": 16}),
    "mpnet": ("MPNetConfig", SIZES),
    "albert": ("AlbertConfig", {**SIZES, "embedding_size": 16}),
    "deberta": ("DebertaV2Config", {**SIZES, "relative_attention": True, "pos_att_type": "p2c"}),
    "modernbert": (
        "ModernBertConfig",
        {**SIZES, "pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2,
         "eos_token_id": 3, "local_attention": 8},
    ),
    "gpt2": ("GPT2Config", {**GPT, "bos_token_id": 2, "eos_token_id": 3}),
    "llama": ("LlamaConfig", {**SIZES, "num_key_value_heads": 2, "pad_token_id": 0}),
    "gpt_neox": ("GPTNeoXConfig", SIZES),
    "t5": (
        "T5Config",
        {"vocab_size": 80, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 3, "num_heads": 4,
         "decoder_start_token_id": 0},
    ),
}  # fmt: skip
"""By ``model_type``: the class of the configuration, and small sizes."""
CAUSAL = ("gpt2", "llama", "gpt_neox")


def tokenizer(*, framed: bool = True, pad: bool = True, side: str = "right") -> Any:
    """Return a tokenizer of whole words, with or without ``[CLS]`` and ``[SEP]`` around a text."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS]
    made = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, "[UNK]"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    if framed:
        made.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        eos_token="[SEP]", pad_token="[PAD]" if pad else None, padding_side=side,
        model_max_length=60,
    )  # fmt: skip


def save_model(folder: Path, kind: str = "bert", *, seed: int = 0, **tokens: Any) -> Path:
    """Save a model with random weights and its tokenizer; return the folder."""
    import transformers

    name, sizes = KINDS[kind]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = transformers.AutoModel.from_config(getattr(transformers, name)(**sizes))
        for parameter in model.parameters():  # so that positions and attention matter
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    tokenizer(framed=tokens.pop("framed", kind not in CAUSAL), **tokens).save_pretrained(folder)
    return folder


def save_sentence_model(
    folder: Path, kind: str = "bert", pooling: str = "mean_tokens", *, normalise: bool = True,
    prompt: str = "", **tokens: Any,
) -> Path:  # fmt: skip
    """Save a model as sentence-transformers does."""
    save_model(folder, kind, **tokens)
    parts = ["", "1_Pooling", *(["2_Normalize"] if normalise else [])]
    names = ["Transformer", "Pooling", "Normalize"]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{name}"}
        for i, (path, name) in enumerate(zip(parts, names, strict=False))
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    config = {"word_embedding_dimension": 32, f"pooling_mode_{pooling}": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(config))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 24}))
    if prompt:
        said = {"prompts": {"query": prompt}, "default_prompt_name": "query"}
        (folder / "config_sentence_transformers.json").write_text(json.dumps(said))
    return folder


def sentence(rng: np.random.Generator, words: int, about: int | None = None) -> str:
    """Return random words; of animals (0) or things (1) where that is said."""
    chosen = list(rng.choice(WORDS[:9] + WORDS[20:], words))
    if about is not None:
        for place in rng.permutation(words)[: 1 + words // 3]:
            chosen[place] = str(rng.choice((ANIMALS, THINGS)[about]))
    return " ".join(chosen)


def questions(count: int, seed: int = 0) -> tuple[list[str], list[str]]:
    """Return texts of 3 to 20 words about animals or things, and which it is."""
    rng = np.random.default_rng(seed)
    about = np.arange(count) % 2
    texts = [sentence(rng, int(rng.integers(3, 21)), int(y)) for y in about]
    return texts, [("animal", "thing")[y] for y in about]


def split_of(texts: list[str]) -> Split:
    """Return a split of texts without labels."""
    return Split(TextItems(texts, "text"), np.arange(len(texts)), np.full(len(texts), -1))
