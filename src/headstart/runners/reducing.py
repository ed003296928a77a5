"""Who adds up what many parts of rows give: processes of this machine, or tasks on Ray.

What :func:`over_processes` and :func:`over_ray` yield is the ``over`` of
:func:`~headstart.heads.ridge_over` and its siblings. Parts are dealt out in as many groups as keep
all workers busy; a worker adds up its group and returns one sum, so that little travels. Sums come
back in the order of the parts: the same number of workers gives the same digits.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from headstart.core.errors import HeadstartError, MissingExtraError
from headstart.heads.merges import M, Over, RowPart, merged
from headstart.runners.joining import joined
from headstart.runners.on_machine import threads_of
from headstart.runners.table import Crew

_GROUPS_EACH = 4  # a worker has so many groups, so that a slow one does not hold up the rest


@contextlib.contextmanager
def over_processes(workers: int | None = None) -> Iterator[Over]:
    """Add up parts in processes of this machine, which last as long as the context.

    Args:
        workers: how many; None: one for each processor.

    Raises:
        HeadstartError: a process was killed.
    """
    count = workers or os.cpu_count() or 1
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, context, threads_of, (count,)) as pool:

        def over(function: Callable[[RowPart], M], parts: Sequence[RowPart]) -> Iterable[M]:
            try:
                calls = [pool.submit(_group_sum, function, group) for group in _dealt(parts, count)]
                for call in calls:
                    yield call.result()
            except BrokenProcessPool as error:
                raise HeadstartError(
                    "a process that added up rows was killed",
                    hint="find out what ends it (memory, a scheduler limit), or use fewer workers",
                ) from error

        yield over


@contextlib.contextmanager
def over_ray(address: str | None = None, workers: int | None = None) -> Iterator[Over]:
    """Add up parts in tasks on Ray, which repeats those whose node dies.

    Args:
        address: of a cluster that runs; None: one of this machine, for as long as the context.
        workers: tasks at a time; None: one for each processor of the cluster.

    Raises:
        MissingExtraError: Ray is not installed.
        ConfigError: there is no cluster at the address.
    """
    try:
        ray: Any = importlib.import_module("ray")
    except ImportError:
        raise MissingExtraError("ray", "ray", "over_ray") from None
    with joined(ray, Crew("ray", workers=workers, address=address)):
        count = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
        task = ray.remote(num_cpus=1, max_retries=5)(_group_sum)
        kept: dict[int, tuple[Sequence[RowPart], list[Any]]] = {}  # parts travel once

        def over(function: Callable[[RowPart], M], parts: Sequence[RowPart]) -> Iterable[M]:
            if id(parts) not in kept:
                kept[id(parts)] = (parts, [ray.put(group) for group in _dealt(parts, count)])
            waiting: deque[Any] = deque()
            shared = ray.put(function)
            for group in kept[id(parts)][1]:
                waiting.append(task.remote(shared, group))
                if len(waiting) >= 2 * count:
                    yield ray.get(waiting.popleft())
            while waiting:
                yield ray.get(waiting.popleft())

        yield over


def _dealt(parts: Sequence[RowPart], workers: int) -> list[list[RowPart]]:
    """Divide parts into groups of neighbours."""
    size = max(1, -(-len(parts) // (workers * _GROUPS_EACH)))
    return [list(parts[start : start + size]) for start in range(0, len(parts), size)]


def _group_sum(function: Callable[[RowPart], M], parts: Sequence[RowPart]) -> M:
    return merged(map(function, parts))


__all__ = ["over_processes", "over_ray"]
