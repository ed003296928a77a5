"""Thousands of small shards: few descriptors, merged in time, and no row lost or changed by it."""

from __future__ import annotations

import hashlib
import os
import pickle
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart.core.errors import StoreError
from headstart.store import Space, Store
from headstart.store import merge as merge_module
from headstart.store import space as space_module
from headstart.store.database import _Connection
from tests.attacks.children import in_child, limit_descriptors

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX limits and signals")

DESCRIPTION = {"backbone": "tiny", "layer": "pool"}


def make_ids(count: int) -> list[str]:
    return [hashlib.md5(str(i).encode()).hexdigest() for i in range(count)]


def make_rows(ids: list[str]) -> np.ndarray:
    seeds = np.array([int(key[:8], 16) for key in ids], np.float64)[:, None]
    return np.sin(seeds * np.arange(1, 9)).astype(np.float32)


IDS = make_ids(400)
ROWS = make_rows(IDS)


def append(space: Space, start: int, stop: int, **options: Any) -> None:
    part = slice(start, stop)
    space.append(IDS[part], {"x": ROWS[part], "y": ROWS[part, :2]}, **options)


def fill(root: Path, step: int, **options: Any) -> Space:
    space = Store(root).space(DESCRIPTION)
    for start in range(0, len(IDS), step):
        append(space, start, start + step, **options)
    return space


def check(space: Space, view: int = 0) -> None:
    assert space.missing(IDS, view) == []
    rows = space.read(IDS, view)[np.arange(len(IDS))]
    np.testing.assert_array_equal(rows["x"], ROWS)
    np.testing.assert_array_equal(rows["y"], ROWS[:, :2])


def shard_count(space: Space) -> int:
    return len(list((space.folder / "shards").iterdir()))


@pytest.fixture
def unmerged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space_module, "MERGE_AT", 10**9)


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space_module, "MERGE_AT", 8)


def merge_now(space: Space) -> None:
    index = space._folder.created()
    merge_module.merge_small_shards(space._layout, index)


# -- descriptors ---------------------------------------------------------------------------------


def test_many_shards_are_read_with_few_descriptors(tmp_path: Path, unmerged: None) -> None:
    """As an earlier edition left them: one shard a commit, and a limit far below their number."""
    space = fill(tmp_path, 1)
    assert shard_count(space) == 400
    space.close()

    def work() -> str:
        limit_descriptors(26)
        again = Store(tmp_path).space(DESCRIPTION)
        check(again)
        features = again.read(IDS)
        order = np.random.default_rng(0).permutation(400)
        np.testing.assert_array_equal(features[order]["x"], ROWS[order])
        assert Store(tmp_path).verify().ok
        return "read"

    assert in_child(work) == "read"


def test_a_fill_of_many_commits_leaves_few_shards(tmp_path: Path) -> None:
    space = fill(tmp_path, 2)
    assert shard_count(space) < 2 * merge_module.MERGE_AT
    check(space)
    report = Store(tmp_path).verify()
    assert (report.rows, report.faults) == (400, ())


# -- what merging keeps --------------------------------------------------------------------------


@pytest.mark.parametrize("storage", [None, "float16", "int8"])
def test_rows_keep_their_bytes(tmp_path: Path, unmerged: None, storage: Any) -> None:
    space = fill(tmp_path, 5, storage=storage)
    before = {name: space.read(IDS).array(name).tobytes() for name in ("x", "y")}
    errors = {spec.name: spec.max_error for spec in Store(tmp_path).spaces()[0].columns}
    size = Store(tmp_path).spaces()[0].nbytes
    merge_now(space)
    assert shard_count(space) == 1
    assert {name: space.read(IDS).array(name).tobytes() for name in ("x", "y")} == before
    assert Store(tmp_path).verify().faults == ()
    (info,) = Store(tmp_path).spaces()
    assert {spec.name: spec.max_error for spec in info.columns} == errors
    assert info.nbytes < size


def test_views_and_widened_columns_stay_apart(tmp_path: Path, unmerged: None) -> None:
    space = Store(tmp_path).space(DESCRIPTION)
    for view in (0, 1, 7):
        for start in range(0, 400, 100):
            append(space, start, start + 100, view=view, storage="float16")
    huge = make_ids(402)[400:]
    large = np.full((2, 8), 1e6, np.float32)  # float16 cannot hold it: stored as float32
    space.append(huge, {"x": large, "y": large[:, :2]}, storage="float16")
    before = {view: space.read(IDS, view).array("x").tobytes() for view in (0, 1, 7)}
    merge_now(space)
    assert shard_count(space) == 4
    assert {view: space.read(IDS, view).array("x").tobytes() for view in (0, 1, 7)} == before
    np.testing.assert_array_equal(space.read(huge).array("x"), large)
    assert Store(tmp_path).verify().faults == ()


