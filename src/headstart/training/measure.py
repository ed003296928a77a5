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

from headstart.data import Preprocessing, Split, read_batches
from headstart.training.network import Classifier, smoothed_loss
from headstart.training.rows import autocast

_REPEATS = 2
_READ_BYTES = 16 * 2**20


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

    Evaluation mode costs the same time, and leaves statistics and generators alone.
    """
    modes = [(part, part.training) for part in network.modules()]
    gradients = [(parameter, parameter.requires_grad) for parameter in network.parameters()]
    chosen = set(trainable)
    network.eval()
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name in chosen)
    try:
        yield
    finally:
        for parameter, wanted in gradients:
            parameter.requires_grad_(wanted)
            parameter.grad = None
        for part, training in modes:
            part.training = training


def step_cost(
    forward: Callable[..., Tensor], inputs: tuple[Tensor, ...], n_classes: int, precision: str
) -> StepCost:
    """Measure a training step: the best of two after a first one.

    Args:
        forward: from ``inputs`` to logits.
        inputs: each ``(n, ...)``.
        n_classes: of the logits.
        precision: of forward and backward.
    """
    device, count = inputs[0].device, len(inputs[0])
    labels = torch.arange(count, device=device) % n_classes
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    def step() -> None:
        with autocast(precision, device):
            logits = forward(*inputs)
        torch.autograd.backward(smoothed_loss(logits, labels, 0.0))

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        step()
    return StepCost(_best(step, device) / count, sum(sizes.values()) // count)


def forward_seconds(module: nn.Module, inputs: tuple[Tensor, ...], precision: str) -> float:
    """Measure a forward pass without autograd, in seconds an item."""
    device = inputs[0].device

    def once() -> None:
        with torch.no_grad(), autocast(precision, device):
            module(*inputs)

    once()
    return _best(once, device) / len(inputs[0])


def _best(work: Callable[[], None], device: torch.device) -> float:
    wait: Callable[[], Any] = (
        (lambda: torch.cuda.synchronize(device)) if device.type == "cuda" else (lambda: None)
    )
    times = []
    for _ in range(_REPEATS):
        wait()
        begun = time.perf_counter()
        work()
        wait()
        times.append(time.perf_counter() - begun)
    return min(times)


def decode_seconds(split: Split, preprocessing: Preprocessing, workers: int | None) -> float:
    """Measure reading and decoding, in seconds an item, on 64 items spread over the split."""
    places = np.unique(np.linspace(0, len(split) - 1, num=min(64, len(split)), dtype=np.int64))
    begun = time.perf_counter()
    for _ in read_batches(
        split, places, preprocessing, batch_size=16, workers=workers, on_bad="skip"
    ):
        pass
    return (time.perf_counter() - begun) / len(places)


def read_seconds(folder: Path, row_bytes: int, fits: bool) -> float:
    """Measure reading rows in random order, in seconds an item.

    A file of up to 16 MiB is written where the rows will lie, and read back: from the page cache
    where all rows fit into memory (``fits``), else after the cache was told to forget it.
    """
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    rows = max(8, min(4096, _READ_BYTES // max(1, row_bytes)))
    path = place / f".headstart-probe-{secrets.token_hex(8)}"
    try:
        with path.open("wb") as file:
            file.write(os.urandom(row_bytes * rows))
            file.flush()
            os.fsync(file.fileno())
            if not fits and hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        stored = np.memmap(path, np.uint8, "r", shape=(rows, row_bytes))
        order = np.random.default_rng(0).permutation(rows)
        begun = time.perf_counter()
        for start in range(0, rows, 32):
            stored[np.sort(order[start : start + 32])]
        return (time.perf_counter() - begun) / rows
    finally:
        path.unlink(missing_ok=True)


__all__ = [
    "StepCost",
    "as_planned",
    "decode_seconds",
    "forward_seconds",
    "read_seconds",
    "step_cost",
]
