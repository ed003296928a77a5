"""The format of docs/store-format.md, held to by a file that was written once and is kept."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import xxhash

from headstart.core.errors import StoreError
from headstart.store import Store
from headstart.store.shard import open_shard

GOLDEN = Path(__file__).parent / "golden"
DESCRIPTION = {"golden": True, "layers": ["pool", "grid"], "size": [8, 1.5, None]}
IDS = [f"{n:032x}" for n in (3, 1, 2**127)]


def columns() -> dict[str, np.ndarray]:
    pool = np.array([[1.0, -0.5, 0.25], [0, 0, 0], [254, 127, -254]], "f4")
    grid = np.arange(18, dtype="i8").reshape(3, 2, 3)
    return {"pool": pool, "grid": grid, "mask": np.array([True, False, True])}


@pytest.fixture
def golden() -> Path:
    (path,) = GOLDEN.glob("*.arrow")
    return path


def test_the_golden_shard_is_as_the_format_says(golden: Path) -> None:
    content = golden.read_bytes()
    assert golden.stem == xxhash.xxh3_128(content).hexdigest()
    reader = pa.ipc.open_file(content)
    assert reader.num_record_batches == 1
    batch = reader.get_batch(0)
    assert batch.schema.names == ["id", "view", "pool", "pool.scale", "grid", "mask"]
    assert batch.column("id").to_pylist() == IDS
    assert batch.column("view").to_pylist() == [2, 2, 2]
    assert batch.schema.field("pool").type == pa.list_(pa.int8(), 3)
    assert batch.schema.field("grid").type == pa.fixed_shape_tensor(pa.int64(), [2, 3])
    assert batch.schema.field("mask").type == pa.uint8()
    scale = batch.column("pool.scale").to_numpy()
    pool = batch.column("pool").flatten().to_numpy().reshape(3, 3)
    np.testing.assert_array_equal(pool, [[127, -64, 32], [0, 0, 0], [127, 64, -127]])
    np.testing.assert_array_equal(scale, np.array([1 / 127, 0, 2], "f4"))
    text = json.dumps(DESCRIPTION, sort_keys=True, separators=(",", ":"))
    header = json.loads(batch.schema.metadata[b"headstart"])
    errors = {key: header["columns"][0].pop(key) for key in ("max_error", "rms_error")}
    assert errors["max_error"] == pytest.approx(1.0)
    exact = {"max_error": 0.0, "rms_error": 0.0}
    assert header == {
        "format": 1,
        "space": hashlib.sha256(f"headstart-space-v1\n{text}".encode()).hexdigest()[:32],
        "view": 2,
        "rows": 3,
        "columns": [
            {
                "name": "pool",
                "dtype": "float32",
                "shape": [3],
                "encoding": "int8",
                "requested": "int8",
            },
            {
                "name": "grid",
                "dtype": "int64",
                "shape": [2, 3],
                "encoding": "plain",
                "requested": "int64",
            }
            | exact,
            {"name": "mask", "dtype": "bool", "shape": [], "encoding": "bool", "requested": "bool"}
            | exact,
        ],
    }


def test_the_golden_shard_is_adopted_and_read(golden: Path, tmp_path: Path) -> None:
    space = Store(tmp_path).space(DESCRIPTION)
    (space.folder / "shards").mkdir(parents=True)
    shutil.copy(golden, space.folder / "shards")
    assert Store(tmp_path).verify(repair=True).rows == 3
    rows = space.read(IDS[::-1], view=2)[:]
    scale = np.array([2, 0, 1 / 127], "f4")[:, None]
    stored = np.array([[127, 64, -127], [0, 0, 0], [127, -64, 32]], "f4")
    np.testing.assert_array_equal(rows["pool"], stored * scale)
    np.testing.assert_array_equal(rows["grid"], columns()["grid"][::-1])
    np.testing.assert_array_equal(rows["mask"], [True, False, True])


def renamed(folder: Path, content: bytes) -> Path:
    """A file that answers to its name, whatever it holds."""
    path = folder / f"{xxhash.xxh3_128(content).hexdigest()}.arrow"
    path.write_bytes(content)
    return path


def rewritten(golden: Path, folder: Path, **edits: object) -> Path:
    """The golden shard with another header, or other columns, and the digest that fits."""
    batch = pa.ipc.open_file(golden.read_bytes()).get_batch(0)
    header = json.loads(batch.schema.metadata[b"headstart"])
    batch = edits.pop("batch", lambda b: b)(batch)
    times = edits.pop("times", 1)
    header.update(edits)
    schema = batch.schema.with_metadata({b"headstart": json.dumps(header)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema) as writer:
        for _ in range(times):
            writer.write_batch(batch.replace_schema_metadata(schema.metadata))
    return renamed(folder, sink.getvalue().to_pybytes())


@pytest.mark.parametrize(
    ("edits", "why"),
    [
        ({"format": 0}, "this version"),
        ({"space": "0" * 32}, "another space"),
        ({"view": 1}, "views"),
        ({"view": "x"}, "number of rows"),
        ({"rows": 4}, "number of rows"),
        ({"columns": []}, "columns are not those"),
        ({"columns": [{"name": "pool"}]}, "other fields"),
        ({"columns": 7}, "not iterable"),
        ({"times": 2}, "2 record batches"),
        ({"times": 0}, "0 record batches"),
        ({"batch": lambda b: b.drop_columns(["mask"])}, "columns are not those"),
        ({"batch": lambda b: b.set_column(0, "id", pa.array(["x"] * 3))}, "item id"),
        ({"batch": lambda b: b.set_column(0, "id", pa.array([*IDS[:2], None]))}, "not strings"),
        ({"batch": lambda b: b.set_column(0, "id", pa.array(IDS, pa.large_string()))}, "strings"),
        ({"batch": lambda b: b.set_column(1, "view", pa.array([2, 2, 2]))}, "int32"),
        ({"batch": lambda b: b.set_column(3, "pool.scale", pa.array([1.0, 2.0, 3.0]))}, "float32"),
        ({"batch": lambda b: b.set_column(2, "pool", b.column("grid"))}, "rows of shape"),
        ({"batch": lambda b: b.set_column(4, "grid", b.column("grid").storage)}, "rows of shape"),
        (
            {"batch": lambda b: b.set_column(5, "mask", pa.array([1, None, 0], pa.uint8()))},
            "3 values of type uint8",
        ),
    ],
)
def test_a_shard_that_answers_to_its_name_is_still_not_trusted(
    golden: Path, tmp_path: Path, edits: dict, why: str
) -> None:
    path = rewritten(golden, tmp_path, **edits)
    key = Store(tmp_path).space(DESCRIPTION).key
    with pytest.raises(StoreError, match=why) as caught:
        open_shard(path, key)
    assert path.name in caught.value.message


@pytest.mark.parametrize("content", [b"", b"x", b"ARROW1\0\0", b"ARROW1" * 100, bytes(1000)])
def test_files_that_are_no_arrow_files(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(StoreError, match="is damaged"):
        open_shard(renamed(tmp_path, content), "0" * 32)


def test_a_truncated_shard_that_answers_to_its_name(golden: Path, tmp_path: Path) -> None:
    content = golden.read_bytes()
    key = Store(tmp_path).space(DESCRIPTION).key
    for length in range(0, len(content), 97):
        with pytest.raises(StoreError, match="is damaged"):
            open_shard(renamed(tmp_path, content[:length]), key)
