"""The part of a machine that one of several workers on it has: threads, and a device."""

from __future__ import annotations

import dataclasses
import os

import torch

from headstart.data.reading import default_workers
from headstart.extraction import Extraction
from headstart.runners.job import Job


def threads_of(count: int) -> None:
    """Give this process its share of the processors, where OMP_NUM_THREADS does not say."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // count))


def settings_of(job: Job, index: int, count: int, threads: int | None = None) -> Job:
    """Return the job as one of several workers of this machine does it.

    Args:
        job: the job.
        index: of the worker, from 0; of several devices it has one to itself.
        count: workers of this machine.
        threads: that decode, where the settings do not say; None: its share of the processors.
    """
    settings = job.settings
    if settings.workers is None:
        share = max(1, default_workers() // count) if threads is None else threads
        settings = dataclasses.replace(settings, workers=share)
    devices = devices_of(settings)
    if devices:
        settings = dataclasses.replace(settings, device=devices[index % len(devices)])
    return dataclasses.replace(job, settings=settings)


def on_own_device(job: Job) -> Job:
    """Return the job as an actor does it: Ray shows it its own GPUs only, counted from 0."""
    if not job.settings.device.startswith("cuda"):
        return job
    return dataclasses.replace(job, settings=dataclasses.replace(job.settings, device="cuda"))


def devices_of(settings: Extraction) -> list[str]:
    """Return the names of the devices that workers of this machine share; empty for a single one.

    Workers take what is named, and all CUDA devices where only their kind is.
    """
    if settings.device in ("auto", "cuda"):
        settings = dataclasses.replace(settings, device="cuda:all")
        if torch.cuda.device_count() < 2:
            return []
    found = settings.resolve_devices()
    return [str(device) for device in found] if len(found) > 1 else []


__all__ = ["devices_of", "on_own_device", "settings_of", "threads_of"]