def test_many_views_are_not_tried_again_at_every_commit(
    tmp_path: Path, eager: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    real = merge_module.merge_small_shards
    monkeypatch.setattr(
        space_module, "merge_small_shards", lambda *a: (calls.append(1), real(*a))[1]
    )
    space = Store(tmp_path).space(DESCRIPTION)
    for view in range(40):
        append(space, 0, 4, view=view)
    assert len(calls) <= 5
    assert shard_count(space) == 40


def test_rows_that_are_in_two_shards_stay_one(tmp_path: Path, unmerged: None) -> None:
    """Two processes computed the same rows at the same time: the first publication wins."""
    space = Store(tmp_path).space(DESCRIPTION)
    append(space, 0, 6)
    index = space._folder.created()
    with index.transaction() as connection:
        connection.execute("DELETE FROM rows WHERE position >= 4")
    append(space, 4, 8)
    with index.transaction() as connection:  # row 3 is in both now
        connection.execute("UPDATE rows SET position = position")
    append(space, 8, 400)
    merge_now(space)
    check(space)
    assert Store(tmp_path).verify().faults == ()


@pytest.mark.parametrize("how", ["merge", "repair"])
def test_the_number_of_a_shard_never_becomes_that_of_another(
    tmp_path: Path, unmerged: None, how: str
) -> None:
    """A reader between its two questions (where? in which shard?) would read other rows."""
    space = fill(tmp_path, 100)
    index = space._folder.created()
    before = index.shard_entries()
    if how == "merge":
        merge_now(space)
    else:
        next((space.folder / "shards").iterdir()).write_bytes(b"")
        assert Store(tmp_path).verify(repair=True).ok
    append(space, 0, 400, view=1)
    after = index.shard_entries()
    assert set(after).isdisjoint(before)
    check(space, view=1)


def test_what_is_damaged_is_left_to_verify(tmp_path: Path, unmerged: None) -> None:
    space = fill(tmp_path, 20)
    space.close()
    paths = sorted((space.folder / "shards").iterdir())
    paths[0].write_bytes(paths[0].read_bytes()[:-1])
    paths[1].unlink()
    space = Store(tmp_path).space(DESCRIPTION)
    merge_now(space)
    assert shard_count(space) == 2
    assert paths[0].exists()
    assert not Store(tmp_path).verify().ok
    space.close()
    assert Store(tmp_path).verify(repair=True).ok
    assert len(space.missing(IDS)) == 40


def test_the_mirror_of_a_remote_store_is_not_merged(tmp_path: Path, eager: None) -> None:
    remote = f"file://{tmp_path}/remote"
    space = Store(tmp_path / "mirror", remote=remote).space(DESCRIPTION)
    for start in range(0, 400, 10):
        append(space, start, start + 10)
    assert shard_count(space) == 40
    append(Store(tmp_path / "mirror").space(DESCRIPTION), 0, 400, view=1)
    assert shard_count(space) == 41
    check(Store(tmp_path / "other", remote=remote).space(DESCRIPTION))


# -- readers beside it ---------------------------------------------------------------------------


def test_a_feature_set_opened_before_reads_on(tmp_path: Path, unmerged: None) -> None:
    space = fill(tmp_path, 5)
    reader = Store(tmp_path).space(DESCRIPTION)
    features, sent = reader.read(IDS), pickle.dumps(reader.read(IDS))
    touched = features[:3]["x"]
    views = dict(reader.all_rows())
    merge_now(space)
    np.testing.assert_array_equal(touched, ROWS[:3])
    for found in (features, pickle.loads(sent)):
        np.testing.assert_array_equal(found[np.arange(400)]["x"], ROWS)
        np.testing.assert_array_equal(found[17]["y"], ROWS[17, :2])
        np.testing.assert_array_equal(found.array("x"), ROWS)
    assert len(views[0][:]["x"]) == 400
    (path,) = (space.folder / "shards").iterdir()
    path.unlink()
    fresh = Store(tmp_path).space(DESCRIPTION)
    with pytest.raises(StoreError, match="the file is missing"):
        fresh.read(IDS)
    for found in (pickle.loads(sent), pickle.loads(pickle.dumps(features))):
        with pytest.raises(StoreError, match="the file is missing"):
            found.array("x")


def test_threads_read_while_shards_are_merged(tmp_path: Path, eager: None) -> None:
    space = fill(tmp_path, 100)
    stop, errors = threading.Event(), []

    def read() -> None:
        rng = np.random.default_rng(threading.get_ident())
        try:
            features = Store(tmp_path).space(DESCRIPTION).read(IDS)
            while not stop.is_set():
                chosen = rng.integers(0, 400, 50)
                np.testing.assert_array_equal(features[chosen]["x"], ROWS[chosen])
                rows = Store(tmp_path).space(DESCRIPTION).read(IDS[:50])
                np.testing.assert_array_equal(rows.array("x"), ROWS[:50])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    more = make_ids(700)[400:]
    for start in range(0, 300, 5):
        part = more[start : start + 5]
        space.append(part, {"x": make_rows(part), "y": make_rows(part)[:, :2]})
    stop.set()
    for thread in threads:
        thread.join()
    assert errors == []
    check(space)


WRITER = """
import sys
sys.path.insert(0, sys.argv[3])
from tests.attacks import test_many_shards as attack
from headstart.store import Store
from headstart.store import space as space_module
space_module.MERGE_AT = 8
space = Store(sys.argv[1]).space(attack.DESCRIPTION)
for start in range(0, 400, 2):
    mine = space.claim(attack.IDS, limit=2) if sys.argv[2] == "claim" else attack.IDS[start:start+2]
    if mine:
        rows = attack.make_rows(mine)
        space.append(mine, {"x": rows, "y": rows[:, :2]})
"""


@pytest.mark.parametrize("how", ["claim", "race"])
def test_processes_that_append_and_merge_together(tmp_path: Path, how: str) -> None:
    top = str(Path(__file__).parents[2])
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), how, top]) for _ in range(3)
    ]
    while any(writer.poll() is None for writer in writers):
        assert Store(tmp_path).verify().faults == ()
        time.sleep(0.05)
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    space = Store(tmp_path).space(DESCRIPTION)
    check(space)
    assert shard_count(space) < 30
    assert Store(tmp_path).verify().faults == ()


