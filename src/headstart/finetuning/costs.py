"""What a stage costs, and whether it trains from images or from stored rows: the one cost model.

A stage can compute everything from the images in every epoch. Or it can store the output of its
frozen part once, at one of several cuts, and train from those rows. This file holds all that
decides between the two, from top to bottom:

1. Measured on a few items, on this machine: decoding (:func:`headstart.data.decode_seconds`), the
   frozen part, one training step, writing to the disk of the cache and reading from it.
2. What follows from it (:class:`StageCosts`), in seconds, for ``n`` items that train and ``v``
   that validate; validating costs a third of a step, since it has no backward pass:

   * from images, an epoch: ``n (decode + prefix + step) + v (decode + prefix + step / 3)``;
   * from rows, once: ``missing (decode + prefix + write)``, and an epoch:
     ``(n + v)(read + recompute) + (n + v / 3) step``.

3. Room: rows are held in memory where they fit into a quarter of what is free, and stored where
   they fit into nine tenths of the free disk (:class:`PlannedRows` counts what earlier stages of
   the same plan store).
4. The decision: :func:`choose_cut` says where, :func:`choose_rows` says whether.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import psutil
import torch
from torch import Tensor, nn

from headstart.core.arguments import Arguments
from headstart.core.files import existing_parent, free_bytes, write_bytes
from headstart.data import NumberedView, Split
from headstart.extraction import Precision, autocast
from headstart.finetuning.feeds import Feeds
from headstart.finetuning.gradients import gradients_for
from headstart.finetuning.network import Classifier, smoothed_loss
from headstart.finetuning.optimizers import OPTIMIZERS
from headstart.finetuning.plan import PlannedPlace
from headstart.finetuning.recipe import Stage
from headstart.finetuning.rows import BoundaryRows
from headstart.prefix import Candidate
from headstart.prefix.graph import UntraceableError

StoredMode = Literal["auto", "on", "off"]

_REPEATS, _LONG_RUN = 2, 0.5
_PROBE_ITEMS, _SLOW_ITEM = 8, 0.05
_READ_BYTES, _READS = 16 * 2**20, 3
_MEMORY_SHARE = 0.25
_FREE_SHARE = 0.9
_MUCH_CHEAPER = 0.8
"""The cut moves away from the usual one only if the stage then takes less than this share of the
time: rows at the usual cut are found again by the next run, and measured times vary a little."""
ROW_OVERHEAD = 80
"""Bytes on disk of a row's id and its place in the index."""


# 1. What is measured


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
        torch.autograd.backward(smoothed_loss(logits, labels, 0.0))

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
    if device.type == "cuda":
        return lambda: torch.cuda.synchronize(device)
    return lambda: None


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


# 2. What a stage costs


@dataclass(frozen=True)
class StageCosts:
    """The measured costs of a stage.

    Attributes:
        n_train, n_validation: items.
        rows: rows to store: one per item, or per view of a training item.
        epochs: of the stage.
        decode: seconds per item to read and decode.
        prefix: seconds per item to run the frozen part up to the usual cut.
        step: seconds per item to train what is behind it.
        memory: bytes of rows that may be held in memory.
        disk: free bytes on the disk of the cache.
    """

    n_train: int
    n_validation: int
    rows: int
    epochs: int
    decode: float
    prefix: float
    step: float
    memory: int
    disk: int

    @property
    def images_epoch(self) -> float:
        """Seconds of an epoch from images."""
        whole = self.prefix + self.step
        return self.n_train * (self.decode + whole) + self.n_validation * (
            self.decode + self.prefix + self.step / 3
        )

    def at(
        self, candidate: Candidate, usual: Candidate, missing: int | None, disk: Disk
    ) -> PlannedPlace:
        """Return what the stage costs with rows stored at a cut.

        Args:
            candidate: the cut.
            usual: the cut that :attr:`prefix` and :attr:`step` were measured at.
            missing: rows that are not stored yet; None if that is only known when the stage begins.
            disk: where the rows are stored.
        """
        # The whole prefix was timed in one run; single operations include the cost of timing them.
        scale = self.prefix / usual.prefix_seconds if usual.prefix_seconds > 0 else 1.0
        prefix = scale * candidate.prefix_seconds
        # Frozen operations behind the cut run again in every epoch. They record nothing for the
        # backward pass, so that they add only their own time.
        recompute = scale * (candidate.recomputed_seconds - usual.recomputed_seconds)
        size, items = candidate.bytes_per_item, self.n_train + self.n_validation
        in_memory = self.rows * size <= self.memory
        computed = self.rows if missing is None else missing
        storing = computed * (self.decode + prefix + size * disk.write_seconds)
        reading = items * disk.read_seconds(size, in_memory)
        behind = items * recompute + (self.n_train + self.n_validation / 3) * self.step
        epoch = max(reading + behind, 0.0)
        return PlannedPlace(
            place=candidate.place,
            boundary=tuple((spec.name, spec.shape, spec.dtype) for spec in candidate.boundary),
            bytes_per_item=size,
            bytes=self.rows * size,
            missing=missing,
            in_memory=in_memory,
            on_disk=computed * (size + ROW_OVERHEAD) <= _FREE_SHARE * self.disk,
            seconds_storing=storing,
            seconds_reading=reading,
            seconds_recomputing=items * (self.decode + prefix),
            seconds_per_epoch=epoch,
            seconds=storing + self.epochs * epoch,
        )


# 3. Room in memory and on disk


