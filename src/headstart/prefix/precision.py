"""How boundary tensors are stored: float32, float16 or bfloat16, each with its measured error."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headstart.core.errors import ConfigError
from headstart.prefix.boundary import TensorSpec
from headstart.store.columns import encode

Dtype = Literal["float32", "float16", "bfloat16"]
Array = NDArray[Any]


@dataclass(frozen=True)
class RoundingError:
    """What storing a tensor in a type costs.

    Attributes:
        dtype: the type.
        max_error: the largest absolute error of a value.
        rms_error: root mean square error over root mean square value.
        fits: whether every finite value stays finite.
    """

    dtype: str
    max_error: float
    rms_error: float
    fits: bool


def checked_dtype(dtype: str) -> torch.dtype:
    """Return the torch type of a name.

    Raises:
        ConfigError: it is not one of the three.
    """
    if dtype not in get_args(Dtype):
        raise ConfigError((f"dtype is one of {', '.join(get_args(Dtype))}, not {dtype!r:.80}",))
    found = getattr(torch, dtype)
    assert isinstance(found, torch.dtype)
    return found


def rounding_error(values: Tensor, dtype: Dtype) -> RoundingError:
    """Measure the error of storing a floating tensor in ``dtype``.

    Args:
        values: any shape, a floating type.
        dtype: ``float32``, ``float16`` or ``bfloat16``.
    """
    kind = checked_dtype(dtype)
    wide = values.detach().cpu().double()
    if dtype == "float16":
        # The store's own measure, which falls back to float32 where a value exceeds 65504.
        stored = encode("boundary", wide.float().flatten(0).numpy(), "float16")
        fits = stored.note is None
        return RoundingError(dtype, stored.spec.max_error, stored.spec.rms_error, fits)
    rounded = wide.to(kind).double()
    finite = wide.isfinite()
    fits = bool(rounded[finite].isfinite().all())
    if not fits or not bool(finite.any()):
        return RoundingError(dtype, math.inf if not fits else 0.0, 0.0, fits)
    error, exact = (rounded - wide)[finite], wide[finite]
    power = float(exact.square().mean())
    rms = math.sqrt(float(error.square().mean()) / power) if power > 0 else 0.0
    return RoundingError(dtype, float(error.abs().max()), rms, fits)


def to_array(rows: Tensor, spec: TensorSpec) -> Array:
    """Return rows ``(n, *shape)`` as the store takes them.

    NumPy has no bfloat16: its bits are kept as ``uint16``.
    """
    stored = rows.detach().to(getattr(torch, spec.dtype)).cpu().contiguous()
    if stored.dtype == torch.bfloat16:
        stored = stored.view(torch.uint16)
    array: Array = stored.numpy()
    return array


def from_array(array: Array, spec: TensorSpec) -> Tensor:
    """Return what :func:`to_array` gave as a tensor of ``spec.dtype``, without a copy if it can."""
    if not array.flags.writeable:
        array = array.copy()  # torch has no read-only tensors
    rows = torch.from_numpy(np.ascontiguousarray(array))
    return rows.view(torch.bfloat16) if spec.dtype == "bfloat16" else rows


__all__ = ["Dtype", "RoundingError", "checked_dtype", "from_array", "rounding_error", "to_array"]
