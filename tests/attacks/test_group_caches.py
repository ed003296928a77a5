"""One cache for several users: shared to be written by a group, or to be read only."""

from __future__ import annotations

import errno
import hashlib
import os
import sqlite3
import stat
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart.cache import Block, fill
from headstart.core import locks
from headstart.core.errors import StoreError
from headstart.store import Space, Store
from headstart.store.database import Database
from tests.attacks.children import IS_ROOT, in_child, reachable_folder

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="POSIX users and modes"),
]
as_root = pytest.mark.skipif(not IS_ROOT, reason="only root can act as two users")

ANNE, BERT, GROUP = 20_001, 20_002, 30_000
DESCRIPTION = {"backbone": "tiny", "layer": "pool"}
IDS = [hashlib.md5(str(i).encode()).hexdigest() for i in range(60)]
ROWS = np.arange(60 * 4, dtype=np.float32).reshape(60, 4)


@pytest.fixture
def root() -> Iterator[Path]:
    with reachable_folder() as folder:
        (folder / "cache").mkdir()
        yield folder / "cache"


def grant(root: Path, mode: int) -> None:
    os.chown(root, ANNE, GROUP)
    root.chmod(mode)


def append(space: Space, start: int, stop: int) -> None:
    space.append(IDS[start:stop], {"x": ROWS[start:stop]})


def check(space: Space, stop: int) -> None:
    np.testing.assert_array_equal(space.read(IDS[:stop]).array(), ROWS[:stop])


def act(user: int, work: Callable[[], object], *groups: int, main: int | None = None) -> None:
    """Work as a user with umask 022; his main group is his own, unless it is given."""

    def run() -> str:
        if IS_ROOT:
            os.setgroups(groups)
            os.setgid(user if main is None else main)
            os.setuid(user)
        os.umask(0o022)
        work()
        return "done"

    assert in_child(run) == "done"


def use(root: Path, start: int, stop: int) -> Callable[[], None]:
    def work() -> None:
        store = Store(root)
        space = store.space(DESCRIPTION)
        if start:
            check(space, start)
        mine = space.claim(IDS[start:stop])
        assert mine == IDS[start:stop]
        append(space, start, stop)
        space.release()
        check(space, stop)
        store.results("heads").put(IDS[0], values={"stop": stop})
        assert store.results("heads").get(IDS[0]).values == {"stop": stop}  # type: ignore[union-attr]
        file = root / f"picture {start}"
        file.write_bytes(b"x")
        os.utime(file, (1, 1))
        with store.memo() as memo:
            memo.remember(file, IDS[start])
        assert store.memo().lookup(file) == IDS[start]
        assert store.verify(repair=True).ok

    return work


@as_root
@pytest.mark.parametrize("mode", [0o2775, 0o775, 0o2770, 0o777])
@pytest.mark.parametrize("main", [None, GROUP])
def test_a_group_writes_to_one_cache_whatever_its_umask(
    root: Path, mode: int, main: int | None
) -> None:
    grant(root, mode)
    users = [ANNE, BERT, ANNE, BERT]
    for turn, user in enumerate(users):
        act(user, use(root, 10 * turn, 10 * turn + 10), GROUP, main=main)
    for path in root.rglob("*"):
        if path.suffix != ".arrow" and "picture" not in path.name:
            found = path.stat()
            assert found.st_mode & stat.S_IWGRP, path
            assert found.st_gid == GROUP, path
            assert not found.st_mode & stat.S_IWOTH or mode == 0o777, path
    act(ANNE, lambda: Store(root).gc(max_size=0), GROUP)
    assert Store(root).spaces() == []


@as_root
def test_a_cache_of_ones_own_stays_ones_own(root: Path) -> None:
    for mode in (0o755, 0o1777):
        grant(root, mode)
        act(ANNE, use(root, 0, 10))
        for path in root.rglob("*"):
            assert not path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH), path
        act(ANNE, lambda: Store(root).gc(max_size=0))
        for path in root.glob("picture*"):
            path.unlink()


@as_root
def test_two_users_at_the_same_time(root: Path) -> None:
    grant(root, 0o2775)
    children = []
    for user in (ANNE, BERT):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.setgroups([GROUP])
                os.setgid(user)
                os.setuid(user)
                os.umask(0o022)
                for _ in range(30):
                    space = Store(root).space(DESCRIPTION)
                    mine = space.claim(IDS, limit=2)
                    space.append(mine, {"x": ROWS[[IDS.index(key) for key in mine]]}) if mine else 0
                    space.close()
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0]
    check(Store(root).space(DESCRIPTION), 60)


