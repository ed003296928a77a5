"""What is measured beside accuracy: the causes."""

from __future__ import annotations

import dataclasses
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from headstart.backbones import Backbone
from headstart.extraction import TOLERANCE, Extraction
from headstart.modules.kinds import chance
from headstart.study import network
from headstart.study.configuration import Autograd
from headstart.study.functions import Cut, Facts, Function, running_norms

_REPEATS = 3
Rows = NDArray[np.float32]


@dataclass(frozen=True)
class Changes:
    """How rows change where nothing of their items does.

    Attributes:
        in_another_batch: the largest change of a feature when the same items stand in another
            batch, relative to the largest feature; chance switched off.
        typical: the median over items of the change of their row, relative to its length.
        on_second_pass: the largest change between two passes over the same batch, chance as
            configured, relative to the largest feature.
    """

    in_another_batch: float
    typical: float
    on_second_pass: float


@dataclass(frozen=True)
class Behaviour:
    """How a configuration treats its items, on two batches of training items.

    Attributes:
        changes: of its rows.
        peak_bytes: the most memory of tensors that one batch needs at a time, weights not
            counted; scratch memory inside kernels is not seen.
        batch: the images of that batch.
    """

    changes: Changes
    peak_bytes: int
    batch: int


@dataclass(frozen=True)
class Spread:
    """How the rows of the training items lie.

    Attributes:
        width: features.
        scale: root of the mean variance of a feature.
        constant: features that do not vary.
        dimension: effective dimension ``tr(S)^2 / tr(S^2)`` of their covariance S (the
            participation ratio): as many directions of equal variance would spread alike.
    """

    width: int
    scale: float
    constant: int
    dimension: float


@dataclass(frozen=True)
class Equality:
    """Whether ways of running that should compute one function do.

    Attributes:
        modes: the autograd modes that were run, on the same batches with the same seeds.
        batches, images: on how much.
        exact: whether all rows are equal bit for bit.
        change: else the largest difference, relative to the largest feature.
    """

    modes: tuple[Autograd, ...]
    batches: int
    images: int
    exact: bool
    change: float


def find_facts(backbone: Backbone, cuts: Sequence[Cut], inputs: Tensor) -> Facts:
    """Look for running statistics and for chance up to the deepest of the cuts.

    Args:
        backbone: the network.
        cuts: of all configurations.
        inputs: a normalised batch, for the test of chance: twice in training mode, by running
            statistics, under different seeds.
    """
    at = network.deepest(backbone, cuts)
    modules = dict(at.module.named_modules())
    kinds = [(name, chance(modules[name])) for name in at.live.modules]
    function = Function("running", None, True, False, at.preprocessing, None)
    ready = network.prepared(at, function)
    settings = Extraction()
    rows = []
    for seed in (0, 1):
        with network.seeded(seed, ready.device):
            rows.append(network.run_batch([ready], inputs, "inference", settings)[0])
    return Facts(
        norms=running_norms(at),
        chance=tuple((name, kind) for name, kind in kinds if kind is not None),
        random=_largest(*rows) > TOLERANCE["float32"] * 1e-2,
    )


