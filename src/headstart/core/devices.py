"""What torch does differently from device to device: waiting, memory, generators, failures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

_OUT_OF_MEMORY = ("out of memory", "not enough memory", "can't allocate")
_FAILURES = ("cuda", "cudnn", "cublas", "mps backend", "hip error", "device-side assert")


def synchronize(device: torch.device) -> None:
    """Wait until a device has done what it was given; a CPU has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def empty_cache(device: torch.device) -> None:
    """Give back the memory that torch keeps for later on a device."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def generators(devices: Iterable[torch.device]) -> list[torch.Generator]:
    """Return torch's own generators: that of the CPU, then those of other devices, each once."""
    found: dict[str, torch.Generator] = {"cpu": torch.default_generator}
    for device in devices:
        if device.type == "cuda":
            index = torch.cuda.current_device() if device.index is None else device.index
            found[f"cuda:{index}"] = torch.cuda.default_generators[index]
        elif device.type == "mps":
            made: Any = torch.mps._get_default_mps_generator  # there is no public name
            found["mps"] = made()
    return list(found.values())


def doubled(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor in float64, or complex128: where it is, or on the CPU where that has none."""
    if tensor.device.type == "mps":
        tensor = tensor.cpu()
    return tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)


def widest_float(device: torch.device) -> torch.dtype:
    """Return the widest floating type that a device computes in."""
    return torch.float32 if device.type == "mps" else torch.float64


@contextmanager
def kept_randomness(
    devices: Iterable[torch.device] = (), seed: int | None = None
) -> Iterator[None]:
    """Restore the states of torch's generators on exit.

    Args:
        devices: whose generators, beside that of the CPU; those of others are not touched.
        seed: of all of them inside; None: they go on as they are.
    """
    own = generators(devices)
    states = [generator.get_state() for generator in own]
    try:
        if seed is not None:
            for generator in own:
                generator.manual_seed(seed)
        yield
    finally:
        for generator, state in zip(own, states, strict=True):
            generator.set_state(state)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an operation needed more memory than its device, or this machine, has."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return any(said in text for said in _OUT_OF_MEMORY)


def is_of_device(error: RuntimeError) -> bool:
    """Whether a device failed, rather than the code that runs on it."""
    if is_out_of_memory(error) or isinstance(error, getattr(torch, "AcceleratorError", ())):
        return True
    text = str(error).lower()
    return any(said in text for said in _FAILURES) and "error" in text


__all__ = [
    "doubled",
    "empty_cache",
    "generators",
    "is_of_device",
    "is_out_of_memory",
    "kept_randomness",
    "synchronize",
    "widest_float",
]
