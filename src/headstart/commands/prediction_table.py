"""Tables of predictions: what ``predict`` writes, and what every job that tests a head leaves.

CSV files are often opened by spreadsheets, which run a cell that begins with ``=``, ``+``, ``-`` or
``@`` as a formula, so that such names get an apostrophe there. Parquet has all names as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headstart.core.errors import ConfigError
from headstart.core.files import clear_errors, replacing
from headstart.core.wording import storable
from headstart.evaluation import ProbabilityBlocks, most_likely

if TYPE_CHECKING:
    import pyarrow as pa

Probabilities = NDArray[np.floating[Any]] | ProbabilityBlocks
"""``(n, n_classes)``, as an array, or made block by block."""

COLUMNS = 100
"""Up to so many classes a CSV file has the probability of each; else those of the likeliest."""

LIKELIEST = 5
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def prediction_columns(
    origins: Sequence[str],
    truth: Sequence[str] | None,
    classes: Sequence[str],
    probabilities: Probabilities,
    *,
    split: str,
) -> dict[str, list[Any]]:
    """Return the columns that are the same in both files, by name.

    Args:
        origins: where each item is found.
        truth: the class of each; None: not known.
        classes: the names of the columns of ``probabilities``.
        probabilities: ``(n, n_classes)``.
        split: what the items are of the data: ``test``.
    """
    best, values = most_likely(probabilities)
    named = [classes[i] for i in best[:, 0]]
    columns: dict[str, list[Any]] = {"item": list(origins), "split": [split] * len(origins)}
    if truth is not None:
        columns["truth"] = list(truth)
    columns["prediction"] = named
    if truth is not None:
        columns["right"] = [a == b for a, b in zip(truth, named, strict=True)]
    columns["probability"] = values[:, 0].tolist()
    return columns


def write_predictions(
    folder: Path,
    columns: Mapping[str, Sequence[Any]],
    classes: Sequence[str],
    probabilities: Probabilities,
) -> None:
    """Write ``predictions.parquet`` and ``predictions.csv`` into a run folder.

    Parquet has all probabilities in the column ``probabilities``, in the order of the classes,
    which stand in its metadata as ``classes``. CSV has a column for each of up to 100 classes, and
    else the five likeliest. Where there are more than 50 million probabilities, as of 10,000 items
    of 10,000 classes, both have the five likeliest.

    Args:
        folder: the run folder.
        columns: what :func:`prediction_columns` returned.
        classes: the names of the columns of ``probabilities``.
        probabilities: ``(n, n_classes)``.
    """
    import json

    import pyarrow as pa

    likeliest = {**columns, **_spread(classes, probabilities)}
    write_table(likeliest, folder / "predictions.csv")
    if not isinstance(probabilities, np.ndarray):
        write_table(likeliest, folder / "predictions.parquet")
        return
    flat = np.ascontiguousarray(probabilities, dtype=np.float32).reshape(-1)
    ends = np.arange(len(probabilities) + 1, dtype=np.int64) * len(classes)
    lists = pa.LargeListArray.from_arrays(
        pa.Array.from_buffers(pa.int64(), len(ends), [None, pa.py_buffer(ends)]),
        pa.Array.from_buffers(pa.float32(), len(flat), [None, pa.py_buffer(flat)]),
    )
    table = _table(columns).append_column("probabilities", lists)
    names = json.dumps([storable(name) for name in classes], ensure_ascii=False)
    write_table(table.replace_schema_metadata({"classes": names}), folder / "predictions.parquet")


def _spread(classes: Sequence[str], probabilities: Probabilities) -> dict[str, Sequence[Any]]:
    """Return probabilities as columns: of every class, or of the likeliest."""
    if len(classes) <= COLUMNS and isinstance(probabilities, np.ndarray):
        return {
            f"probability of {name}": np.asarray(probabilities[:, i], dtype=np.float64).tolist()
            for i, name in enumerate(classes)
        }
    order, values = most_likely(probabilities, LIKELIEST)
    found: dict[str, Sequence[Any]] = {}
    for place in range(1, order.shape[1]):
        found[f"prediction_{place + 1}"] = [classes[i] for i in order[:, place]]
        found[f"probability_{place + 1}"] = values[:, place].tolist()
    return found


TABLES = (".csv", ".parquet")


def checked_file(path: Path | str, suffixes: Sequence[str] = TABLES) -> Path:
    """Return the path of a file if it has one of some suffixes and its folder exists.

    Raises:
        ConfigError: it does not; found out before any work is done.
    """
    target = Path(path).expanduser()
    if target.suffix.lower() not in suffixes:
        raise ConfigError((f"'{target}' must end in {' or '.join(suffixes)}",))
    if not target.parent.is_dir():
        raise ConfigError((f"there is no folder '{target.parent}' to write '{target.name}' to",))
    return target


def save_table(columns: Mapping[str, Sequence[Any]], path: Path | str) -> Path:
    """Write columns where a user asked for them, as CSV or Parquet, and return the path.

    Raises:
        ConfigError: another suffix, or the file cannot be written.
    """
    target = checked_file(path)
    with clear_errors(f"write '{target}'", ConfigError):
        write_table(columns, target)
    return target


def write_table(table: pa.Table | Mapping[str, Sequence[Any]], path: Path) -> None:
    """Write columns as CSV or Parquet, by the suffix of ``path``; a reader sees no half of it.

    Raises:
        OSError: it cannot be written.
    """
    import pyarrow.csv
    import pyarrow.parquet

    csv = path.suffix.lower() == ".csv"
    rows = _table(table, safe=csv) if isinstance(table, Mapping) else table
    with replacing(path) as file:
        if csv:
            pyarrow.csv.write_csv(rows, file)
        else:
            pyarrow.parquet.write_table(rows, file)


def _table(columns: Mapping[str, Sequence[Any]], *, safe: bool = False) -> pa.Table:
    import pyarrow as pa

    def cell(text: str) -> str:
        text = storable(text)
        return f"'{text}" if safe and text.startswith(_FORMULA) else text

    return pa.table(
        [_array(values, cell) for values in columns.values()],
        names=[cell(name) for name in columns],
    )


def _array(values: Sequence[Any], cell: Callable[[str], str]) -> pa.Array:
    """Return a column; texts pass through ``cell``.

    ``pyarrow.array`` would import pandas, where it is installed, only to see whether these are
    its values: half a second.
    """
    import pyarrow as pa

    kinds = set(map(type, values))
    if kinds == {str}:
        builder = pa.lib.StringBuilder()
        builder.append_values([cell(value) for value in values])
        return builder.finish()
    if kinds == {bool}:
        bits = np.packbits(np.array(values, bool), bitorder="little")
        return pa.Array.from_buffers(pa.bool_(), len(values), [None, pa.py_buffer(bits)])
    if kinds == {float}:
        numbers = np.array(values, np.float64)
        return pa.Array.from_buffers(pa.float64(), len(values), [None, pa.py_buffer(numbers)])
    return pa.array([cell(value) if isinstance(value, str) else value for value in values])


__all__ = ["prediction_columns", "write_predictions", "write_table"]
