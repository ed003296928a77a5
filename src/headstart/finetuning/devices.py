"""The devices that train together: each takes a share of every batch, and all learn the same.

One device needs none of this: for :data:`ALONE` every method returns at once. Several devices are
processes of one ``torch.distributed`` group. A batch is divided among them and gradients are summed
over it, so that every process takes the step that a single device would have taken.

Gradients are summed by one collective per step, and not by wrapping the network for DDP: the loop
forwards through the network or through the suffix of a cut that shares its parameters, parts thaw
from stage to stage, and a share may be empty. A wrapper would have to be rebuilt for all of that; a
sum over the parameters that train is right in every case.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, distributed, nn

from headstart.finetuning.feeds import Batch, Feed, Index
from headstart.finetuning.network import Classifier
from headstart.finetuning.recipe import Recipe
from headstart.modules.kinds import is_batch_only_norm, is_running_norm

T = TypeVar("T")


class Devices:
    """The devices of a job, as one of their processes sees them.

    Args:
        rank: number of this process, from 0.
        size: number of processes. With more than one, the process group exists already.
        device: where this process computes; None: wherever it likes.
    """

    def __init__(self, rank: int = 0, size: int = 1, device: torch.device | None = None) -> None:
        self.rank, self.size, self.device = rank, size, device
        # A group of its own for decisions, without a timeout, since the others wait while the main
        # process stores rows; over gloo, which notices at once when a process is gone.
        self._decisions: Any = None
        if size > 1 and distributed.is_initialized():
            self._decisions = distributed.new_group(backend="gloo", timeout=timedelta(days=365))

    @property
    def main(self) -> bool:
        """Whether this process writes, reports, and decides for all."""
        return self.rank == 0

    # Doing things in order

    @contextlib.contextmanager
    def main_first(self) -> Iterator[None]:
        """Let the main process go through the block before the others do."""
        if not self.main:
            self.once(lambda: None)
        yield
        if self.main:
            self.once(lambda: None)

    def once(self, compute: Callable[[], T]) -> T:
        """Let the main process compute a value, however long it takes, and give it to all."""
        if self.size == 1:
            return compute()
        box = [compute() if self.main else None]
        distributed.broadcast_object_list(box, src=0, group=self._decisions)
        return cast(T, box[0])

    # The same numbers everywhere

    def share(self, module: nn.Module) -> None:
        """Give all processes the parameters and buffers of the main one, in place."""
        if self.size == 1:
            return
        with torch.no_grad():
            for tensor in (*module.parameters(), *module.buffers()):
                # A tensor of a process's own need not be contiguous; what is sent has to be.
                sent = tensor.detach().contiguous()
                distributed.broadcast(sent, src=0)
                tensor.copy_(sent)

    def total(self, values: Tensor) -> Tensor:
        """Return the sum over the processes: the same bits in each, since decisions hang on it."""
        if self.size == 1:
            return values
        gathered = [torch.empty_like(values) for _ in range(self.size)]
        distributed.all_gather(gathered, values)
        return torch.stack(gathered).sum(0)

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace every gradient by the sum over the processes.

        A parameter that has a gradient nowhere keeps having none, so that the optimizer leaves it
        alone as it would on one device.
        """
        if self.size == 1:
            return
        own = [p.grad for p in parameters]
        device, dtype = parameters[0].device, _widest(parameters)
        pieces = [torch.tensor([g is not None for g in own], device=device).to(dtype)]
        for parameter, gradient in zip(parameters, own, strict=True):
            pieces.append(
                torch.zeros(parameter.numel(), device=device, dtype=dtype)
                if gradient is None
                else gradient.detach().reshape(-1).to(dtype)
            )
        flat = torch.cat(pieces)
        distributed.all_reduce(flat)
        sizes = [len(own), *(p.numel() for p in parameters)]
        known, *places = torch.split(flat, sizes)
        # With an empty share there is no gradient to tell by; elsewhere reading the sum would
        # only make the host wait for the device.
        empty = all(gradient is None for gradient in own)
        anywhere = known.tolist() if empty else [gradient is not None for gradient in own]
        for parameter, found, summed in zip(parameters, anywhere, places, strict=True):
            if found:
                parameter.grad = summed.view_as(parameter).to(parameter.dtype)

    # Batches

    def batches(
        self, feed: Feed, order: Index, batch_size: int, view: int
    ) -> Iterator[tuple[int, Batch | None]]:
        """Yield the size of each batch, and this process's share of it: None where it is empty.

        Every process sees the same batches in the same order; the first ones take an item more
        where a batch does not divide evenly.

        Args:
            feed: gives the inputs.
            order: ``(n,)``, the items of all processes.
            batch_size: items a batch, over all processes.
            view: see :meth:`~headstart.finetuning.feeds.Feed.batches`.
        """
        if self.size == 1:
            for batch in feed.batches(order, batch_size, view):
                yield len(batch[0]), batch
            return
        whole = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
        mine = [np.array_split(items, self.size)[self.rank] for items in whole]
        # No share is larger than that of a whole batch: the feed, too, ends a batch where one ends.
        largest = len(mine[0]) if mine else 0
        own = feed.batches(np.concatenate(mine), largest, view) if largest else iter(())
        for items, part in zip(whole, mine, strict=True):
            yield len(items), next(own) if len(part) else None


ALONE = Devices()
"""One process on one device."""


def refusals(network: Classifier, recipe: Recipe, count: int) -> list[str]:
    """Return why a recipe cannot be divided among ``count`` devices, one sentence a stage.

    Statistics of a batch would be those of each device's share. Synchronised batch norms would
    replace the modules that the freeze contract and the cut speak of, and exist on CUDA only; so
    batch statistics are for one device.
    """
    if count == 1:
        return []
    live = network.live_modules()
    parts = [(name, part) for name, part in network.named_modules() if name in live]
    found = []
    if any(is_running_norm(part) for _, part in parts):
        for stage in recipe.stages:
            if stage.batch_statistics:
                setting = "norm 'batch'" if stage.norm == "batch" else "frozen 'requires-grad-only'"
                found.append(
                    f"stage '{stage.name}': {setting} normalises by the batch, which {count}"
                    " devices would divide; use norm 'running' or 'reestimated', or one device"
                )
    for name, part in parts:
        if is_batch_only_norm(part):
            found.append(
                f"'{name}' always normalises by the batch, which {count} devices would divide;"
                " use one device"
            )
    return found


def _widest(parameters: Sequence[nn.Parameter]) -> torch.dtype:
    dtype = parameters[0].dtype
    for parameter in parameters[1:]:
        dtype = torch.promote_types(dtype, parameter.dtype)
    return dtype


__all__ = ["ALONE", "Devices", "refusals"]
