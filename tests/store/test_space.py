from __future__ import annotations

import json
import multiprocessing
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from headstart.core.errors import StoreError
from headstart.core.progress import SilentReporter
from headstart.store import FeatureSet, Space, Store
from tests.store.conftest import DESCRIPTION, make_ids, make_rows


class Notes(SilentReporter):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)


def shard_count(space: Space) -> int:
    return len(list((space.folder / "shards").iterdir()))


def test_nothing_exists_before_the_first_append(store: Store, space: Space) -> None:
    ids = make_ids(3)
    assert space.missing([ids[1], ids[0], ids[1]]) == [ids[1], ids[0]]
    assert len(space) == 0
    assert space.columns() is None
    assert len(space.read([])) == 0
    with pytest.raises(StoreError, match="lacks 3 rows"):
        space.read(ids)
    assert store.spaces() == []
    assert not store.root.exists()


def test_rows_come_back_in_the_order_asked(filled) -> None:
    space, ids, rows = filled(100, 17)
    order = np.random.default_rng(0).integers(0, 100, 300)
    features = space.read([ids[i] for i in order])
    assert features.ids == tuple(ids[i] for i in order)
    np.testing.assert_array_equal(features.array(), rows[order])
    assert space.missing(ids) == []
    assert shard_count(space) == 6


def test_the_description_lies_beside_the_rows(filled) -> None:
    space, _, _ = filled(3, 3)
    content = json.loads((space.folder / "space.json").read_text())
    assert content == {"format": 1, "key": space.key, "description": DESCRIPTION}


def test_the_first_publication_wins(space: Space) -> None:
    ids = make_ids(6)
    first, second = np.zeros((4, 2), "f4"), np.ones((6, 2), "f4")
    assert space.append(ids[:4], {"x": first}) == 4
    assert space.append(ids, {"x": second}) == 2
    assert space.append(ids, {"x": second}) == 0
    assert space.read(ids).array()[:, 0].tolist() == [0, 0, 0, 0, 1, 1]
    assert shard_count(space) == 2


def test_of_duplicates_in_a_call_the_first_counts(space: Space) -> None:
    a, b = make_ids(2)
    assert space.append([a, b, a], {"x": np.array([[1.0], [2.0], [3.0]])}) == 2
    assert space.read([b, a]).array().tolist() == [[2.0], [1.0]]


def test_views_are_rows_of_their_own(space: Space) -> None:
    ids = make_ids(3)
    space.append(ids, {"x": np.zeros((3, 1), "f4")}, view=0)
    assert space.missing(ids, view=7) == ids
    space.append(ids, {"x": np.full((3, 1), 7, "f4")}, view=7)
    assert space.read(ids, view=7).array().tolist() == [[7], [7], [7]]
    assert space.read(ids).array().tolist() == [[0], [0], [0]]
    with pytest.raises(StoreError, match="of view 8"):
        space.read(ids, view=8)


@pytest.mark.parametrize(
    "dtype", ["float16", "float32", "float64", "bool", "int8", "uint8", "int64", "uint64"]
)
@pytest.mark.parametrize("shape", [(), (5,), (2, 3), (2, 1, 3)])
def test_every_type_and_shape_comes_back_exactly(space: Space, dtype: str, shape: tuple) -> None:
    ids = make_ids(9)
    rows = (np.random.default_rng(0).standard_normal((9, *shape)) * 50).astype(dtype)
    space.append(ids[:5], {"x": rows[:5]})
    space.append(ids[5:], {"x": rows[5:]})
    features = space.read(ids)
    assert features.columns["x"].dtype == dtype
    assert features.columns["x"].shape == shape
    np.testing.assert_array_equal(features.array(), rows, strict=True)
    np.testing.assert_array_equal(features[[8, 0, 4]], rows[[8, 0, 4]], strict=True)


def test_foreign_byte_order_and_strides_are_taken(space: Space) -> None:
    ids = make_ids(4)
    rows = np.arange(24, dtype=">f4").reshape(4, 6)[:, ::2]
    space.append(ids, {"x": rows})
    np.testing.assert_array_equal(space.read(ids).array(), rows)


def test_special_values_are_kept_bit_by_bit(space: Space) -> None:
    ids = make_ids(1)
    rows = np.array([[np.nan, np.inf, -np.inf, -0.0, 1e-45]], "f4")
    space.append(ids, {"x": rows})
    assert space.read(ids).array().tobytes() == rows.tobytes()