@as_root
def test_the_claims_of_a_colleague_are_respected(root: Path) -> None:
    grant(root, 0o2775)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([GROUP])
            os.setgid(ANNE)
            os.setuid(ANNE)
            os.umask(0o077)
            space = Store(root).space(DESCRIPTION)
            space.claim(IDS[:20])
            os.write(writing, b"x")
            time.sleep(60)
        finally:
            os._exit(0)
    os.read(reading, 1)

    def work() -> None:
        assert Store(root).space(DESCRIPTION).claim(IDS[:40]) == IDS[20:40]

    try:
        act(BERT, work, GROUP)
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
    act(BERT, use(root, 0, 40), GROUP)


def closed_as_before(folder: Path) -> None:
    """As an earlier edition left it under umask 022: folders were opened by hand, files not."""
    for path in folder.rglob("*"):
        path.chmod(0o2775 if path.is_dir() else 0o644)


@as_root
@pytest.mark.parametrize("busy", [False, True])
def test_a_reader_does_not_lock_the_owner_out(root: Path, busy: bool) -> None:
    grant(root, 0o2775)
    act(ANNE, use(root, 0, 10), GROUP)
    closed_as_before(root)
    folder = root / Store(root).space(DESCRIPTION).key
    reading, writing = os.pipe()
    stay, leave = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(leave)
            os.setgroups([GROUP])
            os.setgid(BERT)
            os.setuid(BERT)
            os.umask(0o022)
            space = Store(root).space(DESCRIPTION)
            features = space.read(IDS[:10])
            np.testing.assert_array_equal(features.array(), ROWS[:10])
            os.write(writing, b"x")
            if busy:
                os.read(stay, 1)
                assert space.missing(IDS) == IDS[20:]  # sees what was added beside it
                check(space, 20)
            code = 0
        finally:
            os._exit(code)
    os.close(stay)
    os.read(reading, 1)
    if not busy:
        assert os.waitpid(child, 0)[1] == 0
    assert all(path.stat().st_uid == ANNE for path in folder.rglob("*"))
    act(ANNE, use(root, 10, 20), GROUP)
    if busy:
        os.close(leave)
        assert os.waitpid(child, 0)[1] == 0


@as_root
def test_side_files_that_a_reader_left_are_taken_over(root: Path) -> None:
    grant(root, 0o2775)
    act(ANNE, use(root, 0, 10), GROUP)
    closed_as_before(root)
    folder = root / Store(root).space(DESCRIPTION).key

    def leave() -> None:
        for name, size in (("index.sqlite-wal", 0), ("index.sqlite-shm", 32768)):
            (folder / name).write_bytes(bytes(size))

    act(BERT, leave, GROUP)
    act(ANNE, use(root, 10, 20), GROUP)


# -- caches that can only be read ----------------------------------------------------------------


def over(root: Path, spare: Path) -> Store:
    return Store(root, spare=lambda: spare)


class Notes:
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def task(self, name: str, total: int, unit: str):  # type: ignore[no-untyped-def]
        from headstart.core.progress import SilentReporter

        return SilentReporter().task(name, total, unit)


def fill_up(space: Space, stop: int) -> tuple[int, int, list[str]]:
    notes = Notes()

    def compute(keys: list[str]) -> Iterator[Block]:
        yield Block(keys, [{"x": ROWS[[IDS.index(key) for key in keys]]}])

    use = fill([space], IDS[:stop], compute, task="compute", unit="items", reporter=notes).use
    return use.hits, use.misses, notes.notes


