"""Functions of torch that are replaced while an audit runs, and put back in the end.

Global hooks of torch see modules and optimizers. What they do not see is replaced: ``backward``,
losses, iteration over data loaders, ``train``, and the making of optimizers and schedulers. Every
replacement calls the original with what it was given, and returns what that returns.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]


class Patches:
    """Replacements, undone in the opposite order."""

    def __init__(self) -> None:
        self._undo: list[tuple[Any, str, Any, Any]] = []

    def around(self, owner: Any, name: str, wrap: Wrap) -> None:
        """Replace a function of a module or class by one around it; nothing where there is none."""
        original = vars(owner).get(name)
        if original is None or not callable(original):
            return
        replaced = functools.wraps(original)(wrap(original))
        setattr(owner, name, replaced)
        self._undo.append((owner, name, original, replaced))

    def undo(self) -> None:
        """Put everything back that nobody else has replaced meanwhile."""
        while self._undo:
            owner, name, original, replaced = self._undo.pop()
            if vars(owner).get(name) is replaced:
                setattr(owner, name, original)


__all__ = ["Patches"]
