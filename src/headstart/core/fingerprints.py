"""Digests of content and the canonical text of plain values: one spelling for the package.

A *key* identifies something; a *fingerprint* is the digest that keys are made of. Both end up on
users' disks, so they never change: the same content has the same fingerprint in every version and
on every platform.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

FINGERPRINT_LENGTH = 32

Part = str | bytes | memoryview


def sha256(*parts: Part) -> str:
    """Return the SHA-256 of the parts, one after the other, as 64 hexadecimal characters.

    Args:
        parts: bytes, buffers, or text (hashed as UTF-8). Nothing is put between them, so add a
            separator where two divisions of the same bytes must differ.
    """
    return str(_hash(parts).hexdigest())


def fingerprint(*parts: Part) -> str:
    """Return the SHA-256 of the parts, truncated to 128 bits: 32 hexadecimal characters.

    128 bits make an accidental collision practically impossible.
    """
    return sha256(*parts)[:FINGERPRINT_LENGTH]


def stable_integer(*parts: Part, n_bytes: int = 32) -> int:
    """Return an integer derived from the parts: the first bytes of their SHA-256, big-endian.

    Args:
        parts: as for :func:`sha256`.
        n_bytes: how many bytes, at most 32.
    """
    return int.from_bytes(_hash(parts).digest()[:n_bytes], "big")


def sha256_of_file(path: Path) -> str:
    """Return the SHA-256 of a file's content, read in blocks, as 64 hexadecimal characters."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stamp(path: Path, content: bytes | None = None) -> dict[str, Any]:
    """Return what identifies a file later on, as plain values: ``path``, ``size``, ``sha256``.

    Args:
        path: the file; recorded as an absolute path, links in it resolved.
        content: its bytes, where they are in memory; None: it is read.
    """
    return {
        "path": str(path.resolve()),
        "size": path.stat().st_size if content is None else len(content),
        "sha256": sha256_of_file(path) if content is None else sha256(content),
    }


def canonical_json(
    value: Any, *, compact: bool = True, default: Callable[[Any], Any] | None = None
) -> str:
    """Return the canonical JSON text of plain values: sorted keys, ASCII.

    Args:
        value: plain values.
        compact: no white space. False puts a space after commas and colons, which is the form of
            most keys that are already on disk.
        default: converts other values to plain ones.

    Raises:
        ValueError: it holds NaN or infinity, which JSON lacks, and ``compact`` is True.
        TypeError: it holds a value without a JSON form.
    """
    return json.dumps(
        value,
        sort_keys=True,
        separators=(",", ":") if compact else None,
        allow_nan=not compact,
        default=default,
    )


def _hash(parts: tuple[Part, ...]) -> Any:
    state = hashlib.sha256()
    for part in parts:
        state.update(part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part)
    return state


__all__ = [
    "FINGERPRINT_LENGTH",
    "canonical_json",
    "fingerprint",
    "sha256",
    "sha256_of_file",
    "stable_integer",
    "stamp",
]