@as_root
def test_a_cache_of_somebody_else_is_read_and_what_it_lacks_kept_elsewhere(root: Path) -> None:
    grant(root, 0o755)
    act(ANNE, use(root, 0, 20))
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    spare = root.parent / "spare"
    spare.mkdir()
    os.chown(spare, BERT, BERT)

    def work() -> None:
        store = over(root, spare)
        space = store.space(DESCRIPTION)
        assert space.missing(IDS) == IDS[20:]
        hits, misses, notes = fill_up(space, 50)
        assert (hits, misses) == (20, 30)
        (note,) = notes
        assert str(root) in note
        assert str(spare) in note
        assert space.missing(IDS) == IDS[50:]
        order = np.random.default_rng(0).permutation(50)
        rows = space.read([IDS[i] for i in order])
        np.testing.assert_array_equal(rows.array(), ROWS[order])
        np.testing.assert_array_equal(rows[5:9], ROWS[order][5:9])
        assert len(space) == 50
        assert store.results("heads").get(IDS[0]).values == {"stop": 20}  # type: ignore[union-attr]
        store.results("heads").put(IDS[1], values={"mine": True})
        assert store.results("heads").get(IDS[1]).values == {"mine": True}  # type: ignore[union-attr]
        assert fill_up(over(root, spare).space(DESCRIPTION), 50) == (50, 0, [])
        other = store.space({"another": 1})
        assert fill_up(other, 10)[:2] == (0, 10)
        assert store.verify().ok
        assert [info.rows for info in store.spaces()] == [20]

    act(BERT, work)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before

    def refused() -> None:
        with pytest.raises(StoreError, match=r"read-only|permission"):
            append(Store(root).space(DESCRIPTION), 20, 30)
        with pytest.raises(StoreError, match="permission is denied"):
            Store(root).gc(max_size=0)

    act(BERT, refused)
    act(ANNE, use(root, 20, 30))


@as_root
def test_rows_that_are_added_below_are_seen_above(root: Path) -> None:
    grant(root, 0o755)
    act(ANNE, use(root, 0, 20))
    spare = root.parent / "spare"
    spare.mkdir()
    os.chown(spare, BERT, BERT)
    act(BERT, lambda: append(over(root, spare).space(DESCRIPTION), 20, 30))
    act(ANNE, use(root, 20, 40))
    act(BERT, lambda: check(over(root, spare).space(DESCRIPTION), 40))


@as_root
def test_a_copy_without_a_lock_file_is_read(root: Path) -> None:
    grant(root, 0o755)
    act(ANNE, use(root, 0, 20))
    folder = root / Store(root).space(DESCRIPTION).key
    (folder / "lock").unlink()
    folder.chmod(0o555)
    act(BERT, lambda: check(Store(root).space(DESCRIPTION), 20))


# -- disks without locks, and other refusals of the disk -----------------------------------------


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_disk_without_locks_is_one_line_that_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(*_: object) -> bool:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(locks, "_try_lock", refuse)
    with pytest.raises(StoreError) as caught:
        append(Store(tmp_path).space(DESCRIPTION), 0, 10)
    text = str(caught.value)
    assert "does not support file locks" in text
    assert "cache=" in text
    assert "local disk" in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "read-only"),
        (errno.ESTALE, "mount it again"),
        (errno.EIO, "input/output error"),
        (errno.EACCES, "permission is denied"),
        (errno.EMFILE, "too many files"),
        (errno.ENFILE, "too many files"),
    ],
)
def test_every_refusal_of_the_disk_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, words: str
) -> None:
    space = Store(tmp_path).space(DESCRIPTION)
    append(space, 0, 10)

    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("headstart.store.space.write_shard", refuse)
    with pytest.raises(StoreError, match=words) as caught:
        append(space, 10, 20)
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    check(space, 10)
    append(space, 10, 20)
    check(space, 20)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    mounted = tmp_path / "disk"
    mounted.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64m", "none", str(mounted)]
    if not IS_ROOT or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("cannot mount a disk here")
    yield mounted
    subprocess.run(["umount", "-l", str(mounted)], check=True)


def test_a_disk_that_became_read_only(disk: Path, tmp_path: Path) -> None:
    append(Store(disk / "cache").space(DESCRIPTION), 0, 20)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    spare = tmp_path / "spare"
    space = over(disk / "cache", spare).space(DESCRIPTION)
    assert fill_up(space, 30)[:2] == (20, 10)
    check(space, 30)
    assert Store(disk / "cache").verify().ok


def failing_locks(times: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let SQLite's locks fail for some connections, and count these."""
    connect, failed = Database._connect, []

    def refuse(self: Database) -> Any:
        if len(failed) < times:
            failed.append(1)
            error = sqlite3.OperationalError("locking protocol")
            error.sqlite_errorcode = sqlite3.SQLITE_PROTOCOL
            raise error
        return connect(self)

    monkeypatch.setattr(Database, "_connect", refuse)
    return failed


def test_a_lock_that_fails_once_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Processes that open and close one database at the same moment meet such errors."""
    append(Store(tmp_path).space(DESCRIPTION), 0, 10)
    failed = failing_locks(2, monkeypatch)
    check(Store(tmp_path).space(DESCRIPTION), 10)
    assert len(failed) == 2
    failing_locks(1000, monkeypatch)
    with pytest.raises(StoreError, match="does not support file locks"):
        append(Store(tmp_path).space(DESCRIPTION), 10, 20)
