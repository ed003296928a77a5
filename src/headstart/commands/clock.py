"""Wall time of a job, by step."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Call it with the name of a step to time what happens inside the context."""

    def __init__(self) -> None:
        self._begun = time.perf_counter()
        self._steps: dict[str, float] = {}

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        """Time one step; a step that is entered again adds up."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            elapsed = time.perf_counter() - begun
            self._steps[step] = self._steps.get(step, 0.0) + elapsed

    def seconds(self) -> dict[str, float]:
        """Return seconds by step, and ``total`` since the clock was made."""
        return {**self._steps, "total": time.perf_counter() - self._begun}
