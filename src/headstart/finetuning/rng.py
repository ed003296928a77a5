"""Random numbers of a training run: derived from seed, stage and epoch, not from global generators.

Every epoch starts from its own state. An epoch that is repeated after a kill therefore draws the
same numbers again, and no generator state has to be saved.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray

from headstart.core.devices import kept_randomness
from headstart.core.fingerprints import stable_integer

_ORDER, _MIXING = 0, 1


def item_order(n: int, seed: int, stage: int, epoch: int) -> NDArray[np.int64]:
    """Return the order of the items in an epoch: a permutation ``(n,) int64``."""
    return _generator(seed, stage, epoch, _ORDER).permutation(n)


def mixing_generator(seed: int, stage: int, epoch: int, rank: int = 0) -> np.random.Generator:
    """Return the generator for mixup in one epoch; each of several devices has its own."""
    return _generator(seed, stage, epoch, _MIXING, *([rank] if rank else []))


def _generator(seed: int, *place: int) -> np.random.Generator:
    return np.random.default_rng([abs(seed), int(seed < 0), *place])


@contextmanager
def seeded(
    seed: int, stage: int, epoch: int, device: torch.device, rank: int = 0
) -> Iterator[None]:
    """Seed torch's generators of the CPU and of ``device``, and restore their states on exit.

    Several devices draw different numbers, by ``rank``: otherwise the items at the same place in
    two shares of a batch would lose the same units to dropout.
    """
    own = f"\0{rank}" if rank else ""
    start = stable_integer(f"headstart\0{seed}\0{stage}\0{epoch}{own}", n_bytes=7)
    # Not torch.manual_seed, which would seed every other device too.
    with kept_randomness((device,), start):
        yield


__all__ = ["item_order", "mixing_generator", "seeded"]
