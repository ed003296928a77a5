"""What a stage costs, measured on a few items: time of a step, memory, decoding, reading."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from headstart.core.files import existing_parent, write_bytes
from headstart.data import Preprocessing, Split, read_batches
from headstart.finetuning.network import Classifier, smoothed_loss
from headstart.finetuning.rows import autocast

_REPEATS, _LONG_RUN = 2, 0.5
_PROBE_ITEMS, _SLOW_ITEM = 8, 0.05
_READ_BYTES, _READS = 16 * 2**20, 3


@dataclass(frozen=True)
class StepCost:
    """Cost of one training step, an item.

    Attributes:
        seconds: forward and backward, an item.
        activations: bytes kept for the backward pass, an item; each tensor once.
    """

    seconds: float
    activations: int


@contextmanager
def as_planned(network: Classifier, trainable: Sequence[str]) -> Iterator[None]:
    """Give gradients to what trains in a stage, in evaluation mode; undo both afterwards.

    Evaluation mode costs the same time, and leaves statistics and generators alone. Gradients that
    a loop of the user's has left are put aside, and put back.
    """
    modes = [(part, part.training) for part in network.modules()]
    before = [(one, one.requires_grad, one.grad) for one in network.parameters()]
    chosen = set(trainable)
    network.eval()
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name in chosen)
        parameter.grad = None
    try:
        yield
    finally:
        for parameter, wanted, gradient in before:
            parameter.requires_grad_(wanted)
            parameter.grad = gradient
        for part, training in modes:
            part.training = training


def step_cost(
    forward: nn.Module, inputs: tuple[Tensor, ...], n_classes: int, precision: str
) -> StepCost:
    """Measure a training step: the best of two after a first one, or one where it takes long.

    Args:
        forward: from ``inputs`` to logits. What is saved of its own tensors counts as no
            activation.
        inputs: each ``(n, ...)``.
        n_classes: of the logits.
        precision: of forward and backward.
    """
    device, count = inputs[0].device, len(inputs[0])
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
            logits = forward(*inputs)
        torch.autograd.backward(smoothed_loss(logits, labels, 0.0))

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        step()
    return StepCost(_best(step, device) / count, sum(sizes.values()) // count)


def boundary_of(
    prefix: nn.Module, inputs: Tensor, precision: str
) -> tuple[tuple[Tensor, ...], float]:
    """Run a prefix once that has run before; return the boundary and its time, an item."""
    device = inputs.device
    wait = _waiting(device)
    wait()
    begun = time.perf_counter()
    with torch.no_grad(), autocast(precision, device):
        boundary: tuple[Tensor, ...] = prefix(inputs)
    wait()
    seconds = (time.perf_counter() - begun) / len(inputs)
    return tuple(tensor.clone() for tensor in boundary), seconds


def _best(work: Callable[[], None], device: torch.device) -> float:
    wait = _waiting(device)
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


def _waiting(device: torch.device) -> Callable[[], Any]:
    if device.type == "cuda":
        return lambda: torch.cuda.synchronize(device)
    return lambda: None


def decode_seconds(split: Split, preprocessing: Preprocessing, workers: int | None) -> float:
    """Measure reading and decoding, in seconds an item, on 64 items spread over the split."""
    places = np.unique(np.linspace(0, len(split) - 1, num=min(64, len(split)), dtype=np.int64))
    begun = time.perf_counter()
    for _ in read_batches(
        split, places, preprocessing, batch_size=16, workers=workers, on_bad="skip"
    ):
        pass
    return (time.perf_counter() - begun) / len(places)


class Disk:
    """The disk under a folder, measured by a file of 16 MiB that is written there and removed.

    Args:
        folder: where rows will lie; it may not exist yet.

    Attributes:
        write_seconds: to write a byte, until it is on the disk.
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

    def read_seconds(self, row_bytes: int, fits: bool) -> float:
        """Measure reading rows in random order, in seconds an item.

        Args:
            row_bytes: of one row.
            fits: whether all rows fit into memory: they are then read from the page cache, else
                after it was told to forget them.
        """
        if (row_bytes, fits) not in self._known:
            self._known[row_bytes, fits] = self._read(row_bytes, fits)
        return self._known[row_bytes, fits]

    def _read(self, row_bytes: int, fits: bool) -> float:
        # A row that is larger than the file is measured by a part of it.
        width = min(row_bytes, _READ_BYTES // 8)
        rows = min(4096, _READ_BYTES // max(1, width))
        order = np.random.default_rng(0).permutation(rows)
        times = []
        for _ in range(_READS):  # the file is small: one hiccup would be most of its time
            if not fits and hasattr(os, "posix_fadvise"):
                with self._path.open("rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            stored = np.memmap(self._path, np.uint8, "r", shape=(rows, width))
            begun = time.perf_counter()
            for start in range(0, rows, 32):
                stored[np.sort(order[start : start + 32])]
            times.append(time.perf_counter() - begun)
            del stored  # pages that are mapped are not forgotten
        return min(times) / rows * (row_bytes / width)


def probe_items(network: Classifier) -> int:
    """Return how many items to measure on: fewer on a processor where one takes long."""
    example = network.source.probe(2)
    if example.device.type != "cpu":
        return _PROBE_ITEMS
    with as_planned(network, ()), torch.no_grad():
        begun = time.perf_counter()
        network(example)
        seconds = (time.perf_counter() - begun) / len(example)
    return _PROBE_ITEMS if seconds < _SLOW_ITEM else _PROBE_ITEMS // 2


__all__ = [
    "Disk",
    "StepCost",
    "as_planned",
    "boundary_of",
    "decode_seconds",
    "probe_items",
    "step_cost",
]