# -- kills ---------------------------------------------------------------------------------------


def _counted(counter: list[int], at: int, real: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **keywords: Any) -> Any:
        counter[0] += 1
        if counter[0] == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **keywords)

    return call


def merge_and_die(root: Path, at: int) -> bool:
    """Merge in a child that is killed before its step ``at``; return whether it came to the end."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            space = Store(root).space(DESCRIPTION)
            space.missing(IDS)
            counter = [0]
            for module, name in (
                (os, "fsync"),
                (os, "rename"),
                (os, "replace"),
                (os, "unlink"),
                (os, "open"),
                (os, "close"),
            ):
                setattr(module, name, _counted(counter, at, getattr(module, name)))
            _Connection.execute = _counted(counter, at, sqlite3.Connection.execute)
            merge_now(space)
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, -signal.SIGKILL)
    return code == 0


def test_a_kill_before_every_step_of_a_merge(tmp_path: Path, unmerged: None) -> None:
    pristine = tmp_path / "pristine"
    fill(pristine, 50).close()
    at, done = 0, False
    while not done:
        at += 1
        root = tmp_path / "killed"
        shutil.copytree(pristine, root)
        done = merge_and_die(root, at)
        report = Store(root).verify()
        assert {fault.kind for fault in report.faults} <= {"orphan"}
        space = Store(root).space(DESCRIPTION)
        check(space)
        merge_now(space)
        check(space)
        space.close()
        assert Store(root).verify(repair=True).ok
        assert Store(root).verify().faults == ()
        space = Store(root).space(DESCRIPTION)
        check(space)
        assert shard_count(space) == 1
        assert list((space.folder / "tmp").iterdir()) == []
        space.close()
        shutil.rmtree(root)
    assert at > 15


def test_a_full_disk_while_merging_loses_nothing(
    tmp_path: Path, eager: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(merge_module, "write_shard", full)
    space = fill(tmp_path, 20)
    check(space)
    assert shard_count(space) == 20
    assert list((space.folder / "tmp").iterdir()) == []
    assert Store(tmp_path).verify().faults == ()
