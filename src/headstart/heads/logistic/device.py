"""Where the many-heads solver runs: on the processor, or on a CUDA device."""

from __future__ import annotations

import torch

from headstart.core.errors import HeadError
from headstart.heads.source import memory_share

# Below this many numbers the processor needs seconds, about what starting CUDA and copying cost. An
# estimate: no device was at hand to measure it on.
_WORTH_A_DEVICE = 5_000_000
_DEVICE_SHARE = 0.4


def choose_device(device: str | torch.device, shape: tuple[int, int]) -> torch.device:
    """Return the device to solve on.

    Args:
        device: ``cpu``, ``cuda``, ``cuda:1``, ...; ``auto`` takes CUDA where there is one and the
            features hold five million numbers or more.
        shape: of the features.

    Raises:
        HeadError: it is neither the processor nor CUDA, or it is not there.
    """
    if device == "auto":
        large = shape[0] * shape[1] >= _WORTH_A_DEVICE
        return torch.device("cuda" if large and torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise HeadError(f"expected a device such as cpu or cuda, found {device!r}") from error
    if found.type not in ("cpu", "cuda"):
        raise HeadError(f"heads are solved on cpu or cuda, not on {device!r}")
    if found.type == "cuda" and not (found.index or 0) < torch.cuda.device_count():
        there = torch.cuda.device_count()
        raise HeadError(
            f"device '{device}' does not exist: torch finds {there} CUDA devices",
            hint="use the device 'cpu', or 'auto'",
        )
    return found


def memory_limit(device: torch.device) -> int:
    """Return the bytes that a copy of the features may take on the device."""
    if device.type == "cpu":
        return memory_share()
    free, _ = torch.cuda.mem_get_info(device)
    return int(_DEVICE_SHARE * free)
