"""Precisions of a forward pass: their names, how to run in them, and how far rows may be off."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from headstart.core.records import Precision

TOLERANCE = {"float32": 1e-3, "bfloat16": 1e-1, "float16": 2e-2}
"""The largest change of a row, relative to the largest feature of the batch, that is rounding.

Kernels chosen by batch shape change float32 features by about 1e-6 and bfloat16 ones by about
1e-2; statistics taken from the batch change them by 0.1 and more.
"""

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@contextlib.contextmanager
def autocast(precision: Precision, device: torch.device) -> Iterator[None]:
    """Run in a precision: float32 runs unchanged, the others under torch's autocast."""
    with torch.autocast(device.type, dtype=_DTYPES.get(precision), enabled=precision != "float32"):
        yield


__all__ = ["TOLERANCE", "Precision", "autocast"]
