"""A view on every function of torch, beneath the modes of the user's own."""

from __future__ import annotations

from typing import Any

from torch.overrides import (
    TorchFunctionMode,
    _get_current_function_mode_stack,
    _pop_mode,
    _push_mode,
)


class Beneath(TorchFunctionMode):
    """A mode at the bottom of the stack: modes of the user's come and go above it.

    ``start`` and ``stop`` may fall anywhere between the user's own ``with`` blocks.
    """

    def __init__(self) -> None:
        super().__init__()
        self.on = False

    def start(self) -> None:
        """Begin to see functions."""
        if not self.on:
            self.on = True
            self._arrange([self, *_stack()])

    def stop(self) -> None:
        """Stop to see them."""
        if self.on:
            self.on = False
            self._arrange([m for m in _stack() if m is not self])

    def _arrange(self, wanted: list[Any]) -> None:
        for _ in _stack():
            _pop_mode()  # type: ignore[no-untyped-call]
        for mode in wanted:
            _push_mode(mode)  # type: ignore[no-untyped-call]


def _stack() -> list[Any]:
    """Return the modes that are on, the bottom one first."""
    return list(_get_current_function_mode_stack())  # type: ignore[no-untyped-call]


__all__ = ["Beneath"]
