"""Edited and damaged results and memos: never believed, named by verify, removed by a repair."""

from __future__ import annotations

import json
import os
import random
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from headstart.store import Memo, Store, result_key

KEY, OTHER = result_key({"head": 1}), result_key({"head": 2})
WEIGHTS = np.arange(12, dtype=np.float32).reshape(3, 4)
VALUES = {"chosen": {"C": 3.16}, "accuracy": 0.875, "name": "linear"}
DIGEST, ANOTHER = "a1" * 16, "b2" * 16


def old_file(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    then = time.time_ns() - 100 * 10**9
    os.utime(path, ns=(then, then))
    return path


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with a space, two results, and a memo of one file, ``tmp_path / "a.jpg"``."""
    store = Store(tmp_path / "store")
    space = store.space({"n": 1})
    space.append([KEY], {"x": np.zeros((1, 2), np.float32)})
    space.close()
    store.results("heads").put(KEY, {"weights": WEIGHTS}, VALUES)
    store.results("baselines").put(OTHER, values=VALUES)
    with store.memo() as memo:
        memo.remember(old_file(tmp_path / "a.jpg", b"content"), DIGEST)
    assert store.verify().ok
    assert store.verify().kept == 3
    return store


def result(store: Store) -> Path:
    return store.root / "results" / "heads" / f"{KEY}.safetensors"


def edit(store: Store, statement: str) -> None:
    connection = sqlite3.connect(store.root / "files.sqlite")
    with connection:
        connection.execute(statement)
    connection.close()


# -- the memo ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        "digest = 'b' || substr(digest, 2)",
        "digest = substr(digest, 1, 31) || '2'",
        "digest = x'00'",
        f"digest = '{ANOTHER}'",
        "sum = iif(sum LIKE 'b%', 'c', 'b') || substr(sum, 2)",
        "sum = ''",
        "size = size + 1",
        "mtime = mtime + 1",
        "ctime = ctime - 1",
        "inode = inode + 1",
        "inode = 'x'",
        "path = path || x'20'",
        "path = 'text'",
    ],
)
def test_one_edited_digit_makes_no_image_another(store: Store, tmp_path: Path, change: str) -> None:
    edit(store, f"UPDATE files SET {change}")
    file = tmp_path / "a.jpg"
    with store.memo() as memo:
        assert memo.lookup(file) is None
    (fault,) = store.verify().faults
    assert (fault.kind, fault.path.name) == ("memo", "files.sqlite")
    with store.memo() as memo:  # it is hashed and remembered again
        memo.remember(file, DIGEST)
        assert memo.lookup(file) == DIGEST
    assert store.verify(repair=True).ok
    assert store.verify().faults == ()
    with store.memo() as memo:
        assert memo.lookup(file) == DIGEST


def test_a_memo_that_is_no_database_is_removed_by_a_repair(store: Store, tmp_path: Path) -> None:
    rng = random.Random(0)
    path = store.root / "files.sqlite"
    sound = path.read_bytes()
    for content in (b"", b"text" * 500, sound[:5000], sound[:100] + rng.randbytes(len(sound))):
        path.write_bytes(content)
        store.verify(repair=True)
        assert store.verify().faults == (), content[:20]
        with store.memo() as memo:
            memo.remember(tmp_path / "a.jpg", DIGEST)
        with store.memo() as memo:
            assert memo.lookup(tmp_path / "a.jpg") == DIGEST


def test_any_flipped_bit_of_the_memo_is_harmless(store: Store, tmp_path: Path) -> None:
    rng = random.Random(1)
    path = store.root / "files.sqlite"
    sound = path.read_bytes()
    for _ in range(100):
        damaged = bytearray(sound)
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        with store.memo() as memo:
            assert memo.lookup(tmp_path / "a.jpg") in (None, DIGEST)
        assert store.verify(repair=True).ok


def test_the_memo_of_an_earlier_edition_is_not_read(tmp_path: Path) -> None:
    file = old_file(tmp_path / "a.jpg", b"content")
    path = tmp_path / "files.sqlite"
    found = file.stat()
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(
            "CREATE TABLE memo (path BLOB PRIMARY KEY, size INTEGER, mtime INTEGER, inode INTEGER,"
            " digest TEXT) WITHOUT ROWID"
        )
        row = (os.fsencode(file), found.st_size, found.st_mtime_ns, found.st_ino, ANOTHER)
        connection.execute("INSERT INTO memo VALUES (?, ?, ?, ?, ?)", row)
    connection.close()
    store = Store(tmp_path)
    assert store.verify().faults == ()
    with store.memo() as memo:
        assert memo.lookup(file) is None
        memo.remember(file, DIGEST)
    with store.memo() as memo:
        assert memo.lookup(file) == DIGEST


@pytest.mark.skipif(sys.platform == "win32", reason="no time of change there")
def test_a_file_rewritten_in_place_with_equal_size_and_time_is_noticed(tmp_path: Path) -> None:
    file = old_file(tmp_path / "a.jpg", b"one")
    memo = Memo(tmp_path / "memo.sqlite")
    for content, digest in ((b"two", ANOTHER), (b"six", DIGEST)) * 10:
        memo.remember(file, digest)
        before = file.stat()
        with file.open("r+b") as stream:
            stream.write(content)
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        after = file.stat()
        assert (after.st_size, after.st_mtime_ns, after.st_ino) == (
            before.st_size,
            before.st_mtime_ns,
            before.st_ino,
        )
        assert memo.lookup(file) is None


def test_a_file_that_changes_while_it_is_hashed_is_not_remembered(tmp_path: Path) -> None:
    file = old_file(tmp_path / "a.jpg", b"one")
    memo = Memo(tmp_path / "memo.sqlite")
    assert memo.lookup(file) is None
    old_file(file, b"two")  # now, before its digest is handed in
    memo.remember(file, DIGEST)
    assert memo.lookup(file) is None


def test_inodes_of_64_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = old_file(tmp_path / "a.jpg", b"one")
    real = os.stat

    class Wide:
        st_ino = 2**64 - 5

        def __getattr__(self, name: str) -> object:
            return getattr(real(file), name)

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", lambda p, **o: Wide() if str(p) == str(file) else real(p, **o))
        with Memo(tmp_path / "memo.sqlite") as memo:
            memo.remember(file, DIGEST)
        assert Memo(tmp_path / "memo.sqlite").lookup(file) == DIGEST


# -- results -------------------------------------------------------------------------------------


def flip(content: bytes, rng: random.Random) -> bytes:
    damaged = bytearray(content)
    damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


EDITS: dict[str, Callable[[bytes], bytes]] = {
    "chosen": lambda c: c.replace(b"3.16", b"9.99"),
    "accuracy": lambda c: c.replace(b"0.875", b"0.999"),
    "name": lambda c: c.replace(b"linear", b"Linear"),
    "weights": lambda c: c[:-4] + np.float32(7).tobytes(),
    "shape": lambda c: c.replace(b"[3,4]", b"[4,3]"),
    "key": lambda c: c.replace(KEY.encode(), OTHER.encode()),
    "cut": lambda c: c[:-1],
    "more": lambda c: c + b"0",
    "empty": lambda c: b"",
    "text": lambda c: b"{}",
    "format 0": lambda c: c.replace(b'"format":"1"', b'"format":"0"'),
}


@pytest.mark.parametrize("how", EDITS)
def test_an_edited_result_is_computed_again(store: Store, how: str) -> None:
    path = result(store)
    content = path.read_bytes()
    edited = EDITS[how](content)
    assert edited != content
    path.write_bytes(edited)
    heads = store.results("heads")
    assert heads.get(KEY) is None
    (fault,) = store.verify().faults
    assert (fault.kind, fault.path) == ("result", path)
    assert store.verify(repair=True).ok
    assert not path.exists()
    assert store.verify().faults == ()
    assert store.results("baselines").get(OTHER) is not None


def test_any_flipped_bit_of_a_result_is_noticed(store: Store) -> None:
    rng = random.Random(2)
    path, heads = result(store), store.results("heads")
    content = path.read_bytes()
    for _ in range(300):
        path.write_bytes(flip(content, rng))
        found = heads.get(KEY)
        if found is not None:  # white space that pads the header
            np.testing.assert_array_equal(found.arrays["weights"], WEIGHTS)
            assert found.values == VALUES


def test_results_that_may_be_sound_stay(store: Store) -> None:
    path = result(store)
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"format":"1"', b'"format":"2"'))
    report = store.verify(repair=True)
    assert [fault.kind for fault in report.faults] == ["newer"]
    assert path.exists()
    assert store.results("heads").get(KEY) is None
    path.unlink()
    path.mkdir()
    (path / "mine.txt").write_text("keep")
    assert store.results("heads").get(KEY) is None
    assert [fault.kind for fault in store.verify().faults] == ["folder"]
    assert store.verify(repair=True).ok
    assert [p.read_text() for p in path.parent.rglob("mine.txt")] == ["keep"]
    store.results("heads").put(KEY, {"weights": WEIGHTS}, VALUES)
    assert store.verify().ok


# -- collecting garbage --------------------------------------------------------------------------


def test_gc_removes_all_that_a_store_holds_and_nothing_else(store: Store, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    precious = old_file(outside / f"{KEY}.safetensors", b"not ours")
    results = store.root / "results"
    (results / "linked").symlink_to(outside)
    (results / "heads" / "notes.txt").write_text("mine")
    (results / "heads" / f"{OTHER}.safetensors").symlink_to(precious)
    left = results / "heads" / f".{KEY}.safetensors.{'0' * 16}.tmp"
    fresh = left.with_name(f".{KEY}.safetensors.{'1' * 16}.tmp")
    left.write_bytes(b"half")
    fresh.write_bytes(b"being written")
    os.utime(left, (time.time() - 7200, time.time() - 7200))
    total = sum(file.nbytes for file in store.files()) + sum(s.nbytes for s in store.spaces())
    plan = store.gc(max_size=0, dry_run=True)
    report = store.gc(max_size=0)
    assert plan == report
    assert report.freed == total - fresh.stat().st_size
    assert [info.rows for info in report.removed] == [1]
    remaining = {path.name for path in store.root.rglob("*")}
    assert remaining == {"results", "heads", "linked", "notes.txt", fresh.name}
    assert precious.read_bytes() == b"not ours"


def test_gc_goes_by_age_over_results_and_spaces_together(store: Store) -> None:
    month = time.time() - 30 * 86400
    os.utime(result(store), (month, month))
    report = store.gc(older_than=86400)
    assert (report.removed, [file.path for file in report.files]) == ((), [result(store)])
    assert store.verify().ok


def test_dates_in_the_future_age(store: Store) -> None:
    (info,) = store.spaces()
    lock = store.root / info.key / "lock"
    then = time.time() + 10 * 365 * 86400
    for path in (lock, result(store), store.root / "files.sqlite"):
        os.utime(path, (then, then))
    assert abs(store.spaces()[0].last_used - time.time()) < 60
    assert store.gc(older_than=3600).freed == 0
    assert lock.stat().st_mtime < time.time() + 60  # it ages from now on
    assert len(store.gc(older_than=0).removed) == 1


def test_a_forged_value_with_its_old_digest_is_not_believed(store: Store) -> None:
    """The whole way: a head's chosen C, its accuracy, and its arrays, edited one by one."""
    path, heads = result(store), store.results("heads")
    for old, new in ((b"3.16", b"31.6"), (b"0.875", b"1.000")):
        content = path.read_bytes()
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        header["__metadata__"]["values"] = header["__metadata__"]["values"].replace(
            old.decode(), new.decode()
        )
        text = json.dumps(header).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])
        assert heads.get(KEY) is None
        heads.put(KEY, {"weights": WEIGHTS}, VALUES)
