"""One pass over several devices: each batch goes to the first that is free, rows come in order.

Every device has a replica of the network and a thread that feeds it. Decoding is shared, and so are
the bounds of memory: a batch for each device is being computed, and one more waits.
"""

from __future__ import annotations

import contextlib
import copy
import queue
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

from headstart.backbones import Backbone
from headstart.core.devices import is_of_device
from headstart.core.errors import BackboneError, HeadstartError
from headstart.extraction.replica import Replica, Rows

T = TypeVar("T")

Work = Callable[[Replica, T], list[tuple[slice, Rows]]]
"""Computes one batch on a replica."""


def names_of(devices: Sequence[torch.device]) -> list[str]:
    """Return a name for each device; one that comes several times is counted."""
    times, seen = Counter(map(str, devices)), Counter[str]()
    names = []
    for device in map(str, devices):
        seen[device] += 1
        names.append(device if times[device] == 1 else f"{device} ({seen[device]})")
    return names


def copied(cuts: Sequence[Backbone], name: str) -> tuple[Backbone, ...]:
    """Return the cuts around a copy of the network, for another device.

    Raises:
        BackboneError: it cannot be copied.
    """
    try:
        twin = copy.deepcopy(cuts[0].module)
    except Exception as error:  # whatever a user's module raises
        raise BackboneError(
            f"{cuts[0].name} cannot be copied to {name} ({type(error).__name__})",
            hint="use one device, such as device='cuda', or give each its own process with"
            " runner='processes'",
        ) from error
    return tuple(cut.around(twin) for cut in cuts)


def dispatched(
    batches: Iterable[T], replicas: Sequence[Replica], work: Work[T]
) -> Iterator[tuple[T, list[tuple[slice, Rows]]]]:
    """Compute batches on the devices that are free, and yield them in order.

    The first batch is computed on the first device alone: it chooses the plan that all follow.

    Args:
        batches: on the CPU.
        replicas: one for each device.
        work: computes one batch; called in a thread for each device.

    Raises:
        HeadstartError: a device fails; it is named, and batches before it have been yielded.
    """
    free: queue.SimpleQueue[Replica] = queue.SimpleQueue()
    for replica in replicas:
        free.put(replica)

    def compute(batch: T) -> list[tuple[slice, Rows]]:
        replica = free.get()  # there are no more threads than replicas
        try:
            with _naming(replica, replicas):
                return work(replica, batch)
        finally:
            free.put(replica)

    source = iter(batches)
    for first in source:
        with _naming(replicas[0], replicas):
            found = work(replicas[0], first)
        yield first, found
        break
    pending: deque[tuple[T, Future[list[tuple[slice, Rows]]]]] = deque()
    pool = ThreadPoolExecutor(len(replicas), thread_name_prefix="headstart-device")
    try:
        for batch in source:
            pending.append((batch, pool.submit(compute, batch)))
            if len(pending) > len(replicas):
                done, task = pending.popleft()
                yield done, task.result()
        while pending:
            done, task = pending.popleft()
            yield done, task.result()
    finally:  # also when the consumer stops early
        pool.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def _naming(replica: Replica, replicas: Sequence[Replica]) -> Iterator[None]:
    """Say which device failed; an error of the network is raised as it is."""
    try:
        yield
    except RuntimeError as error:
        if not is_of_device(error):
            raise
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        others = ",".join(str(each.device) for each in replicas if each is not replica)
        raise HeadstartError(
            f"{replica.name} failed: {said}",
            hint=f"what is committed stays; continue without it, with device='{others}'",
        ) from error


__all__ = ["copied", "dispatched", "names_of"]