def test_float16_is_checked_for_overflow_and_falls_back_aloud(space: Space) -> None:
    ids, notes = make_ids(4), Notes()
    small, large = make_rows(ids[:2]), make_rows(ids[2:]) * 1e6
    space.append(ids[:2], {"x": small}, storage="float16", reporter=notes)
    assert notes.texts == []
    assert space.read(ids[:2]).columns["x"].dtype == np.float16
    space.append(ids[2:], {"x": large}, storage="float16", reporter=notes)
    assert "stored as float32 instead of float16" in notes.texts[0]
    both = space.read(ids)
    assert both.columns["x"].dtype == np.float32
    np.testing.assert_array_equal(both.array()[2:], large)
    np.testing.assert_allclose(both.array()[:2], small, rtol=2**-11, atol=1e-7)


def test_int8_keeps_its_error_bound_and_records_it(space: Space, store: Store) -> None:
    ids = make_ids(50)
    rows = make_rows(ids, 64) * np.logspace(-3, 3, 50, dtype="f4")[:, None]
    rows[7] = 0
    space.append(ids, {"x": rows}, storage="int8")
    found = space.read(ids).array()
    bound = np.abs(rows).max(axis=1, keepdims=True) / 254 * 1.001
    assert (np.abs(found - rows) <= bound).all()
    (spec,) = store.spaces()[0].columns
    assert spec.encoding == "int8"
    assert spec.max_error == pytest.approx(np.abs(found - rows).max(), rel=1e-6)
    assert 0 < spec.rms_error < 0.01
    assert spec.row_bytes == 64 + 4
    np.testing.assert_array_equal(space.read(ids)[3:9], found[3:9])
    np.testing.assert_array_equal(space.read(ids)[[9, 3]], found[[9, 3]])


def test_int8_meets_nan_with_float32(space: Space) -> None:
    notes = Notes()
    space.append(make_ids(1), {"x": np.array([[np.nan, 1]], "f4")}, storage="int8", reporter=notes)
    assert "not finite" in notes.texts[0]
    assert np.isnan(space.read(make_ids(1)).array()[0, 0])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({}, "there is no column"),
        ({"id": np.zeros((3, 1))}, "reserved by the format"),
        ({"x": np.zeros((3, 1)), "x.scale": np.zeros(3)}, "reserved by the format"),
        ({"x": np.zeros((2, 1))}, r"shape \(2, 1\) for 3 ids"),
        ({"x": np.zeros((3, 0))}, "rows of shape"),
        ({"x": [[1], [2], [3]]}, "not a NumPy array"),
        ({"x": np.zeros(3, "c8")}, "complex64"),
        ({"x": np.array(["a", "b", "c"], object)}, "object"),
        ({"a\nb": np.zeros(3)}, "printable"),
    ],
)
def test_bad_columns_are_refused(space: Space, columns: dict, message: str) -> None:
    with pytest.raises(StoreError, match=message):
        space.append(make_ids(3), columns)
    assert len(space) == 0


@pytest.mark.parametrize("bad", ["ABCD" * 8, "0" * 31, "../" + "0" * 29, "0" * 30 + " 1", 7, None])
def test_bad_ids_are_refused_everywhere(space: Space, bad: object) -> None:
    good = make_ids(1)[0]
    for use in (
        lambda ids: space.missing(ids),
        lambda ids: space.read(ids),
        lambda ids: space.append(ids, {"x": np.zeros((2, 1))}),
    ):
        with pytest.raises(StoreError, match="id 1 is"):
            use([good, bad])


@pytest.mark.parametrize("view", [-1, 2**31, 1.5, True, "0"])
def test_bad_views_are_refused(space: Space, view: object) -> None:
    with pytest.raises(StoreError, match="a view is"):
        space.missing(make_ids(1), view=view)


def test_shards_must_agree_about_columns(filled) -> None:
    space, _, _ = filled(4, 4)
    more = make_ids(2, "more")
    for columns in (
        {"features": np.zeros((2, 15), "f4")},
        {"other": np.zeros((2, 16), "f4")},
        {"features": np.zeros((2, 16), "f8")},
    ):
        with pytest.raises(StoreError, match="has the columns 'features'"):
            space.append(more, columns)
    assert space.missing(more) == more


