"""Taking rows out of a store and into one: Parquet, NumPy and safetensors files.

An export is self-contained: rows, ids, views, and the description they were computed with. It goes
row by row in the order of the disk, so it needs no more memory than a shard. An export can be
imported again; the key is computed from the description it carries.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from headstart.core.errors import StoreError
from headstart.core.files import clear_errors
from headstart.core.progress import Reporter, SilentReporter
from headstart.store.features import FeatureSet
from headstart.store.layout import FORMAT, unpack_ids
from headstart.store.precision import Array

if TYPE_CHECKING:
    from headstart.store.space import Space
    from headstart.store.store import Store

Format = Literal["parquet", "npy", "safetensors"]
_METADATA = b"headstart.export"
_ROWS_AT_ONCE = 8192
_SAFETENSORS = {
    "float16": "F16",
    "float32": "F32",
    "float64": "F64",
    "bool": "BOOL",
    **{f"int{bits}": f"I{bits}" for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": f"U{bits}" for bits in (8, 16, 32, 64)},
}


@dataclass(frozen=True)
class _Part:
    """The rows of one view, in the order of the disk."""

    view: int
    features: FeatureSet


def export_space(
    space: Space, target: Path | str, format: Format, *, reporter: Reporter | None = None
) -> int:
    """Write all rows of a space, of all views, to files that need no headstart to be read.

    Args:
        space: the space.
        target: ``parquet`` and ``safetensors`` write this one file; ``npy`` makes this folder, with
            ``<column>.npy`` (n, ...), ``ids.txt``, ``views.npy`` and ``space.json``.
        format: the format. Values are written as a reader gets them: int8 is decoded.
        reporter: shown the progress in rows.

    Returns:
        The number of rows.

    Raises:
        StoreError: the space is empty, the target exists, or the disk forbids it.
    """
    if format not in get_args(Format):
        raise StoreError(f"a format is one of {', '.join(get_args(Format))}, not {format!r:.80}")
    target = Path(target)
    if target.exists():
        raise StoreError(f"{target} exists already", hint="name another file, or remove it")
    parts = [_Part(view, features) for view, features in space.all_rows()]
    if not parts:
        raise StoreError(f"the space {space.folder} has no rows to export")
    write = {"parquet": _to_parquet, "npy": _to_npy, "safetensors": _to_safetensors}[format]
    unfinished = target.with_name(f".{target.name}.part")
    total = sum(len(part.features) for part in parts)
    try:
        with clear_errors(f"export in {target}", StoreError), _progress(reporter, total) as advance:
            _remove(unfinished)
            write(unfinished, parts, _about(space), advance)
            unfinished.rename(target)
    finally:
        _remove(unfinished)
    return total


def import_rows(store: Store, source: Path | str, *, reporter: Reporter | None = None) -> Space:
    """Append the rows of an export; rows that are there already are skipped.

    Args:
        store: where to.
        source: what :func:`export_space` wrote; the format is told from the content.
        reporter: shown the progress in rows.

    Returns:
        The space that the rows belong to.

    Raises:
        StoreError: the source is not such an export, or is damaged.
    """
    source = Path(source)
    try:
        about, total, chunks = _open_export(source)
        if about["format"] != FORMAT:
            raise ValueError(f"it is of format {about['format']!r:.20}, not {FORMAT}")
        space = store.space(about["description"])
        if space.key != about["key"]:
            raise ValueError("its description does not hash to its key")
        with _progress(reporter, total) as advance:
            for view, ids, columns in chunks:
                space.append(ids, columns, view, precision=about["precision"])
                advance(len(ids))
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise StoreError(
            f"{source} is not an export of a feature space: {error}",
            hint="import what 'headstart cache export' wrote",
        ) from error
    return space


_Chunk = tuple[int, list[str], dict[str, Array]]
_Advance = Callable[[int], None]


def _open_export(source: Path) -> tuple[dict[str, Any], int, Iterator[_Chunk]]:
    if source.is_dir():
        return _from_npy(source)
    with source.open("rb") as file:
        magic = file.read(4)
    return _from_parquet(source) if magic == b"PAR1" else _from_safetensors(source)


def _about(space: Space) -> dict[str, Any]:
    # Values leave decoded. To come back as they were stored they must be coded again.
    coded = {s.requested for s in space.columns() or () if s.requested != s.dtype}
    return {
        "format": FORMAT,
        "key": space.key,
        "description": space.description,
        "precision": coded.pop() if coded else None,
    }


def _chunks(part: _Part) -> Iterator[tuple[list[str], dict[str, Array]]]:
    for start in range(0, len(part.features), _ROWS_AT_ONCE):
        stop = min(start + _ROWS_AT_ONCE, len(part.features))
        rows = part.features[start:stop]
        if not isinstance(rows, dict):
            rows = {next(iter(part.features.columns)): rows}
        yield unpack_ids(part.features.packed_ids[start:stop]), rows


def _widest(parts: list[_Part]) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
    columns: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {}
    for part in parts:
        for name, column in part.features.columns.items():
            dtype = columns[name][0] if name in columns else column.dtype
            columns[name] = (np.result_type(dtype, column.dtype), column.shape)
    return columns


# -- Parquet -------------------------------------------------------------------------------------


def _to_parquet(
    target: Path, parts: list[_Part], about: Mapping[str, Any], advance: _Advance
) -> None:
    columns = _widest(parts)
    shapes = {name: list(shape) for name, (_, shape) in columns.items()}
    fields: list[Any] = [pa.field("id", pa.string(), False), pa.field("view", pa.int32(), False)]
    for name, (dtype, shape) in columns.items():
        kind: Any = pa.from_numpy_dtype(dtype)
        if shape:
            kind = pa.list_(kind, int(np.prod(shape)))
        fields.append(pa.field(name, kind, False))
    text = json.dumps({**about, "shapes": shapes})
    schema = pa.schema(fields, {_METADATA: text})
    with pq.ParquetWriter(target, schema, compression="zstd", write_page_checksum=True) as writer:
        for part in parts:
            for ids, rows in _chunks(part):
                views = np.full(len(ids), part.view, np.int32)
                arrays: list[Any] = [pa.array(ids), pa.array(views)]
                for name, (dtype, shape) in columns.items():
                    flat: Any = pa.array(np.ascontiguousarray(rows[name], dtype).reshape(-1))
                    if shape:
                        flat = pa.FixedSizeListArray.from_arrays(flat, int(np.prod(shape)))
                    arrays.append(flat)
                writer.write_batch(pa.record_batch(arrays, schema=schema))
                advance(len(ids))


def _from_parquet(source: Path) -> tuple[dict[str, Any], int, Iterator[_Chunk]]:
    file = pq.ParquetFile(source, page_checksum_verification=True)
    about = json.loads((file.schema_arrow.metadata or {})[_METADATA])

    def chunks() -> Iterator[_Chunk]:
        for batch in file.iter_batches(_ROWS_AT_ONCE):
            views = batch.column("view").to_numpy()
            ids = [str(item) for item in batch.column("id").to_pylist()]
            columns = {}
            for name, shape in about["shapes"].items():
                column: Any = batch.column(name)
                flat = column.flatten() if shape else column
                values = flat.to_numpy(zero_copy_only=False)
                columns[name] = values.reshape(len(ids), *shape)
            for view in np.unique(views):
                where = np.flatnonzero(views == view)
                part = {name: values[where] for name, values in columns.items()}
                yield int(view), [ids[i] for i in where.tolist()], part

    return about, file.metadata.num_rows, chunks()


# -- NumPy ---------------------------------------------------------------------------------------


def _to_npy(target: Path, parts: list[_Part], about: Mapping[str, Any], advance: _Advance) -> None:
    target.mkdir(parents=True)
    total = sum(len(part.features) for part in parts)
    columns = _widest(parts)
    files: dict[str, str] = {}
    for number, name in enumerate(columns):
        safe = re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip(".")
        taken = safe in ("", "ids", "views") or f"{safe}.npy" in files.values()
        files[name] = f"{safe}-{number}.npy" if taken else f"{safe}.npy"
    mapped = {
        name: np.lib.format.open_memmap(
            target / files[name], mode="w+", dtype=dtype, shape=(total, *shape)
        )
        for name, (dtype, shape) in columns.items()
    }
    place = 0
    with (target / "ids.txt").open("w", encoding="ascii") as names:
        for part in parts:
            for ids, rows in _chunks(part):
                for name, array in mapped.items():
                    array[place : place + len(ids)] = rows[name]
                names.write("".join(f"{item}\n" for item in ids))
                place += len(ids)
                advance(len(ids))
    views = np.concatenate([np.full(len(part.features), part.view, np.int32) for part in parts])
    np.save(target / "views.npy", views)
    for array in mapped.values():
        array.flush()
    text = json.dumps({**about, "columns": files}, indent=2, ensure_ascii=False)
    (target / "space.json").write_text(text + "\n", encoding="utf-8")


def _from_npy(source: Path) -> tuple[dict[str, Any], int, Iterator[_Chunk]]:
    about = json.loads((source / "space.json").read_text(encoding="utf-8"))
    ids = (source / "ids.txt").read_text(encoding="ascii").split()
    views = np.load(source / "views.npy", allow_pickle=False)
    columns = {}
    for name, file in about["columns"].items():
        if Path(file).name != file:
            raise ValueError(f"'{file}' is not the name of a file beside it")
        columns[name] = np.load(source / file, mmap_mode="r", allow_pickle=False)
    return about, len(ids), _sliced(ids, views, columns)


def _sliced(ids: list[str], views: Array, columns: Mapping[str, Array]) -> Iterator[_Chunk]:
    if any(len(values) != len(ids) for values in (views, *columns.values())):
        raise ValueError("its files do not have the same number of rows")
    for start in range(0, len(ids), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        for view in np.unique(views[part]):
            where = start + np.flatnonzero(views[part] == view)
            rows = {name: np.asarray(values[where]) for name, values in columns.items()}
            yield int(view), [ids[i] for i in where.tolist()], rows


# -- safetensors ---------------------------------------------------------------------------------


def _to_safetensors(
    target: Path, parts: list[_Part], about: Mapping[str, Any], advance: _Advance
) -> None:
    """Write the file ourselves: the library's writer wants all tensors in memory at once."""
    total = sum(len(part.features) for part in parts)
    columns = {"view": (np.dtype(np.int32), ()), **_widest(parts)}
    order = sorted(columns, key=lambda name: (-columns[name][0].itemsize, name))
    header: dict[str, Any] = {"__metadata__": {"headstart.export": json.dumps(about)}}
    end = 0
    for name in order:
        dtype, shape = columns[name]
        size = total * int(np.prod(shape)) * dtype.itemsize
        header[name] = {
            "dtype": _SAFETENSORS[dtype.name],
            "shape": [total, *shape],
            "data_offsets": [end, end + size],
        }
        end += size
    header["id"] = {"dtype": "U8", "shape": [total, 16], "data_offsets": [end, end + 16 * total]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with target.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        start = file.tell()
        file.truncate(start + end + 16 * total)
        place = 0
        for part in parts:
            for ids, rows in _chunks(part):
                values = {"view": np.full(len(ids), part.view, np.int32), **rows}
                for name in order:
                    dtype, shape = columns[name]
                    row = int(np.prod(shape)) * dtype.itemsize
                    file.seek(start + header[name]["data_offsets"][0] + place * row)
                    file.write(np.ascontiguousarray(values[name], dtype).tobytes())
                file.seek(start + end + place * 16)
                file.write(bytes.fromhex("".join(ids)))
                place += len(ids)
                advance(len(ids))


def _from_safetensors(source: Path) -> tuple[dict[str, Any], int, Iterator[_Chunk]]:
    from safetensors import SafetensorError, safe_open

    try:
        opened: Any = safe_open(source, framework="np")
        about = json.loads((opened.metadata() or {})["headstart.export"])
        names = [name for name in opened.keys() if name not in ("id", "view")]  # noqa: SIM118
        total = opened.get_slice("id").get_shape()[0]
        if any(opened.get_slice(name).get_shape()[0] != total for name in [*names, "view"]):
            raise ValueError("its tensors do not have the same number of rows")
    except SafetensorError as error:
        raise ValueError(str(error)) from error

    def chunks() -> Iterator[_Chunk]:
        for start in range(0, total, _ROWS_AT_ONCE):
            part = slice(start, min(start + _ROWS_AT_ONCE, total))
            ids = opened.get_slice("id")[part].tobytes().hex()
            named = [ids[i : i + 32] for i in range(0, len(ids), 32)]
            rows = {name: opened.get_slice(name)[part] for name in names}
            yield from _sliced(named, opened.get_slice("view")[part], rows)

    return about, total, chunks()


# -- small things --------------------------------------------------------------------------------


@contextlib.contextmanager
def _progress(reporter: Reporter | None, total: int) -> Iterator[_Advance]:
    with (reporter or SilentReporter()).task("rows", total, "rows") as task:
        yield task.advance


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
