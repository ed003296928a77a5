"""What an item is made of, and the id that follows from it."""

from __future__ import annotations

import codecs
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from headstart.core.fingerprints import fingerprint

Content: TypeAlias = bytes | str | NDArray[Any]
"""The bytes of a file, a text, or an array of samples.

Which of them a backbone can take, and how it is decoded, is the business of its
:class:`~headstart.data.inputs.Inputs`.
"""


class UndecodableError(ValueError):
    """One item cannot be decoded; ``str(error)`` is the reason, without the item's name."""


class TooLargeError(UndecodableError):
    """One item is larger than what is decoded, sound or not."""


def text_of(content: Content) -> str:
    """Return the text of a content: itself, or the bytes of a text file in UTF-8.

    Raises:
        UndecodableError: it is no text.
    """
    if isinstance(content, str):
        return content
    if not isinstance(content, bytes):
        raise UndecodableError("an array, not text")
    try:
        text = content.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as error:
        raise UndecodableError(f"not UTF-8 text: {error.reason} at byte {error.start:,}") from None
    if "\0" in text:
        raise UndecodableError("not UTF-8 text: it holds zero bytes")
    return text


def stand_in(data: bytes, wanted: str) -> str | None:
    """Return what bytes are that stand in the place of a file; None where they may be the file.

    Args:
        data: of the file.
        wanted: what it should be ("image").
    """
    head = data[:256].lstrip().lower()
    if head.startswith(b"version https://git-lfs"):
        return f"a Git LFS pointer instead of the {wanted}; run: git lfs pull"
    if head.startswith((b"<!doctype html", b"<html")):
        article = "an" if wanted[0] in "aeiou" else "a"
        return f"a web page instead of {article} {wanted}, perhaps from a failed download"
    if not any(data[:4096]):
        return "nothing but zero bytes, perhaps from an interrupted copy"
    return None


def digest(content: Content) -> str:
    """Return the id of a content: SHA-256, truncated to 128 bits.

    Bytes are hashed unchanged and a text as its UTF-8 bytes, so a text has the same id in a file
    and in a column of a table. Samples are hashed behind their type and shape, so an array and a
    file can share an id only if SHA-256 collides.

    Returns:
        32 lower-case hexadecimal characters.
    """
    if isinstance(content, str):
        content = content.encode("utf-8", "surrogatepass")
    if isinstance(content, bytes):
        return fingerprint(content)
    shape = "x".join(map(str, content.shape))
    head = f"headstart samples {content.dtype} {shape}\0"
    return fingerprint(head, np.ascontiguousarray(content).data)


__all__ = ["Content", "UndecodableError", "digest", "stand_in", "text_of"]
