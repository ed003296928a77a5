"""Names of classes: one form for one name, and which of them look alike."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable


def composed(name: str) -> str:
    """Return a class name in the composed form of Unicode (NFC); systems write both forms."""
    return unicodedata.normalize("NFC", name)


def look_alikes(names: Iterable[str]) -> list[list[str]]:
    """Return groups of names that differ only in case, spaces, leading zeros or the like."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(_folded(name), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def _folded(name: str) -> str:
    text = unicodedata.normalize("NFKC", name).casefold()
    text = "".join(mark for mark in text if unicodedata.category(mark) != "Cf")
    text = re.sub(r"[\s_-]+", " ", text).strip()
    return (text.lstrip("0") or "0") if text.isdigit() else text


__all__ = ["composed", "look_alikes"]
