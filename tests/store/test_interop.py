"""Shards read by others, without headstart, exactly as docs/reading-features-elsewhere.md says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart.store import Space
from tests.store.conftest import make_ids, make_rows

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reading-features-elsewhere.md"
IDS = make_ids(30)
ROWS = make_rows(IDS, 8)
GRID = make_rows(IDS, 24, "float16").reshape(30, 2, 3, 4)


def run_page(*headings: str, **names: Any) -> dict[str, Any]:
    """Run the code under the headings of the page, one after the other, in one namespace."""
    text = PAGE.read_text()
    for heading in headings:
        section = text.split(f"## {heading}\n")[1].split("\n## ")[0]
        for block in re.findall(r"```python\n(.*?)```", section, flags=re.S):
            exec(block, names)
    return names


@pytest.fixture
def space(space: Space) -> Space:
    for part in (slice(0, 20), slice(20, 30)):
        space.append(IDS[part], {"features": ROWS[part]})
    return space


def by_id(ids: list[str], rows: np.ndarray) -> np.ndarray:
    return np.stack([rows[ids.index(i)] for i in IDS])


def test_pyarrow(space: Space) -> None:
    found = run_page("pyarrow", space_folder=space.folder)
    np.testing.assert_array_equal(
        by_id(found["arrow_table"]["id"].to_pylist(), found["features"]), ROWS
    )


def test_pyarrow_tensors(space: Space, store: Any) -> None:
    other = store.space({"layer": "grid"})
    other.append(IDS, {"grid": GRID, "features": ROWS})
    table = run_page("pyarrow", space_folder=other.folder)["arrow_table"]
    grid = table["grid"].combine_chunks().to_numpy_ndarray()
    np.testing.assert_array_equal(grid, GRID, strict=True)


def test_pandas(space: Space) -> None:
    found = run_page("pyarrow", "pandas", space_folder=space.folder)
    frame = found["frame"]
    np.testing.assert_array_equal(by_id(list(frame.index), np.stack(frame["features"])), ROWS)


def test_polars(space: Space) -> None:
    found = run_page("pyarrow", "polars", space_folder=space.folder)
    np.testing.assert_array_equal(by_id(found["frame"]["id"].to_list(), found["features"]), ROWS)


def test_duckdb(space: Space) -> None:
    totals = dict(run_page("pyarrow", "DuckDB", space_folder=space.folder)["totals"])
    np.testing.assert_allclose([totals[i] for i in IDS], ROWS.sum(axis=1), atol=1e-5)


def test_int8(space: Space, store: Any) -> None:
    other = store.space({"precision": "int8"})
    other.append(IDS, {"features": ROWS}, storage="int8")
    table = run_page("pyarrow", space_folder=other.folder)["arrow_table"]
    stored = table["features"].combine_chunks().flatten().to_numpy().reshape(30, -1)
    scale = table["features.scale"].to_numpy()
    values = run_page("Stored as int8", stored=stored, scale=scale)["values"]
    np.testing.assert_array_equal(values, other.read(IDS).array())


def test_others_can_map_a_shard_without_copying(space: Space) -> None:
    import pyarrow as pa

    shard = next((space.folder / "shards").iterdir())
    batch = pa.ipc.open_file(pa.memory_map(str(shard))).get_batch(0)
    before = pa.total_allocated_bytes()
    batch.column("features").flatten().to_numpy(zero_copy_only=True)
    assert pa.total_allocated_bytes() == before
