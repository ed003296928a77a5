"""One shard: a bounded, immutable Arrow IPC file of one record batch, named by its digest.

The writer knows nothing about spaces or indexes; the reader trusts nothing that it has not checked.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from headstart.core.errors import StoreError
from headstart.store import errors
from headstart.store.columns import (
    SCALE_SUFFIX,
    Array,
    ColumnSpec,
    Encoded,
    decode,
    spec_from_json,
)
from headstart.store.errors import DamagedError, MissingShardError
from headstart.store.layout import FORMAT, ID_LENGTH, REPAIR_HINT, PackedIds, pack_ids

_METADATA = b"headstart"
_HASHED_AT_ONCE = 2**20
# Files whose digest this process has checked, identified by everything that changes with a file.
_VERIFIED: set[tuple[str, int, int, int, int, int]] = set()


@dataclass(frozen=True)
class ShardHeader:
    """What a shard says about itself."""

    space: str
    view: int
    rows: int
    columns: tuple[ColumnSpec, ...]


@dataclass(frozen=True)
class Shard:
    """An open, verified shard. Its arrays are read-only views of the mapped file.

    Attributes:
        path: the file.
        header: what it says about itself.
        ids: (m, 2) uint64, 16 bytes per id.
        stored: column name → (m, *shape) as stored.
        scales: column name → (m,) float32, for int8-coded columns.
    """

    path: Path
    header: ShardHeader
    ids: PackedIds
    stored: Mapping[str, Array]
    scales: Mapping[str, Array]

    def rows(self, spec: ColumnSpec, where: slice | Array) -> Array:
        """Return decoded rows of a column; a slice of a plain column is not copied."""
        scale = self.scales.get(spec.name)
        return decode(spec, self.stored[spec.name][where], None if scale is None else scale[where])

    def column(self, name: str) -> ColumnSpec:
        """Return the specification of a column of this shard."""
        return next(spec for spec in self.header.columns if spec.name == name)


def write_shard(
    path: Path, space: str, view: int, ids: PackedIds, columns: Sequence[Encoded]
) -> None:
    """Write a shard to a new file. Making it durable is up to the caller.

    Args:
        path: a file that does not exist yet.
        space: key of the space.
        view: number of the view.
        ids: (m, 2) uint64 without duplicates.
        columns: the encoded columns, each (m, ...).
    """
    header = {
        "format": FORMAT,
        "space": space,
        "view": view,
        "rows": len(ids),
        "columns": [column.spec.to_json() for column in columns],
    }
    fields: list[Any] = [pa.field("id", pa.string(), False), pa.field("view", pa.int32(), False)]
    arrays = [_id_array(ids), pa.array(np.full(len(ids), view, np.int32))]
    for column in columns:
        array = _column_array(column.values)
        fields.append(pa.field(column.spec.name, array.type, False))
        arrays.append(array)
        if column.scale is not None:
            fields.append(pa.field(column.spec.name + SCALE_SUFFIX, pa.float32(), False))
            arrays.append(pa.array(column.scale))
    schema = pa.schema(fields, {_METADATA: json.dumps(header)})
    batch = pa.record_batch(arrays, schema=schema)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(batch)


def file_digest(path: Path) -> str:
    """Return the xxh3-128 digest of a file as 32 hexadecimal characters.

    Raises:
        OSError: the file cannot be read.
    """
    return _read_digest(path)[0]


def _read_digest(path: Path) -> tuple[str, os.stat_result]:
    """Hash a file as it is read, not as it is mapped: an I/O error is an exception, not a crash."""
    state, block = xxhash.xxh3_128(), bytearray(_HASHED_AT_ONCE)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(block):
            state.update(memoryview(block)[:count])
        return str(state.hexdigest()), os.fstat(file.fileno())


def open_shard(path: Path, space: str, *, trust_earlier: bool = True) -> Shard:
    """Map a shard, check its digest against its name, and check everything it says about itself.

    A mapping needs no open file: any number of shards can be in use under any limit of open files.

    Args:
        path: the file; its stem is the digest of its bytes.
        space: key of the space it must belong to.
        trust_earlier: skip the digest if this process has already checked this file.

    Raises:
        DamagedError: the file is missing, altered, or not a shard of this space.
        UnreadableError: it cannot be read now, or is of a newer format.
    """
    what = f"shard {path.name} in {path.parent}"
    try:
        content = _mapped(path, trust_earlier)
    except FileNotFoundError:
        raise missing_shard(path) from None
    except (OSError, MemoryError) as error:
        raise errors.unreadable(what, error) from error
    try:
        return _parse(path, space, content)
    except MemoryError as error:
        raise errors.unreadable(what, error) from error
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError,
            OSError, pa.ArrowException) as error:  # fmt: skip
        raise errors.damaged(what, str(error) or type(error).__name__, intact=True) from error


def _mapped(path: Path, trust_earlier: bool) -> Any:
    """Return the content of a shard, mapped into memory, after checking its digest."""
    for _ in range(3):
        if path.is_symlink():
            raise damaged_shard(path, "it is a symbolic link")
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # opening a pipe would wait for its writer
            raise damaged_shard(path, "it is not a file")
        if found.st_size == 0:
            raise damaged_shard(path, "it is empty")
        if _identity(path, found) not in _VERIFIED or not trust_earlier:
            _VERIFIED.discard(_identity(path, found))
            digest, found = _read_digest(path)
            if digest != path.stem:
                raise damaged_shard(path, "its content does not match its digest")
            _VERIFIED.add(_identity(path, found))
        with pa.memory_map(str(path), "r") as file:
            content = file.read_buffer()
        if _identity(path, path.stat()) == _identity(path, found):
            return content
    raise damaged_shard(path, "it changes while it is read")


def _identity(path: Path, found: os.stat_result) -> tuple[str, int, int, int, int, int]:
    return (
        str(path),
        found.st_dev,
        found.st_ino,
        found.st_size,
        found.st_mtime_ns,
        found.st_ctime_ns,
    )


def _parse(path: Path, space: str, content: Any) -> Shard:
    reader = pa.ipc.open_file(content)
    if reader.num_record_batches != 1:
        raise ValueError(f"it has {reader.num_record_batches} record batches instead of 1")
    batch = reader.get_batch(0)
    batch.validate()
    header = _header(path, reader.schema.metadata or {}, space, batch.num_rows)
    names = ["id", "view"]
    for spec in header.columns:
        names += [spec.name] + [spec.name + SCALE_SUFFIX] * (spec.encoding == "int8")
    if batch.schema.names != names:
        raise ValueError("its columns are not those of its header")
    ids = _read_ids(batch.column(0))
    views = _values(batch.column(1), np.dtype(np.int32), (), batch.num_rows)
    if (views != header.view).any():
        raise ValueError("its views are not those of its header")
    stored, scales = {}, {}
    for spec in header.columns:
        column = batch.column(names.index(spec.name))
        stored[spec.name] = _values(column, spec.stored_dtype, spec.shape, batch.num_rows)
        if spec.encoding == "int8":
            scale = batch.column(names.index(spec.name + SCALE_SUFFIX))
            scales[spec.name] = _values(scale, np.dtype(np.float32), (), batch.num_rows)
    return Shard(path, header, ids, stored, scales)


def _header(path: Path, metadata: Mapping[bytes, bytes], space: str, rows: int) -> ShardHeader:
    header = json.loads(metadata[_METADATA])
    if isinstance(header, dict) and errors.is_newer(header.get("format")):
        raise errors.newer(f"shard {path.name} in {path.parent}", header["format"])
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ValueError("it is not of this version of the format")
    if header["space"] != space:
        raise ValueError(f"it belongs to another space ({header['space']!r:.40})")
    if header["rows"] != rows or type(header["view"]) is not int:
        raise ValueError("it has another number of rows than its header says")
    columns = tuple(spec_from_json(entry) for entry in header["columns"])
    return ShardHeader(space, header["view"], rows, columns)


def _id_array(ids: PackedIds) -> Any:
    text = ids.tobytes().hex().encode("ascii")
    offsets: Any = np.arange(0, ID_LENGTH * (len(ids) + 1), ID_LENGTH, dtype=np.int32)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(text)]
    return pa.Array.from_buffers(pa.string(), len(ids), buffers)


def _read_ids(column: Any) -> PackedIds:
    if column.type != pa.string() or column.null_count:
        raise ValueError("its ids are not strings")
    column.validate(full=True)
    # The fast path covers every shard we write; pack_ids decides about all others.
    _, offsets, text = column.buffers()
    places = np.frombuffer(offsets, np.int32, len(column) + 1)
    if places[0] == 0 and (np.diff(places) == ID_LENGTH).all():
        joined = text.to_pybytes()[: int(places[-1])].decode("ascii")
        raw = bytes.fromhex(joined)
        if raw.hex() == joined:
            return np.frombuffer(raw, np.uint64).reshape(-1, 2)
    try:
        return pack_ids(column.to_pylist())
    except StoreError as error:
        raise ValueError(error.message) from error


def _column_array(values: Array) -> Any:
    rows, shape = len(values), values.shape[1:]
    flat: Any = pa.array(np.ascontiguousarray(values).reshape(-1))
    if not shape:
        return flat
    listed = pa.FixedSizeListArray.from_arrays(flat, len(flat) // rows)
    if len(shape) == 1:
        return listed
    kind = pa.fixed_shape_tensor(flat.type, shape)
    return pa.ExtensionArray.from_storage(kind, listed)


def _values(column: Any, dtype: np.dtype[Any], shape: tuple[int, ...], rows: int) -> Array:
    flat = column
    kind = pa.from_numpy_dtype(dtype)
    if len(shape) > 1:
        if flat.type != pa.fixed_shape_tensor(kind, shape):
            raise ValueError(f"a column does not have rows of shape {shape}")
        flat = flat.storage
    if shape:
        if not pa.types.is_fixed_size_list(flat.type) or flat.null_count:
            raise ValueError(f"a column does not have rows of shape {shape}")
        flat = flat.flatten()
    count = rows * int(np.prod(shape, dtype=np.int64))
    if flat.type != kind or flat.null_count or len(flat) != count:
        raise ValueError(f"a column is not {count} values of type {dtype.name}")
    data = flat.buffers()[1]
    offset = flat.offset * dtype.itemsize
    return np.frombuffer(data, dtype, count, offset).reshape(rows, *shape)


def missing_shard(path: Path) -> MissingShardError:
    """Return the error for a shard whose file is not there."""
    error = MissingShardError(
        f"shard {path.name} in {path.parent} is damaged: the file is missing", hint=REPAIR_HINT
    )
    error.name = path.stem
    return error


def damaged_shard(path: Path, why: str) -> DamagedError:
    """Return the error for a shard that cannot be trusted."""
    return errors.damaged(f"shard {path.name} in {path.parent}", why)
