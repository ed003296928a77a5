"""Texts → tokens, as the model was trained on them."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


@functools.cache
def open_tokenizer(path: str, longest: int) -> Any:
    """Open ``tokenizer.json``, cutting texts behind so many tokens."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(path)
    tokenizer.enable_truncation(longest)
    return tokenizer


def read(items: Sequence[Any], settings: Mapping[str, Any], folder: Any) -> dict[str, np.ndarray]:
    """Return what the network takes, of texts: tokens, padded on the right."""
    longest = settings["length"] or settings["max_length"]
    tokenizer = open_tokenizer(str(folder / "tokenizer.json"), longest)
    found = []
    for item in items:
        if not item.strip():
            raise ValueError("the text is empty")
        text = (settings["prompt"] + item)[: settings["characters"] or None]
        text = text.lower() if settings["lower"] else text
        found.append(tokenizer.encode(text, add_special_tokens=settings["special"]))
    width = max((2, settings["length"], *(len(each.ids) for each in found)))
    tokens = np.full((len(found), width), settings["pad"], dtype=np.int64)
    segments, mask = np.zeros_like(tokens), np.zeros_like(tokens)
    for row, each in enumerate(found):
        tokens[row, : len(each.ids)], segments[row, : len(each.ids)] = each.ids, each.type_ids
        mask[row, : len(each.ids)] = 1
    if not settings["masked"]:
        mask[:] = 1
    return {"input_ids": tokens, "attention_mask": mask, "token_type_ids": segments}


__all__ = ["open_tokenizer", "read"]
