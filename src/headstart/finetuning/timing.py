"""Timing on a few items: running a frozen part, one training step, the disk of the cache.

What follows from these figures is in :mod:`headstart.finetuning.costs`.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from headstart.core.arguments import Arguments
from headstart.core.devices import synchronize
from headstart.core.files import existing_parent, write_bytes
from headstart.extraction import Precision, autocast
from headstart.finetuning.gradients import gradients_for
from headstart.finetuning.network import Classifier
from headstart.finetuning.objective import Objective

_REPEATS, _LONG_RUN = 2, 0.5
_PROBE_ITEMS, _SLOW_ITEM = 8, 0.05
_READ_BYTES, _READS = 16 * 2**20, 3


@dataclass(frozen=True)
class StepCost:
    """Cost of one training step per item.

    Attributes:
        seconds: of forward and backward pass.
        activations: bytes kept for the backward pass; each tensor counts once.
    """

    seconds: float
    activations: int


def probe_items(network: Classifier) -> int:
    """Return how many items to measure on: fewer on a CPU where a forward pass is slow."""
    example = network.source.probe(2)
    if example.device.type != "cpu":
        return _PROBE_ITEMS
    with gradients_for(network, ()), torch.no_grad():
        begun = time.perf_counter()
        example.call(network)
        seconds = (time.perf_counter() - begun) / len(example)
    return _PROBE_ITEMS if seconds < _SLOW_ITEM else _PROBE_ITEMS // 2


def measure_prefix(
    prefix: nn.Module, inputs: Arguments, precision: Precision
) -> tuple[Arguments, float]:
    """Run a prefix, which has run before; return the boundary tensors and the seconds per item."""
    wait = _synchroniser(inputs.device)
    wait()
    begun = time.perf_counter()
    with torch.no_grad(), autocast(precision, inputs.device):
        boundary: tuple[Tensor, ...] = inputs.call(prefix)
    wait()
    seconds = (time.perf_counter() - begun) / len(inputs)
    return Arguments(tuple(tensor.clone() for tensor in boundary)), seconds


def measure_step(
    forward: nn.Module, inputs: Arguments, n_classes: int, precision: Precision
) -> StepCost:
    """Measure a training step: the better of two after a warm-up, or of one where it is slow.

    Args:
        forward: from ``inputs`` to logits. Its own parameters and buffers count as no activations.
        inputs: of n items.
        n_classes: of the logits.
        precision: of forward and backward pass.
    """
    device, count = inputs.device, len(inputs)
    labels = torch.arange(count, device=device) % n_classes
    own = {t.untyped_storage().data_ptr() for t in (*forward.parameters(), *forward.buffers())}
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    def step() -> None:
        with autocast(precision, device):
            logits = inputs.call(forward)
        torch.autograd.backward(Objective().loss(logits, labels))  # any loss takes as long

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        step()
    return StepCost(_best_time(step, device) / count, sum(sizes.values()) // count)


def _best_time(work: Callable[[], None], device: torch.device) -> float:
    wait = _synchroniser(device)
    times: list[float] = []
    for _ in range(_REPEATS):
        wait()
        begun = time.perf_counter()
        work()
        wait()
        times.append(time.perf_counter() - begun)
        if times[-1] > _LONG_RUN:
            break
    return min(times)


def _synchroniser(device: torch.device) -> Callable[[], Any]:
    return lambda: synchronize(device)


class Disk:
    """The disk under a folder, measured with a file of 16 MiB that is removed on exit.

    Args:
        folder: where rows will be stored; it need not exist yet.

    Attributes:
        write_seconds: to write a byte durably.
    """

    def __init__(self, folder: Path) -> None:
        self._path = existing_parent(folder) / f".headstart-probe-{secrets.token_hex(8)}"
        self._known: dict[tuple[int, bool], float] = {}
        self.write_seconds = 0.0

    def __enter__(self) -> Disk:
        """Write the file."""
        content = os.urandom(_READ_BYTES)
        begun = time.perf_counter()
        write_bytes(self._path, content)
        self.write_seconds = (time.perf_counter() - begun) / _READ_BYTES
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the file."""
        self._path.unlink(missing_ok=True)

    def read_seconds(self, row_bytes: int, in_memory: bool) -> float:
        """Measure reading rows in random order, in seconds per item.

        Args:
            row_bytes: size of a row.
            in_memory: whether all rows fit into memory. They are then read from the page cache,
                otherwise after the page cache has been dropped.
        """
        if (row_bytes, in_memory) not in self._known:
            self._known[row_bytes, in_memory] = self._read(row_bytes, in_memory)
        return self._known[row_bytes, in_memory]

    def _read(self, row_bytes: int, in_memory: bool) -> float:
        # A row that is larger than the file is measured by a part of it.
        width = min(row_bytes, _READ_BYTES // 8)
        rows = min(4096, _READ_BYTES // max(1, width))
        order = np.random.default_rng(0).permutation(rows)
        times = []
        for _ in range(_READS):  # the file is small: one hiccup would dominate a single reading
            if not in_memory and hasattr(os, "posix_fadvise"):
                with self._path.open("rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            stored = np.memmap(self._path, np.uint8, "r", shape=(rows, width))
            begun = time.perf_counter()
            for start in range(0, rows, 32):
                stored[np.sort(order[start : start + 32])]
            times.append(time.perf_counter() - begun)
            del stored  # mapped pages are never dropped
        return min(times) / rows * (row_bytes / width)


__all__ = ["Disk", "StepCost", "measure_prefix", "measure_step", "probe_items"]
