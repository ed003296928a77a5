from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from headstart.core.errors import StoreError
from headstart.store import Space, Store, export_space, import_rows
from tests.store.conftest import DESCRIPTION, make_ids, make_rows

IDS = make_ids(40)
POOL = make_rows(IDS, 6)
GRID = make_rows(IDS, 12, "float16").reshape(40, 3, 2, 2)


@pytest.fixture
def space(space: Space) -> Space:
    for part in (slice(0, 25), slice(25, 40)):
        columns = {
            "blocks.4/0": GRID[part],
            "pool": POOL[part],
            "even": np.arange(40)[part] % 2 == 0,
        }
        space.append(IDS[part], columns)
    return space


def test_an_export_comes_back_whole(space: Space, tmp_path: Path) -> None:
    space.append(
        IDS[:5], {"blocks.4/0": GRID[5:10], "pool": POOL[5:10], "even": np.ones(5, bool)}, 3
    )
    assert export_space(space, tmp_path / "out") == 45
    other = Store(tmp_path / "other")
    copy = import_rows(other, tmp_path / "out")
    assert copy.key == space.key
    assert len(copy) == 45
    for ids, view in ((IDS, 0), (IDS[:5], 3)):
        mine, theirs = space.read(ids, view), copy.read(ids, view)
        assert theirs.columns == mine.columns
        for name in mine.columns:
            np.testing.assert_array_equal(theirs.array(name), mine.array(name), strict=True)
    before = len(list((copy.folder / "shards").iterdir()))
    import_rows(other, tmp_path / "out")
    assert len(list((copy.folder / "shards").iterdir())) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["other", "out", "store"]


@pytest.mark.parametrize("precision", ["int8", "float16"])
def test_an_export_keeps_the_precision(store: Store, tmp_path: Path, precision: str) -> None:
    space = store.space({"precision": precision})
    space.append(IDS, {"x": POOL}, storage=precision)
    export_space(space, tmp_path / "out")
    copy = import_rows(Store(tmp_path / "other"), tmp_path / "out")
    np.testing.assert_array_equal(copy.read(IDS).array(), space.read(IDS).array(), strict=True)
    assert copy.columns()[0].encoding == space.columns()[0].encoding
    more = make_ids(3, "more")
    assert copy.append(more, {"x": make_rows(more, 6)}, storage=precision) == 3


def test_exports_are_read_by_their_own_libraries(space: Space, tmp_path: Path) -> None:
    import duckdb
    import pandas as pd

    order = [i for _, features in space.all_rows() for i in features.ids]
    rows = [IDS.index(i) for i in order]
    export_space(space, tmp_path / "out.parquet")
    frame = pd.read_parquet(tmp_path / "out.parquet")
    assert frame["id"].tolist() == order
    np.testing.assert_array_equal(np.stack(frame["pool"]), POOL[rows])
    query = f"SELECT id, \"blocks.4/0\"::FLOAT[] FROM '{tmp_path}/out.parquet'"
    found = dict(duckdb.sql(query).fetchall())
    np.testing.assert_array_equal(
        np.array([found[i] for i in IDS], np.float16).reshape(GRID.shape), GRID
    )


def test_any_layer_name_comes_back(store: Store, tmp_path: Path) -> None:
    space = store.space(DESCRIPTION)
    names = ["../../up", "a/b", "a_b", "ids", "views", "..", "ünï"]
    space.append(IDS, {name: POOL + k for k, name in enumerate(names)})
    export_space(space, tmp_path / "out")
    copy = import_rows(Store(tmp_path / "other"), tmp_path / "out")
    for k, name in enumerate(names):
        np.testing.assert_array_equal(copy.read(IDS).array(name), POOL + k)


def test_nothing_is_overwritten(space: Space, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(StoreError, match="exists already"):
        export_space(space, tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"
    with pytest.raises(StoreError, match="no rows"):
        export_space(Store(tmp_path / "empty").space({}), tmp_path / "new")


def test_a_damaged_export_is_one_clear_line(space: Space, tmp_path: Path) -> None:
    export_space(space, tmp_path / "out")
    victim = tmp_path / "out"
    victim.write_bytes(victim.read_bytes()[:-300])
    with pytest.raises(StoreError, match="is not an export") as caught:
        import_rows(Store(tmp_path / "other"), tmp_path / "out")
    assert "\n" not in str(caught.value)


def test_an_export_must_hash_to_its_key(space: Space, tmp_path: Path) -> None:
    export_space(space, tmp_path / "out")
    table = pq.read_table(tmp_path / "out")
    (name, about), *_ = table.schema.metadata.items()
    forged = about.replace(b"256", b"255")
    assert forged != about
    pq.write_table(table.replace_schema_metadata({name: forged}), tmp_path / "out")
    with pytest.raises(StoreError, match="does not hash to its key"):
        import_rows(Store(tmp_path / "other"), tmp_path / "out")