def changes(
    ready: Backbone, cut: Cut, function: Function, pixels: Tensor, settings: Extraction
) -> Changes:
    """Measure how rows change with their batch and from pass to pass.

    Args:
        ready: a copy in the modes of the function.
        cut: where.
        function: what.
        pixels: ``(2 b, 3, h, w) uint8``: two batches of different items.
        settings: for the precision.
    """
    cuts = network.at_cuts(ready, [cut])
    half = len(pixels) // 2
    keep = max(1, half // 2)
    inputs = function.preprocessing.normalise(pixels.to(ready.device))
    here, elsewhere = inputs[:half], torch.cat([inputs[:keep], inputs[half : 2 * half - keep]])

    def run(seed: int, batch: Tensor, source: Sequence[Backbone] = cuts) -> Tensor:
        with network.seeded(seed, ready.device):
            return network.run_batch(source, batch, "inference", settings)[0]

    first, again = run(0, here), run(1, here)
    if function.dropout:
        calm = network.prepared(ready, dataclasses.replace(function, dropout=False))
        quiet = network.at_cuts(calm, [cut])
        one, other = run(0, here, quiet)[:keep], run(0, elsewhere, quiet)[:keep]
    else:
        one, other = first[:keep], run(0, elsewhere)[:keep]
    lengths = one.flatten(1).norm(dim=1).clamp_min(1e-12)
    typical = ((one - other).flatten(1).norm(dim=1) / lengths).median()
    return Changes(_largest(one, other), float(typical), _largest(first, again))


def seconds_per_image(
    cuts: Sequence[Backbone], inputs: Tensor, autograd: Autograd, settings: Extraction
) -> float:
    """Return the shortest time of some forward passes, an image; decoding is not in it.

    What else a machine does makes a pass longer and never shorter.
    """
    times = []
    with network.seeded(0, inputs.device):
        for _ in range(_REPEATS):
            begun = time.perf_counter()
            outputs = network.run_batch(cuts, inputs, autograd, settings)
            float(outputs[0].sum())  # waits for a device that runs ahead
            times.append(time.perf_counter() - begun)
    return min(times) / len(inputs)


def equality(
    ready: Backbone,
    cuts: Sequence[Cut],
    modes: Sequence[Autograd],
    batches: Sequence[Tensor],
    settings: Extraction,
) -> Equality:
    """Run the same batches under several autograd modes, with equal seeds, and compare bits.

    Args:
        ready: a copy in the modes of the function.
        cuts: all of them are compared.
        modes: two or more.
        batches: normalised inputs.
        settings: for the precision.
    """
    at = network.at_cuts(ready, cuts)
    found: dict[Autograd, list[Tensor]] = {}
    for mode in modes:
        with network.seeded(0, ready.device):
            found[mode] = [
                row for batch in batches for row in network.run_batch(at, batch, mode, settings)
            ]
    first = found[modes[0]]
    pairs = [(a, b) for mode in modes[1:] for a, b in zip(first, found[mode], strict=True)]
    return Equality(
        modes=tuple(modes),
        batches=len(batches),
        images=sum(len(batch) for batch in batches),
        exact=all(torch.equal(a, b) for a, b in pairs),
        change=max((_largest(a, b) for a, b in pairs), default=0.0),
    )


def moved_statistics(
    backbone: Backbone, norms: Sequence[str], batches: Sequence[Tensor]
) -> dict[str, float]:
    """Run a copy in plain training mode, and return how far each running mean moved.

    The unit is the layer's own running standard deviation; the mean over channels.
    """
    ready = network.copied(backbone)
    ready.module.train()
    before = {name: _statistics(ready, name) for name in norms}
    settings = Extraction()
    with network.seeded(0, ready.device):
        for batch in batches:
            network.run_batch([ready], batch, "no_grad", settings)
    moved = {}
    for name, (mean, var) in before.items():
        shift = (_statistics(ready, name)[0] - mean).abs() / (var + 1e-12).sqrt()
        moved[name] = float(shift.mean())
    return moved


def spread(rows: Rows) -> Spread:
    """Measure how rows lie; ``(n, d) float32``."""
    centred = rows.astype(np.float64)
    centred -= centred.mean(axis=0)
    deviation = np.sqrt((centred**2).mean(axis=0))
    n, d = centred.shape
    # tr(S^2) is the same for the smaller of the two Gram matrices.
    gram = centred.T @ centred if d <= n else centred @ centred.T
    total, squared = float(np.trace(gram)), float((gram**2).sum())
    return Spread(
        width=d,
        scale=float(np.sqrt((deviation**2).mean())),
        constant=int((deviation <= 1e-6 * max(float(np.abs(rows).max()), 1e-12)).sum()),
        dimension=total**2 / squared if squared > 0 else 0.0,
    )


def peak_bytes(
    cuts: Sequence[Backbone], inputs: Tensor, autograd: Autograd, settings: Extraction
) -> int:
    """Return the most memory of tensors that live at a time while one batch runs."""
    module = cuts[0].module
    with (
        network.seeded(0, inputs.device),
        _memory([*module.parameters(), *module.buffers(), inputs]) as memory,
    ):
        outputs = network.run_batch(cuts, inputs, autograd, settings)
    del outputs
    return memory.peak


class _Memory(TorchDispatchMode):
    """Counts the bytes of storages that operations make, until they are freed.

    Unlike the resident memory of a process, it does not depend on what else the process does.
    """

    def __init__(self, known: Mapping[int, int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.sizes = dict(known)
        self.live = self.peak = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        output = func(*args, **dict(kwargs or {}))
        for value in tree_leaves(output):
            if isinstance(value, Tensor):
                self._count(value)
        return output

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self.sizes:
            return
        self.sizes[key] = storage.nbytes()
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._freed, key)

    def _freed(self, key: int) -> None:
        self.live -= self.sizes.pop(key, 0)


@contextmanager
def _memory(known: Sequence[Tensor]) -> Iterator[_Memory]:
    with _Memory({tensor.untyped_storage()._cdata: 0 for tensor in known}) as memory:
        yield memory


def _statistics(backbone: Backbone, name: str) -> tuple[Tensor, Tensor]:
    layer = backbone.module.get_submodule(name)
    mean, var = layer.get_buffer("running_mean"), layer.get_buffer("running_var")
    return mean.double().cpu().clone(), var.double().cpu().clone()


def _largest(one: Tensor, other: Tensor) -> float:
    scale = max(float(one.abs().max()), float(other.abs().max()), 1e-12)
    return float((one - other).abs().max()) / scale


__all__ = [
    "Behaviour",
    "Changes",
    "Equality",
    "Spread",
    "changes",
    "equality",
    "find_facts",
    "moved_statistics",
    "peak_bytes",
    "seconds_per_image",
    "spread",
]
