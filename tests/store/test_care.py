from __future__ import annotations

import os
import subprocess
import sys
import time

import numpy as np
import pytest

from headstart.core.errors import StoreError
from headstart.store import Store
from tests.store.conftest import DESCRIPTION, make_ids, make_rows

OTHER = {"backbone": "tiny", "layers": ["pool"], "preprocessing": {"resize": 232}}


def fill(store: Store, description: dict, rows: int = 10) -> str:
    """Fill a space and leave it."""
    space = store.space(description)
    ids = make_ids(rows)
    space.append(ids, {"features": make_rows(ids)})
    return space.key


def test_spaces_are_listed(store: Store) -> None:
    key = fill(store, DESCRIPTION)
    (store.root / "notes.txt").write_text("not a space")
    (info,) = store.spaces()
    assert (info.key, info.rows, info.shards, info.problem) == (key, 10, 1, None)
    assert info.description == DESCRIPTION
    assert info.nbytes > 640
    assert not info.in_use
    space = store.space(DESCRIPTION)
    assert len(space) == 10
    assert store.spaces()[0].in_use


def test_a_space_is_found_by_the_beginning_of_its_key(store: Store) -> None:
    key = fill(store, DESCRIPTION)
    assert store.find(key[:6]).key == key
    with pytest.raises(StoreError, match=f"there are: {key[:12]}"):
        store.find("zz")
    with pytest.raises(StoreError, match="no space"):
        store.find("")


def test_explain_and_nearest_name_what_differs(store: Store) -> None:
    key = fill(store, DESCRIPTION)
    fill(store, {"backbone": "large"})
    wanted = store.space(OTHER)
    nearest = wanted.nearest()
    assert nearest is not None
    assert nearest.key == key
    assert [str(d) for d in nearest.differences] == ["preprocessing.resize: 256 → 232"]
    assert store.explain(key[:8], OTHER) == nearest.differences
    assert store.explain(wanted, OTHER) == ()
    assert Store(store.root / "nowhere").space(OTHER).nearest() is None


def test_verify_reads_everything_and_finds_nothing_wrong(store: Store) -> None:
    fill(store, DESCRIPTION)
    fill(store, OTHER, 20)
    report = store.verify()
    assert report.ok
    assert (report.spaces, report.shards, report.rows, report.faults) == (2, 2, 30, ())


def test_an_unregistered_shard_is_adopted(store: Store) -> None:
    ids = make_ids(10)
    fill(store, DESCRIPTION)
    space = store.space(DESCRIPTION)
    with space._folder.created().transaction() as connection:
        connection.execute("DELETE FROM rows")
        connection.execute("DELETE FROM shards")
    assert space.missing(ids) == ids
    assert [fault.kind for fault in store.verify().faults] == ["orphan"]
    assert store.verify(repair=True).ok
    assert store.verify().faults == ()
    np.testing.assert_array_equal(space.read(ids).array(), make_rows(ids))


def test_a_lost_index_is_noticed_and_rebuilt(store: Store) -> None:
    fill(store, DESCRIPTION)
    ids = make_ids(10)
    (store.root / store.space(DESCRIPTION).key / "index.sqlite").unlink()
    with pytest.raises(StoreError, match=r"index of .* is missing") as caught:
        store.space(DESCRIPTION).missing(ids)
    assert "verify --repair" in str(caught.value)
    assert not store.verify().ok
    assert store.verify(repair=True).ok
    assert store.space(DESCRIPTION).missing(ids) == []
    np.testing.assert_array_equal(store.space(DESCRIPTION).read(ids).array(), make_rows(ids))


def test_a_damaged_description_is_written_again(store: Store) -> None:
    key = fill(store, DESCRIPTION)
    path = store.root / key / "space.json"
    path.write_text(path.read_text().replace("256", "255"))
    with pytest.raises(StoreError, match="does not hash to the key"):
        store.space(DESCRIPTION).missing([])
    assert "does not hash" in (store.spaces()[0].problem or "")
    assert store.verify(repair=True).ok
    assert store.space(DESCRIPTION).missing(make_ids(10)) == []
    assert store.verify().faults == ()


def age(store: Store, key: str, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(store.root / key / "lock", (then, then))


def test_gc_goes_by_age_and_size_and_spares_what_is_used(store: Store) -> None:
    keys = [fill(store, {"n": n}) for n in range(4)]
    for n, key in enumerate(keys):
        age(store, key, 1000 * (4 - n))
    held = store.space({"n": 0})
    features = held.read(make_ids(10))
    age(store, keys[0], 4000)
    assert store.gc().removed == ()
    plan = store.gc(older_than=2500, dry_run=True)
    report = store.gc(older_than=2500)
    assert [info.key for info in report.removed] == [keys[1]]
    assert [info.key for info in report.in_use] == [keys[0]]
    assert plan == report
    assert report.freed == report.removed[0].nbytes
    np.testing.assert_array_equal(features.array(), make_rows(make_ids(10)))
    size = sum(info.nbytes for info in store.spaces())
    assert [info.key for info in store.gc(max_size=size - 1).removed] == [keys[2]]
    with pytest.raises(StoreError, match="in use"):
        store.remove(keys[0])
    store.remove(keys[3])
    del held, features
    assert [info.key for info in store.gc(max_size=0).removed] == [keys[0]]
    assert list(store.root.iterdir()) == []
    with pytest.raises(StoreError, match="at least 0"):
        store.gc(max_size=-1)


READER = """
import sys
from headstart.store import Store
features = Store(sys.argv[1]).find(sys.argv[2]).read(sys.argv[3:])
print("open", flush=True)
sys.stdin.readline()
print(float(features.array().sum()), flush=True)
"""


def test_gc_spares_what_another_process_reads(store: Store) -> None:
    key, ids = fill(store, DESCRIPTION), make_ids(10)
    with subprocess.Popen(
        [sys.executable, "-c", READER, str(store.root), key, *ids],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as reader:
        assert reader.stdin is not None
        assert reader.stdout is not None
        assert reader.stdout.readline() == "open\n"
        assert [info.key for info in store.gc(max_size=0).in_use] == [key]
        reader.stdin.write("\n")
        reader.stdin.flush()
        assert float(reader.stdout.readline()) == pytest.approx(float(make_rows(ids).sum()))
    assert [info.key for info in store.gc(max_size=0).removed] == [key]


def test_a_removed_space_can_be_filled_again(store: Store) -> None:
    space, ids = store.space(DESCRIPTION), make_ids(4)
    fill(store, DESCRIPTION)
    assert store.gc(max_size=0).removed
    assert space.missing(ids) == ids
    assert space.append(ids, {"features": make_rows(ids)}) == 4
