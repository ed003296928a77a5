"""How values are stored: unchanged, float16 with an overflow check, or int8 with a scale per row.

The error of every shard is measured when it is written and stored with it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from headstart.core.errors import StoreError
from headstart.core.records import Storage

Array = npt.NDArray[Any]
Encoding = Literal["plain", "int8", "bool"]

SCALE_SUFFIX = ".scale"

_DTYPES = frozenset(
    ["float16", "float32", "float64", "bool"]
    + [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
)


@dataclass(frozen=True)
class ColumnSpec:
    """One column of a shard.

    Attributes:
        name: the name of the layer.
        dtype: the NumPy type that a reader returns.
        shape: the shape of one row; ``()`` is one value per row.
        encoding: how it is stored: ``plain``, ``int8`` (× float32 scale of the row) or ``bool``
            (as uint8).
        requested: the type that was requested. What is stored differs if float16 or int8 could
            not hold the values.
        max_error: the largest absolute error of a stored value; 0 if nothing was rounded.
        rms_error: root mean square error over root mean square value; 0 if nothing was rounded.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    encoding: Encoding
    requested: str
    max_error: float = 0.0
    rms_error: float = 0.0

    @property
    def row_values(self) -> int:
        """The number of values in a row."""
        return math.prod(self.shape)

    @property
    def stored_dtype(self) -> np.dtype[Any]:
        """The type of the values on disk."""
        return np.dtype({"plain": self.dtype, "int8": "int8", "bool": "uint8"}[self.encoding])

    @property
    def row_bytes(self) -> int:
        """Bytes per row on disk, without its id."""
        scale = 4 if self.encoding == "int8" else 0
        return self.row_values * self.stored_dtype.itemsize + scale

    @property
    def contract(self) -> tuple[str, tuple[int, ...], str]:
        """What all shards of a space share: name, row shape and requested type."""
        return (self.name, self.shape, self.requested)

    def to_json(self) -> dict[str, Any]:
        """Return the entry of the schema metadata."""
        return asdict(self) | {"shape": list(self.shape)}


def spec_from_json(entry: Any) -> ColumnSpec:
    """Parse one entry of ``columns``, trusting nothing.

    Raises:
        ValueError: the entry does not have the form of the specification.
    """
    names = {"name", "dtype", "shape", "encoding", "requested", "max_error", "rms_error"}
    if not isinstance(entry, dict) or set(entry) != names:
        raise ValueError("a column entry has other fields than the format says")
    shape = entry["shape"]
    sound = (
        isinstance(entry["name"], str)
        and entry["dtype"] in _DTYPES
        and isinstance(shape, list)
        and all(type(extent) is int and extent > 0 for extent in shape)
        and entry["encoding"] in get_args(Encoding)
        and isinstance(entry["requested"], str)
        and all(isinstance(entry[e], int | float) for e in ("max_error", "rms_error"))
        and (entry["encoding"] == "bool") == (entry["dtype"] == "bool")
        and (entry["encoding"] != "int8" or entry["dtype"] == "float32")
    )
    if not sound:
        raise ValueError(f"the entry of column {entry['name']!r:.80} is malformed")
    return ColumnSpec(**{**entry, "shape": tuple(shape)})


@dataclass(frozen=True)
class Encoded:
    """A column ready to be written: ``values`` (m, *shape), and ``scale`` (m,) float32 for int8."""

    spec: ColumnSpec
    values: Array
    scale: Array | None = None
    note: str | None = None


def encode(name: str, values: Array, storage: Storage | None) -> Encoded:
    """Encode one column.

    Args:
        name: the name of the column.
        values: (m, ...) array of a real type, including booleans and integers.
        storage: how floating-point columns are stored; None keeps their type, and integers and
            booleans always keep theirs. float16 halves the size at a relative error of at most
            2⁻¹¹ for normal numbers; int8 quarters it at an error of at most 1/254 of the largest
            value of the row.

    Returns:
        The stored values. If float16 overflows, or int8 meets a value that is not finite, the
        column is stored as float32 and ``note`` says so.

    Raises:
        StoreError: the type cannot be stored, or ``storage`` is unknown.
    """
    if storage is not None and storage not in get_args(Storage):
        raise StoreError(f"storage is one of {', '.join(get_args(Storage))}, not {storage!r:.80}")
    dtype = values.dtype.newbyteorder("=")
    if dtype.name not in _DTYPES:
        raise StoreError(
            f"column '{name}' has type {values.dtype}, which the store does not hold",
            hint="convert it to float32 (exact for bfloat16) or float16 first",
        )
    shape = tuple(int(extent) for extent in values.shape[1:])
    if dtype == np.bool_:
        spec = ColumnSpec(name, "bool", shape, "bool", "bool")
        return Encoded(spec, values.view(np.uint8))
    if dtype.kind != "f" or storage is None or storage == dtype.name:
        return Encoded(ColumnSpec(name, dtype.name, shape, "plain", dtype.name), values)
    if storage == "int8":
        return _encode_int8(name, values, shape)
    return _encode_float(name, values, shape, storage)


