"""How many threads compute: several, or one where several wait for each other.

Each operation ends when the last of its threads ends. On a machine that others use, that is the one
that the scheduler has put off, and the others wait for it, operation after operation: a fit of a
second took twenty times as long on two threads as on one. Whether it is so is measured.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_GAIN = 1.1
"""One thread is taken where it is faster by this factor, so that noise decides nothing."""
_KNOWN_SECONDS = 5.0
"""For so long a verdict holds."""
_SIDE = 256

_known: list[tuple[float, int, bool]] = []
"""When several threads were last compared with one, how many, and whether one was faster."""


def one_is_faster(
    step: Callable[[], object], several: int, *, blocks: int = 3, seconds: float = 0.004
) -> bool:
    """Whether torch computes a step faster on one thread than on several.

    Blocks of steps alternate between both, so that a neighbour's burst meets both alike.

    Args:
        step: some work.
        several: threads, two or more; torch is left with them.
        blocks: of each.
        seconds: of a block, which has one step at least, after one that is not counted.
    """
    torch: Any = sys.modules["torch"]
    spent, steps = {1: 0.0, several: 0.0}, {1: 0, several: 0}
    try:
        for threads in (several, 1) * blocks:
            torch.set_num_threads(threads)
            step()  # wakes the threads
            begun = now = time.perf_counter()
            while now == begun or now - begun < seconds:
                step()
                steps[threads] += 1
                now = time.perf_counter()
            spent[threads] += now - begun
    finally:
        torch.set_num_threads(several)
    return _GAIN * spent[1] / steps[1] < spent[several] / steps[several]


@contextmanager
def fair_threads() -> Iterator[None]:
    """Compute inside on one thread where that is faster now than on as many as torch has.

    It costs some 30 milliseconds, every five seconds at most. Sums of several threads are rounded
    otherwise than those of one: results may differ in their last digits. Where torch has one thread
    or is not imported, nothing is measured and nothing changes.
    """
    torch: Any = sys.modules.get("torch")
    several = torch.get_num_threads() if torch is not None else 1
    if several == 1 or not _one_is_faster_now(several):
        yield
        return
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(1)
    try:
        with threadpool_limits(1, user_api="blas"):  # NumPy's products
            yield
    finally:
        torch.set_num_threads(several)


def _one_is_faster_now(several: int) -> bool:
    now = time.monotonic()
    if _known and _known[-1][1] == several and now - _known[-1][0] < _KNOWN_SECONDS:
        return _known[-1][2]
    torch: Any = sys.modules["torch"]
    with torch.no_grad():
        factor = torch.full((_SIDE, _SIDE), 1.0 / _SIDE)
        found = one_is_faster(lambda: (factor @ factor).exp_(), several)
    _known[:] = [(now, several, found)]
    return found


__all__ = ["fair_threads", "one_is_faster"]
