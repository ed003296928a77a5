"""Settings of torch's compiler, set while it compiles and restored."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def quiet_compiler() -> Iterator[None]:
    """Keep the compiler from saying, on CPUs, that there is no CUDA, as its import does."""
    logger = logging.getLogger("torch.utils.cpp_extension")
    level = logger.level
    try:
        logger.setLevel(logging.ERROR)
        yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def freezing(device: torch.device) -> Iterator[None]:
    """Let weights be constants of a program."""
    with quiet_compiler():
        import torch._inductor.config as settings

        # On CUDA, weights as constants would be held twice for a gain that is small.
        with settings.patch(freezing=device.type == "cpu"):
            yield


__all__ = ["freezing", "quiet_compiler"]