def decode(spec: ColumnSpec, values: Array, scale: Array | None) -> Array:
    """Convert stored values (m, *shape) to what a reader returns, of type ``spec.dtype``."""
    if spec.encoding == "plain":
        return values
    if spec.encoding == "bool":
        return values.view(np.bool_)
    assert scale is not None
    factor = scale.reshape(scale.shape + (1,) * len(spec.shape))
    return np.multiply(values, factor, dtype=np.float32)


def _encode_float(name: str, values: Array, shape: tuple[int, ...], storage: str) -> Encoded:
    with np.errstate(over="ignore"):
        rounded = values.astype(storage)
    lost = int(np.count_nonzero(np.isinf(rounded) & np.isfinite(values)))
    if lost and storage == "float16":
        spec, note = _fallback(name, shape, "float16", f"{lost} values exceed 65504")
        return Encoded(spec, values.astype(np.float32), note=note)
    if lost:
        raise StoreError(f"column '{name}': {lost} values do not fit into {storage}")
    max_error, rms_error = _errors(values, rounded)
    spec = ColumnSpec(name, storage, shape, "plain", storage, max_error, rms_error)
    return Encoded(spec, rounded)


def _encode_int8(name: str, values: Array, shape: tuple[int, ...]) -> Encoded:
    flat = values.reshape(len(values), -1).astype(np.float32)
    if not np.isfinite(flat).all():
        spec, note = _fallback(name, shape, "int8", "some values are not finite")
        return Encoded(spec, values.astype(np.float32), note=note)
    scale = np.abs(flat).max(axis=1) / np.float32(127)
    # A row of zeros, or of numbers so small that the scale vanishes, is stored as zeros.
    divisor = np.where(scale > 0, scale, np.float32(1))
    stored = np.clip(np.rint(flat / divisor[:, None]), -127, 127).astype(np.int8)
    stored = stored.reshape(values.shape)
    spec = ColumnSpec(name, "float32", shape, "int8", "int8")
    max_error, rms_error = _errors(values, decode(spec, stored, scale))
    spec = ColumnSpec(name, "float32", shape, "int8", "int8", max_error, rms_error)
    return Encoded(spec, stored, scale)


def _fallback(
    name: str, shape: tuple[int, ...], requested: str, why: str
) -> tuple[ColumnSpec, str]:
    note = f"column '{name}' is stored as float32 instead of {requested} in one shard: {why}"
    return ColumnSpec(name, "float32", shape, "plain", requested), note


def _errors(values: Array, stored: Array) -> tuple[float, float]:
    exact = values.astype(np.float64)
    finite = np.isfinite(exact)
    if not finite.any():
        return 0.0, 0.0
    exact = exact[finite]
    error = stored[finite].astype(np.float64) - exact
    power = float(np.mean(exact**2))
    rms = math.sqrt(float(np.mean(error**2)) / power) if power > 0 else 0.0
    return float(np.abs(error).max()), rms


def checked_columns(columns: Mapping[str, Any], rows: int) -> dict[str, Array]:
    """Check the columns of an append and return them as contiguous arrays of native byte order.

    Raises:
        StoreError: there is no column, a name is unusable, or a length is wrong. The message names
            all faults.
    """
    faults, arrays = [], {}
    if not columns:
        faults.append("there is no column")
    taken = {"id", "view"} | {f"{name}{SCALE_SUFFIX}" for name in columns}
    for name, values in columns.items():
        if not isinstance(name, str) or not name or len(name) > 200 or not name.isprintable():
            faults.append(f"{name!r:.80} is not a name of 1 to 200 printable characters")
        elif name in taken:
            faults.append(f"the name '{name}' is reserved by the format")
        if not isinstance(values, np.ndarray):
            faults.append(f"column {name!r:.80} is a {type(values).__name__}, not a NumPy array")
        elif values.ndim == 0 or len(values) != rows:
            faults.append(f"column {name!r:.80} has shape {values.shape} for {rows} ids")
        elif 0 in values.shape[1:]:
            faults.append(f"column {name!r:.80} has rows of shape {values.shape[1:]}")
        else:
            native = values.dtype.newbyteorder("=")
            arrays[name] = np.ascontiguousarray(values, dtype=native)
    if faults:
        raise StoreError("these columns cannot be stored: " + "; ".join(faults))
    return arrays
