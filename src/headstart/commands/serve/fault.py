"""What is wrong with a request or one of its items, as an answer says it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """One reason not to predict.

    Attributes:
        expected, found: what was, as noun phrases.
        hint: what to do.
        status: of the answer, where it is the only one.
        retry: seconds after which the same request may be answered; None: it never will be.
    """

    expected: str
    found: str
    hint: str
    status: int = 422
    retry: int | None = None

    def plain(self) -> dict[str, str]:
        """Return what the answer holds."""
        return {"expected": self.expected, "found": self.found, "do": self.hint}


class RefusedError(Exception):
    """A request as a whole is refused."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.found)
        self.fault = fault


__all__ = ["Fault", "RefusedError"]
