"""The part of a machine that one of several workers on it has: threads, and a device."""

from __future__ import annotations

import dataclasses
import os

import torch

from headstart.data.reading import default_workers
from headstart.runners.job import Job


def threads_of(count: int) -> None:
    """Give this process its share of the processors, where OMP_NUM_THREADS does not say."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // count))


def settings_of(job: Job, index: int, count: int, threads: int | None = None) -> Job:
    """Return the job as one of several workers of this machine does it.

    Args:
        job: the job.
        index: of the worker, from 0; on several CUDA devices it has one to itself.
        count: workers of this machine.
        threads: that decode, where the settings do not say; None: its share of the processors.
    """
    settings = job.settings
    if settings.workers is None:
        share = max(1, default_workers() // count) if threads is None else threads
        settings = dataclasses.replace(settings, workers=share)
    devices = torch.cuda.device_count() if settings.device in ("auto", "cuda") else 0
    if devices > 1:
        settings = dataclasses.replace(settings, device=f"cuda:{index % devices}")
    return dataclasses.replace(job, settings=settings)


__all__ = ["settings_of", "threads_of"]
