"""What is odd about items that could be decoded all the same: several frames, damage inside.

Whoever decodes calls :func:`remark`; whoever reads a batch of items listens, and tells it once for
all of them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar

from headstart.core.wording import count, quoted

_HEARD: ContextVar[list[str] | None] = ContextVar("headstart_remarks", default=None)

FRAMES = "Several frames or pages, of which only the first is read"
VANISHED = "Transparent images that are blank on the white background they are put on"
NOISE = "Damaged data in the middle of a JPEG, so that a part of it may be noise"


def remark(what: str) -> None:
    """Say what is odd about the item that is being decoded."""
    heard = _HEARD.get()
    if heard is not None:
        heard.append(what)


@contextlib.contextmanager
def listening() -> Iterator[list[str]]:
    """Collect what is said about one item."""
    heard: list[str] = []
    token = _HEARD.set(heard)
    try:
        yield heard
    finally:
        _HEARD.reset(token)


def remark_notes(remarks: Mapping[str, Sequence[str]], unit: str) -> list[str]:
    """Return one note for each kind of remark, with the items that it is about.

    Args:
        remarks: origins of items by what was said of them.
        unit: what to call several items.
    """
    noun = unit.removesuffix("s")
    return [
        f"{what}: {count(len(origins), noun, unit)}, {quoted(origins, 3)}."
        for what, origins in sorted(remarks.items())
    ]


__all__ = ["FRAMES", "NOISE", "VANISHED", "listening", "remark", "remark_notes"]
