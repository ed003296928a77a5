"""Damage inside a JPEG that a decoder passes over: it hands out noise instead of an error.

The compressed data of a scan hold no marker but restarts (``FF D0`` to ``FF D7``); a byte ``FF`` in
them is followed by ``00``. Where a block of a file was overwritten, other bytes follow it. A damage
that happens to hold no ``FF`` cannot be told from data in this way.
"""

from __future__ import annotations

_INSIDE = frozenset({0x00, 0xFF, *range(0xD0, 0xD8)})
"""What may follow a byte ``FF`` in compressed data: a stuffed zero, a fill byte, a restart."""

_SEGMENTS = frozenset({0xC4, 0xCC, 0xDA, 0xDB, 0xDC, 0xDD, 0xDF, 0xFE, *range(0xE0, 0xF0)})
"""Markers that may follow a scan: tables, the next scan, comments, application data."""

_PLAIN = frozenset({0xC0, 0xC1, 0xC2})
"""Frames of Huffman-coded, sequential or progressive images: what nearly every JPEG is."""


def is_damaged_inside(data: bytes) -> bool:
    """Return whether the scans of a JPEG hold what no encoder writes.

    Args:
        data: the whole file; True is only returned for plain JPEGs.
    """
    return _is_sound(data) is False


def is_whole(data: bytes) -> bool:
    """Return whether a JPEG is plain, without damage that shows, and not cut off.

    Args:
        data: the whole file.
    """
    return _is_sound(data) is True


def _is_sound(data: bytes) -> bool | None:
    """Walk through a file: True up to its end, False where it is damaged, None if unknown."""
    at, frame = 2, None
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker == 0xD9:
            return True
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            frame = marker
        if marker not in _SEGMENTS and frame != marker:
            return None  # nothing that is known here; the decoder says what it is
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == 0xDA:
            if frame not in _PLAIN:
                return None
            found = _end_of_scan(data, at)
            if found is None:
                return None  # cut off, or without an end; the decoder says so
            at = found
            if data[at + 1] not in _SEGMENTS and data[at + 1] != 0xD9:
                return False
    return True if data[at:] == b"\xff\xd9" else None


def _end_of_scan(data: bytes, start: int) -> int | None:
    """Return where the first marker behind compressed data is, restarts left out."""
    at = data.find(b"\xff", start)
    while 0 <= at < len(data) - 1:
        following = data[at + 1]
        if following not in _INSIDE:
            return at
        # a second FF may begin a marker itself
        at = data.find(b"\xff", at + (1 if following == 0xFF else 2))
    return None


__all__ = ["is_damaged_inside", "is_whole"]
