"""Precisions of a forward pass: their names, how to run in them, and how far rows may be off."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

from headstart.core.devices import doubled
from headstart.core.records import INT8 as INT8
from headstart.core.records import Precision as Precision

TOLERANCE = {"float32": 1e-3, "tf32": 1e-2, "bfloat16": 1e-1, "float16": 2e-2, "int8": 5e-2}
"""The largest change of a row, relative to the largest feature of the batch, that is rounding.

Kernels chosen by batch shape change float32 features by about 1e-6 and bfloat16 ones by about
1e-2; statistics taken from the batch change them by 0.1 and more.
"""

ROW_TOLERANCE = {"float32": 1e-3, "tf32": 1e-2, "bfloat16": 5e-2, "float16": 2e-2, "int8": 2e-2}
"""How far a row of an engine may be from that of the network as it is written, in the same
precision, relative to its own length."""

AUTO_TOLERANCE = 2e-2
"""How far rows in half precision may be from those in float32, relative to their length, where
``precision='auto'`` chooses. Networks with random weights are off by 0.3 to 1 % in bfloat16."""

INT8_TENSORS = ("int8.graph", "int8.weights")
"""What a network in int8 is made of, as files name it; see :mod:`headstart.extraction.int8`."""

HALF_TYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@contextlib.contextmanager
def autocast(precision: Precision, device: torch.device) -> Iterator[None]:
    """Run in a precision: float32 runs unchanged, half precisions under torch's autocast."""
    with contextlib.ExitStack() as open_contexts:
        if precision == "tf32":
            open_contexts.enter_context(_tf32())
        half = HALF_TYPES.get(precision)
        open_contexts.enter_context(
            torch.autocast(device.type, dtype=half, enabled=half is not None)
        )
        yield


@contextlib.contextmanager
def _tf32() -> Iterator[None]:
    """Let CUDA multiply in TF32; the user's own settings return."""
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.allow_tf32, convolutions.allow_tf32
    products.allow_tf32 = convolutions.allow_tf32 = True
    try:
        yield
    finally:
        products.allow_tf32, convolutions.allow_tf32 = before


def row_errors(rows: Tensor, exact: Tensor) -> Tensor:
    """Return how far rows are from the exact ones, relative to the length of these: ``(n,)``.

    Rows that are nearly zero count against a hundredth of the longest.
    """
    one, two = doubled(rows.flatten(1)), doubled(exact.flatten(1))
    lengths = two.norm(dim=1)
    least = 0.01 * float(lengths.max()) or 1.0
    errors: Tensor = (one - two).norm(dim=1) / lengths.clamp(min=least)
    return errors


__all__ = [
    "AUTO_TOLERANCE",
    "HALF_TYPES",
    "INT8",
    "INT8_TENSORS",
    "ROW_TOLERANCE",
    "TOLERANCE",
    "Precision",
    "autocast",
    "row_errors",
]
