"""Chance that belongs to a run: drawn from (seed, stage, epoch), never from the user's generators.

Every epoch starts from a state of its own. So an epoch that is repeated after a kill draws what it
drew before, and nothing of the generators has to be saved.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray

from headstart.core.fingerprints import stable_integer

ORDER, MIXING = 0, 1


def numbers(seed: int, stage: int, epoch: int, purpose: int, rank: int = 0) -> np.random.Generator:
    """Return the generator for one purpose in one epoch; of several devices each has its own."""
    own = [rank] if rank else []
    return np.random.default_rng([abs(seed), int(seed < 0), stage, epoch, purpose, *own])


def order(n: int, seed: int, stage: int, epoch: int) -> NDArray[np.int64]:
    """Return the order of the items in an epoch: a permutation ``(n,) int64``."""
    return numbers(seed, stage, epoch, ORDER).permutation(n)


@contextmanager
def drawn_from(
    seed: int, stage: int, epoch: int, device: torch.device, rank: int = 0
) -> Iterator[None]:
    """Seed torch's generators of the CPU and of ``device``; give them their states back after.

    Of several devices each draws numbers of its own, by its ``rank``: with the same ones, the
    items at the same place in two shares would lose the same units to dropout.
    """
    own = f"\0{rank}" if rank else ""
    start = stable_integer(f"headstart\0{seed}\0{stage}\0{epoch}{own}", n_bytes=7)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        # Not torch.manual_seed: it would seed devices that are none of our business.
        torch.default_generator.manual_seed(start)
        if device.type == "cuda":
            torch.cuda.default_generators[device.index or 0].manual_seed(start)
        yield


__all__ = ["MIXING", "drawn_from", "numbers", "order"]