def test_large_appends_are_divided(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headstart.store.space.MAX_SHARD_BYTES", 640)
    ids = make_ids(25)
    assert space.append(ids, {"x": make_rows(ids)}) == 25
    assert shard_count(space) == 3
    np.testing.assert_array_equal(space.read(ids).array(), make_rows(ids))


def test_preflight_says_what_is_there(filled, store: Store) -> None:
    _, ids, _ = filled(10, 10)
    plan = store.space(DESCRIPTION).preflight([*ids, *make_ids(5, "new"), ids[0]])
    assert (plan.present, plan.missing) == (10, 5)
    assert plan.bytes_needed == 5 * (64 + 80)
    assert plan.bytes_free > 0
    empty = store.space({"other": 1})
    assert empty.preflight(ids).bytes_needed is None
    assert empty.preflight(ids, row_bytes=20).bytes_needed == 1000


def test_a_space_can_be_pickled_and_read_by_another_object(filled, store: Store) -> None:
    space, ids, rows = filled(10, 4)
    copy = pickle.loads(pickle.dumps(space))
    np.testing.assert_array_equal(copy.read(ids).array(), rows)
    features = pickle.loads(pickle.dumps(space.read(ids[::-1])))
    np.testing.assert_array_equal(features.array(), rows[::-1])
    np.testing.assert_array_equal(Store(store.root).space(DESCRIPTION).read(ids).array(), rows)


def _child(space: Space, ids: list[str], results: multiprocessing.Queue) -> None:
    more = make_ids(5, "child")
    new = space.append(more, {"features": make_rows(more)})
    results.put((new, space.read(ids).array().sum(), space.missing(more)))


def test_a_space_survives_a_fork(filled) -> None:
    space, ids, rows = filled(10, 4)
    fork = multiprocessing.get_context("fork")
    results = fork.Queue()
    child = fork.Process(target=_child, args=(space, ids, results))
    child.start()
    assert results.get(timeout=60) == (5, rows.sum(), [])
    child.join()
    assert child.exitcode == 0
    more = make_ids(5, "child")
    np.testing.assert_array_equal(space.read(more).array(), make_rows(more))


def test_claims_share_the_work(store: Store) -> None:
    one, two, ids = store.space(DESCRIPTION), store.space(DESCRIPTION), make_ids(10)
    mine, theirs = one.claim(ids, limit=4), two.claim(ids, limit=4)
    assert mine == ids[:4]
    assert theirs == ids[4:8]
    assert one.claim(ids) == ids[8:]
    assert two.claim(ids) == []
    two.append(theirs, {"x": make_rows(theirs)})
    one.release()
    assert two.claim(ids) == ids[:4] + ids[8:]


def test_claims_of_a_dead_owner_are_free(store: Store) -> None:
    one, two, ids = store.space(DESCRIPTION), store.space(DESCRIPTION), make_ids(4)
    assert one.claim(ids) == ids
    assert two.claim(ids) == []
    del one  # its locks go with it, as they do when a process dies
    assert two.claim(ids) == ids


def test_the_store_loads_no_torch() -> None:
    code = "import sys, headstart.store; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def _sum_and_gc(features: FeatureSet, results: multiprocessing.Queue) -> None:
    total = float(features.array().sum())
    root = features._source._layout.root
    results.put((total, Store(root).gc(max_size=0).removed))


def test_a_spawned_process_reads_and_holds_what_it_was_handed(filled) -> None:
    space, ids, rows = filled(10, 4)
    features = space.read(ids)
    spawn = multiprocessing.get_context("spawn")
    results = spawn.Queue()
    child = spawn.Process(target=_sum_and_gc, args=(features, results))
    child.start()
    space.close()
    total, removed = results.get(timeout=60)
    child.join()
    assert total == pytest.approx(float(rows.sum()))
    assert removed == ()


def test_an_unusable_root_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    space = Store(tmp_path / "file").space(DESCRIPTION)
    with pytest.raises(
        StoreError, match=r"cannot open the space in .*: a file is in the place of a folder"
    ) as caught:
        space.append(make_ids(1), {"x": np.zeros((1, 1))})
    assert "\n" not in str(caught.value)
