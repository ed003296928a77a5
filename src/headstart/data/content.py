"""What an item is made of, and the id that follows from it."""

from __future__ import annotations

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


__all__ = ["Content", "UndecodableError", "digest"]
