"""Tokenizers by the digest of what they are: plain JSON of the package ``tokenizers``.

Inputs name their tokenizer by its digest, so that they stay plain values that a cache key and a run
folder can hold. Whoever loads a backbone keeps its tokenizer here first.
"""

from __future__ import annotations

import functools
import threading
from typing import Any, NamedTuple

from headstart.core.errors import BackboneError, MissingExtraError
from headstart.core.fingerprints import fingerprint

_KEPT: dict[str, str] = {}
_LOCK = threading.Lock()


class Tokens(NamedTuple):
    """The tokens of one text.

    Attributes:
        ids: their numbers, special tokens included.
        segments: the segment of each.
        cut: whether the text had more.
    """

    ids: list[int]
    segments: list[int]
    cut: bool


def keep_tokenizer(text: str) -> str:
    """Keep a tokenizer, and return its digest.

    Args:
        text: as ``tokenizers.Tokenizer.to_str`` writes it. Its truncation and padding do not count.
    """
    plain = _library().Tokenizer.from_str(text)
    plain.no_truncation()
    plain.no_padding()
    written: str = plain.to_str()
    digest = fingerprint(written)
    _KEPT[digest] = written
    return digest


def kept_tokenizer(digest: str) -> str:
    """Return a tokenizer that was kept, as JSON text.

    Raises:
        BackboneError: no backbone that has been loaded brought it.
    """
    if digest not in _KEPT:
        raise BackboneError(
            f"the tokenizer {digest[:12]}… is not the one of a backbone that has been loaded: its"
            " files have changed, or it was not loaded by name",
            hint="load the backbone by name, with the files that the run was made with",
        )
    return _KEPT[digest]


def tokenize(text: str, digest: str, longest: int, special: bool = True) -> Tokens:
    """Return the tokens of a text, at most ``longest``; called from several threads.

    Args:
        text: any text.
        digest: of the tokenizer.
        longest: how many tokens are kept, special ones included.
        special: whether the special tokens of the model are put around the text.
    """
    encoding = _opened(digest, longest).encode(text, add_special_tokens=special)
    return Tokens(encoding.ids, encoding.type_ids, bool(encoding.overflowing))


def vocabulary_of(text: str) -> list[str]:
    """Return the tokens of a tokenizer, added ones included.

    Args:
        text: as for :func:`keep_tokenizer`.
    """
    return list(_library().Tokenizer.from_str(text).get_vocab())


def library_version() -> str:
    """Return name and version of the library that tokenizes."""
    return f"tokenizers {_library().__version__}"


def _opened(digest: str, longest: int) -> Any:
    with _LOCK:
        return _open(digest, longest)


@functools.lru_cache(maxsize=32)
def _open(digest: str, longest: int) -> Any:
    opened = _library().Tokenizer.from_str(kept_tokenizer(digest))
    opened.enable_truncation(longest)
    return opened


def _library() -> Any:
    try:
        import tokenizers
    except ImportError:
        raise MissingExtraError("tokenizers", "transformers", "a text backbone") from None
    return tokenizers


__all__ = [
    "Tokens",
    "keep_tokenizer",
    "kept_tokenizer",
    "library_version",
    "tokenize",
    "vocabulary_of",
]
