"""Calls that Keras makes itself, led through the parts of a tree.

Keras calls its layers from ``fit``, ``predict`` and the layers around them. Where a layer has a
:class:`Bridge`, such a call reaches the part that stands for it: the one of the tree that runs in
this thread, or the one that a freeze contract holds.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol


class Part(Protocol):
    """A module that runs a Keras layer; see :class:`headstart.modules.keras.KerasPart`."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the layer."""


class Bridge:
    """Replaces the ``forward`` of a Keras layer, so that Keras's own calls go through a part.

    Attributes:
        layer: the layer.
        held: the part that a freeze contract holds, which all calls go through.
    """

    def __init__(self, layer: Any) -> None:
        self.layer = layer
        self.held: Part | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the part that stands for the layer here, or else the layer itself."""
        part = here().parts.get(id(self.layer)) or self.held
        if part is None or id(part) in here().running:
            return own_forward(self.layer)(*args, **kwargs)
        here().entering = part
        return part(*args, **kwargs)


class _Here(threading.local):
    """What runs in this thread; kept off the modules, whose attributes tracers compare."""

    def __init__(self) -> None:
        self.parts: dict[int, Part] = {}
        self.running: set[int] = set()
        self.entering: Part | None = None


_HERE = _Here()


def here() -> _Here:
    """Return what runs in this thread."""
    return _HERE


@contextmanager
def running(part: Part, inside: Mapping[int, Part]) -> Iterator[None]:
    """Let the layers inside a layer run as their parts: in their own modes, seen by hooks.

    Args:
        part: runs.
        inside: the parts inside it, by the ``id`` of their Keras layers.
    """
    now = here()
    before = now.parts
    now.parts = {**before, **inside}
    now.running.add(id(part))
    try:
        yield
    finally:
        now.parts = before
        now.running.discard(id(part))


def bridge_of(layer: Any) -> Bridge:
    """Return the bridge of a Keras layer, which gets one if it has none."""
    found = vars(layer).get("forward")
    if not isinstance(found, Bridge):
        found = vars(layer)["forward"] = Bridge(layer)
    return found


def own_forward(layer: Any) -> Any:
    """Return the ``forward`` that Keras gave a layer."""
    return type(layer).forward.__get__(layer)


__all__ = ["Bridge", "Part", "bridge_of", "here", "own_forward", "running"]
