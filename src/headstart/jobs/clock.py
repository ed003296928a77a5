"""Wall time by step of a job."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Counts from its making; ``with clock("load"): ...`` names a step."""

    def __init__(self) -> None:
        self._begun = time.perf_counter()
        self._steps: dict[str, float] = {}

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        """Add the time of the context to a step."""
        begun = time.perf_counter()
        yield
        self._steps[step] = self._steps.get(step, 0.0) + time.perf_counter() - begun

    def seconds(self) -> dict[str, float]:
        """Return seconds by step, and ``total``."""
        return {**self._steps, "total": time.perf_counter() - self._begun}


__all__ = ["Clock"]
