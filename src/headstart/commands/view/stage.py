"""What a page shows: what was kept of it, until the items are open behind it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from headstart.commands.view.kept import KeptScene

if TYPE_CHECKING:
    from headstart.commands.view.scene import Scene

_BEFORE = 1.0
"""Seconds that a page has to load before the items are opened beside it."""


class Stage:
    """The scene of a page, and what it begins with.

    Args:
        scene: the scene; or what opens it, which then happens in a thread, once the page has its
            points.
        kept: what the page begins with; None: the scene is open.
    """

    def __init__(self, scene: Scene | Callable[[], Scene], kept: KeptScene | None) -> None:
        self._kept = kept
        self._scene: Scene | None = None
        self._error: BaseException | None = None
        self._done, self._asked = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        if callable(scene):
            self._thread = threading.Thread(target=self._open, args=(scene,), daemon=True)
            self._thread.start()
        else:
            self._scene = scene
            self._done.set()

    def _open(self, make: Callable[[], Scene]) -> None:
        self._asked.wait(_BEFORE)
        try:
            self._scene = make()
        except BaseException as error:
            self._error = error
        self._done.set()

    @property
    def scene(self) -> Scene:
        """The scene, as soon as it is open.

        Raises:
            HeadstartError: whatever opening it has raised.
        """
        self._asked.set()
        self._done.wait()
        if self._error is not None:
            raise self._error
        assert self._scene is not None
        return self._scene

    def close(self) -> None:
        """Wait until the items are open: a thread must not end in the middle of an import."""
        self._asked.set()
        if self._thread is not None:
            self._thread.join()

    @property
    def failed(self) -> BaseException | None:
        """What opening the items has raised; None: nothing so far."""
        return self._error

    @property
    def same(self) -> bool:
        """Whether the items are those that the page began with, once they are open."""
        return self._kept is None or self.scene.identity == self._kept.identity

    def _front(self) -> KeptScene | None:
        """Return what was kept, as long as it is what the page shows."""
        if self._kept is None or (self._scene is not None and not self.same):
            return None
        return self._kept

    def __len__(self) -> int:
        kept = self._front()
        return len(self.scene.among) if kept is None else int(kept.said["count"])

    def describe(self) -> dict[str, Any]:
        """Return what the page needs to know before any item."""
        kept = self._front()
        if kept is None:
            return {**self.scene.describe(), "identity": self.scene.identity, "kept": False}
        return {**kept.said, "identity": kept.identity, "kept": self._scene is None}

    def points(self, identity: str | None) -> bytes | None:
        """Return all points; None where they are not those of ``identity``."""
        kept = self._front()
        found = self.scene.identity if kept is None else kept.identity
        if identity is not None and identity != found:
            return None
        body = self.scene.points() if kept is None else kept.body
        self._asked.set()
        return body

    def checked(self) -> dict[str, Any]:
        """Return, once the items are open, whether they are those that the page began with."""
        try:
            scene = self.scene
        except BaseException as error:
            return {"error": getattr(error, "message", None) or str(error)}
        return {"same": self.same, "notes": scene.describe()["notes"]}

    def named(self, items: Sequence[int]) -> list[Mapping[str, Any]]:
        """Return what a gallery shows of some items."""
        kept = self._front()
        if kept is not None and all(i in kept.known for i in items):
            return [kept.known[i] for i in items]
        return [*self.scene.named(items)]

    def picture(self, i: int) -> bytes | None:
        """Return the thumbnail of an item."""
        kept = self._front()
        if kept is not None and i in kept.pictures:
            return kept.pictures[i]
        found = self.scene.excerpt(i)
        return None if found is None or not found.picture else found.picture


__all__ = ["Stage"]