def memory_of(
    network: Classifier,
    stage: Stage,
    trainable: int,
    activations: int,
    rows: PlannedPlace | None,
) -> int:
    """Return the bytes that training a stage takes.

    Args:
        network: all its weights.
        stage: its optimizer, moving average and batch size.
        trainable: how many parameters have gradients and optimizer state.
        activations: bytes kept for the backward pass, per item.
        rows: the cut whose rows it trains on; None: it trains from images.
    """
    copies = 1 + OPTIMIZERS[stage.optimizer].state_tensors(stage) + (1 if stage.ema else 0)
    weights = sum(p.numel() * p.element_size() for p in network.parameters())
    held = rows.bytes if rows is not None and rows.in_memory else 0
    return weights + 4 * trainable * copies + activations * stage.batch_size + held


def memory_for_rows(device: torch.device) -> int:
    """Return how many bytes of rows may be held in memory; on a GPU, in the GPU's memory."""
    free = int(psutil.virtual_memory().available)
    if device.type == "cuda":
        free = min(free, int(torch.cuda.mem_get_info(device)[0]))
    return int(_MEMORY_SHARE * free)


class PlannedRows:
    """The rows that exist, or will once the stages planned so far have stored theirs.

    Args:
        feeds: the items, and the store of their rows.

    Attributes:
        disk: bytes on the disk that those stages leave free.
    """

    def __init__(self, feeds: Feeds) -> None:
        self._feeds = feeds
        self._planned: set[tuple[str, str, int]] = set()
        self.disk = free_bytes(feeds.store.root)

    def missing(self, candidate: Candidate, stage: Stage, stable: bool) -> int | None:
        """Return how many rows at a cut a stage will have to compute.

        Args:
            candidate: the cut.
            stage: the stage.
            stable: whether the frozen part is now what it will be when the stage begins; rows are
                known by its content.

        Returns:
            None if that is not known yet.
        """
        if not stable:
            return None
        if not self._planned and not self._feeds.store.root.exists():
            return sum(len(set(split.ids)) for split, _ in self._feeds.parts(stage))
        try:
            rows = self._feeds.rows(candidate, stage)
        except UntraceableError:  # such a cut cannot be built, and is not chosen
            return None
        return sum(
            rows.missing(split, view)
            for split, view in self._feeds.parts(stage)
            if self._key(rows, split, view) not in self._planned
        )

    def add(self, candidate: Candidate, at: PlannedPlace, stage: Stage, stable: bool) -> None:
        """Record that a stage will have stored its rows at a cut.

        Args:
            candidate, at: the cut, and what it costs.
            stage, stable: as for :meth:`missing`.
        """
        computed = at.bytes // at.bytes_per_item if at.missing is None else at.missing
        self.disk = max(0, self.disk - computed * (at.bytes_per_item + ROW_OVERHEAD))
        if stable:
            rows = self._feeds.rows(candidate, stage)
            self._planned |= {self._key(rows, *part) for part in self._feeds.parts(stage)}

    def _key(
        self, rows: BoundaryRows, split: Split, view: NumberedView | None
    ) -> tuple[str, str, int]:
        part = "train" if split is self._feeds.train else "validation"
        return rows.space(view).key, part, 0 if view is None else view.number


# 4. The decision


def choose_cut(
    places: Sequence[PlannedPlace], usual: int, stage: Stage, decided: str
) -> tuple[int, str]:
    """Return the number of the cut to take, and why if it is not the usual one.

    Args:
        places: the possible cuts with their costs.
        usual: the number of the one that is the same in every run and on every machine.
        stage: the stage.
        decided: the cut that an unfinished run decided on, or nothing.
    """
    for number, place in enumerate(places):
        if decided and place.place == decided:
            return number, ""
    if _acts_on_rows(stage):
        return usual, ""  # elsewhere the stage would learn something else
    fitting = [number for number, place in enumerate(places) if place.on_disk]
    if not fitting:
        return usual, ""
    best = min(fitting, key=lambda number: places[number].seconds)
    if not places[usual].on_disk:
        return best, f"the rows {places[usual].place} do not fit on the disk"
    if places[best].seconds < _MUCH_CHEAPER * places[usual].seconds:
        if places[best].missing == 0 and places[usual].missing != 0:
            return best, "its rows are stored already"
        return best, f"it is much cheaper here than {places[usual].place}"
    return usual, ""


def choose_rows(
    at: PlannedPlace, images: float, stage: Stage, mode: StoredMode, decided: str | None, disk: int
) -> tuple[bool, str]:
    """Return whether a stage trains from stored rows, and why.

    Args:
        at: the cut that was chosen.
        images: seconds of the whole stage from images.
        stage: the stage.
        mode: ``on`` stores wherever something can be cut, ``auto`` where that is faster.
        decided: the cut that an unfinished run decided on, nothing if it trained from images; None
            for a new run.
        disk: free bytes.
    """
    if not at.on_disk and decided != "":
        return False, f"the rows need {at.bytes:,} bytes, and the disk has {disk:,} free"
    if decided is not None:
        return bool(decided), "as the unfinished run decided"
    if mode == "on":
        return True, "as requested"
    if _acts_on_rows(stage):
        return True, "mixup and noise act on the stored rows"  # which timing must not decide
    words = f"{_spelled(at.seconds)} with stored rows against {_spelled(images)} without"
    if at.seconds <= images:
        return True, f"reading is cheaper: {words}"
    return False, f"recomputing is cheaper: {words}"


def _acts_on_rows(stage: Stage) -> bool:
    return stage.mixup > 0 or stage.noise > 0


def _spelled(seconds: float) -> str:
    return f"{seconds:,.0f} s" if seconds >= 100 else f"{seconds:.3g} s"


__all__ = [
    "ROW_OVERHEAD",
    "Disk",
    "PlannedRows",
    "StageCosts",
    "StepCost",
    "StoredMode",
    "choose_cut",
    "choose_rows",
    "measure_prefix",
    "measure_step",
    "memory_for_rows",
    "memory_of",
    "probe_items",
]
