"""What the watchers of one audit share: the scene, who listens, and whose business a call is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from headstart.audit.check import EVENTS, Check
from headstart.audit.scene import Scene

_PATIENCE = 20
"""How often a script may catch the exception that is to end it."""


class StopAudit(BaseException):
    """Ends the script after the steps that were asked for; no ``except Exception`` swallows it."""


class Hub:
    """Tells checks what happens, and keeps what they do apart from what the script does.

    Args:
        checks: one instance of each.
        steps: raise :class:`StopAudit` after so many steps of optimizers; None: never.
    """

    def __init__(self, checks: Iterable[Check], steps: int | None = None) -> None:
        self.scene = Scene()
        self.checks = tuple(checks)
        self.limit = steps
        self.on_swallowed: Callable[[], None] = lambda: None
        """Called where the script has caught :class:`StopAudit` again and again, and goes on."""
        self.thread = threading.get_ident()
        self.inside = 0
        """Above 0 inside of a trial of a check, or of a backward pass."""
        self._listeners: dict[str, list[tuple[Check, Callable[..., None]]]] = {
            event: [
                (check, getattr(check, event))
                for check in self.checks
                if getattr(type(check), event) is not getattr(Check, event)
            ]
            for event in EVENTS
        }
        self._failed: set[str] = set()
        self._stops = 0

    def listens(self, event: str) -> bool:
        """Whether any check wants to be told of an event."""
        return bool(self._listeners[event])

    def tell(self, event: str, seen: Any) -> None:
        """Tell the checks that want to know; one that fails is noted and hides nothing."""
        listeners = self._listeners[event]
        if not listeners:
            return
        with self.aside():
            for check, listener in listeners:
                self.guarded(check, listener, seen, self.scene)

    def guarded(self, check: Check, call: Callable[..., Any], *given: Any) -> Any:
        """Return what a check's function returns; None, and a note, where it fails."""
        try:
            return call(*given)
        except Exception as error:
            if check.code not in self._failed:
                self._failed.add(check.code)
                self.scene.notes.append(
                    f"the check {check.code} failed and says nothing:"
                    f" {type(error).__name__}: {' '.join(str(error).split())[:200]}"
                )
            return None

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Observe nothing meanwhile: this is not the script's own doing."""
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1

    def elsewhere(self) -> bool:
        """Whether this is none of our business: another thread, or a check's trial."""
        return bool(self.inside) or threading.get_ident() != self.thread

    def stop_when_done(self) -> None:
        """End the script where all steps that were asked for have been seen.

        Raises:
            StopAudit: they have.
        """
        if self.limit is None or self.scene.steps < self.limit:
            return
        self._stops += 1
        if self._stops > _PATIENCE:
            self.on_swallowed()
        raise StopAudit


__all__ = ["Hub", "StopAudit"]
