"""All rows of a space as one Parquet file, and back: for other programs and other machines.

The file is self-contained: rows, item ids, views, and the description they were computed with. It
is written and read in groups of rows in the order of the disk, so memory stays bounded. A Parquet
file can be imported again; the key is computed from the description it carries.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from headstart.core.errors import StoreError
from headstart.core.files import clear_errors, replacing
from headstart.core.progress import Reporter, SilentReporter
from headstart.store.columns import Array
from headstart.store.features import Column, FeatureSet
from headstart.store.layout import FORMAT, unpack_ids

if TYPE_CHECKING:
    from headstart.store.space import Space
    from headstart.store.store import Store

_METADATA = b"headstart.export"
_ROWS_AT_ONCE = 8192


def export_space(space: Space, target: Path | str, *, reporter: Reporter | None = None) -> int:
    """Write all rows of all views of a space to a Parquet file that any reader understands.

    The columns are ``id`` (string), ``view`` (int32) and one per layer: a primitive type or a
    row-major ``fixed_size_list``, with the row shapes in the metadata. Values are as a reader of
    the store gets them: int8 is decoded.

    Args:
        space: the space.
        target: the file; it must not exist.
        reporter: receives the progress in rows.

    Returns:
        The number of rows.

    Raises:
        StoreError: the space is empty, or the target exists or cannot be written.
    """
    target = Path(target)
    if target.exists():
        raise StoreError(f"{target} exists already", hint="choose another file name, or remove it")
    views = dict(space.all_rows())
    if not views:
        raise StoreError(f"the space {space.folder} has no rows to export")
    columns = _widest(views.values())
    schema = _schema(space, columns)
    total = sum(map(len, views.values()))
    with (
        (reporter or SilentReporter()).task("rows", total, "rows") as task,
        clear_errors(f"export to {target}", StoreError),
        replacing(target) as file,
        pq.ParquetWriter(file, schema, compression="zstd", write_page_checksum=True) as writer,
    ):
        for view, features in views.items():
            for start in range(0, len(features), _ROWS_AT_ONCE):
                batch = _batch(features, view, slice(start, start + _ROWS_AT_ONCE), columns, schema)
                writer.write_batch(batch)
                task.advance(len(batch))
    return total


def import_rows(store: Store, source: Path | str, *, reporter: Reporter | None = None) -> Space:
    """Append the rows of an exported file, skipping those that are already present.

    Args:
        store: the store to append them to.
        source: a file written by :func:`export_space`.
        reporter: receives the progress in rows.

    Returns:
        The space that the rows belong to.

    Raises:
        StoreError: the source is not such a file, or is damaged.
    """
    source = Path(source)
    try:
        file = pq.ParquetFile(source, page_checksum_verification=True)
        about = json.loads((file.schema_arrow.metadata or {})[_METADATA])
        if about["format"] != FORMAT:
            raise ValueError(f"it is of format {about['format']!r:.20}, not {FORMAT}")
        space = store.space(about["description"])
        if space.key != about["key"]:
            raise ValueError("its description does not hash to its key")
        total = file.metadata.num_rows
        with (reporter or SilentReporter()).task("rows", total, "rows") as task:
            for view, ids, columns in _chunks(file, about["shapes"]):
                space.append(ids, columns, view, storage=about["precision"])
                task.advance(len(ids))
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise StoreError(
            f"{source} is not an export of a feature space: {error}",
            hint="give a file written by 'headstart cache export'",
        ) from error
    return space


def _widest(sets: Any) -> dict[str, Column]:
    """Return the columns of all views, with the widest type of each."""
    columns: dict[str, Column] = {}
    for features in sets:
        for name, column in features.columns.items():
            known = columns.get(name, column)
            columns[name] = Column(np.result_type(known.dtype, column.dtype), column.shape)
    return columns


def _schema(space: Space, columns: Mapping[str, Column]) -> Any:
    fields: list[Any] = [pa.field("id", pa.string(), False), pa.field("view", pa.int32(), False)]
    for name, column in columns.items():
        kind: Any = pa.from_numpy_dtype(column.dtype)
        if column.shape:
            kind = pa.list_(kind, math.prod(column.shape))
        fields.append(pa.field(name, kind, False))
    # Values are exported decoded, so the import must encode them again to store the same.
    encoded = {s.requested for s in space.columns() or () if s.requested != s.dtype}
    about = {
        "format": FORMAT,
        "key": space.key,
        "description": space.description,
        "precision": encoded.pop() if encoded else None,
        "shapes": {name: list(column.shape) for name, column in columns.items()},
    }
    return pa.schema(fields, {_METADATA: json.dumps(about)})


def _batch(
    features: FeatureSet, view: int, part: slice, columns: Mapping[str, Column], schema: Any
) -> Any:
    rows = features[part]
    if not isinstance(rows, dict):
        rows = dict.fromkeys(columns, rows)
    ids = unpack_ids(features.packed_ids[part])
    arrays: list[Any] = [pa.array(ids), pa.array(np.full(len(ids), view, np.int32))]
    for name, column in columns.items():
        flat: Any = pa.array(np.ascontiguousarray(rows[name], column.dtype).reshape(-1))
        if column.shape:
            flat = pa.FixedSizeListArray.from_arrays(flat, math.prod(column.shape))
        arrays.append(flat)
    return pa.record_batch(arrays, schema=schema)


def _chunks(
    file: Any, shapes: Mapping[str, list[int]]
) -> Iterator[tuple[int, list[str], dict[str, Array]]]:
    for batch in file.iter_batches(_ROWS_AT_ONCE):
        views = batch.column("view").to_numpy()
        ids = [str(item) for item in batch.column("id").to_pylist()]
        columns = {}
        for name, shape in shapes.items():
            column: Any = batch.column(name)
            flat = column.flatten() if shape else column
            columns[name] = flat.to_numpy(zero_copy_only=False).reshape(len(ids), *shape)
        for view in np.unique(views):
            where = np.flatnonzero(views == view)
            rows = {name: values[where] for name, values in columns.items()}
            yield int(view), [ids[i] for i in where.tolist()], rows
