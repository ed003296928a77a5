"""Full, read-only and forbidden disks: one clear line, and everything committed stays."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from headstart.core.errors import StoreError
from headstart.store import Space, Store
from tests.store.conftest import DESCRIPTION, make_ids, make_rows

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="uses Linux's limits and mounts")

IDS = make_ids(4000)
ROWS = make_rows(IDS, 256)  # 4 MB


def append(space: Space, start: int, stop: int) -> None:
    space.append(IDS[start:stop], {"x": ROWS[start:stop]})


def check_committed(root: Path, count: int) -> None:
    space = Store(root).space(DESCRIPTION)
    assert len(space) == count
    np.testing.assert_array_equal(space.read(IDS[:count]).array(), ROWS[:count])
    assert Store(root).verify(repair=True).ok
    space.close()
    assert Store(root).verify().faults == ()


def in_child(work: Callable[[], None]) -> str:
    """Run ``work`` in a forked child; return the message of its StoreError, or ''."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        text = ""
        try:
            work()
        except StoreError as error:
            text = str(error)
        except BaseException as error:
            text = f"NOT A STORE ERROR: {error!r}"
        finally:
            os.write(writing, text.encode())
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return text


def test_a_file_size_limit_is_one_clear_line(tmp_path: Path) -> None:
    def work() -> None:
        space = Store(tmp_path).space(DESCRIPTION)
        append(space, 0, 500)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
        append(space, 500, 4000)

    message = in_child(work)
    assert message.startswith("cannot write a shard in")
    assert "too large" in message
    assert "\n" not in message
    check_committed(tmp_path, 500)
    assert list((Store(tmp_path).space(DESCRIPTION).folder / "tmp").iterdir()) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    mounted = tmp_path / "disk"
    mounted.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(mounted)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("cannot mount a small disk here")
    yield mounted
    subprocess.run(["umount", "-l", str(mounted)], check=True)


def test_a_full_disk_is_one_clear_line_and_can_be_gone_on_with(small_disk: Path) -> None:
    space = Store(small_disk).space(DESCRIPTION)
    committed = 0
    with pytest.raises(StoreError, match="the disk is full") as caught:
        for start in range(0, 4000, 250):
            append(space, start, start + 250)
            committed = start + 250
    assert "what is committed stays" in str(caught.value)
    assert 1000 <= committed <= 3000
    np.testing.assert_array_equal(space.read(IDS[:committed]).array(), ROWS[:committed])
    subprocess.run(["mount", "-o", "remount,size=16m", str(small_disk)], check=True)
    append(space, committed, 4000)
    space.close()
    del caught
    check_committed(small_disk, 4000)


@pytest.mark.parametrize("room", range(0, 120_000, 12_000))
def test_a_disk_that_fills_at_any_point_of_a_commit(small_disk: Path, room: int) -> None:
    space = Store(small_disk).space(DESCRIPTION)
    append(space, 0, 100)
    free = os.statvfs(small_disk)
    with (small_disk / "ballast").open("wb") as ballast:
        ballast.write(bytes(max(0, free.f_bavail * free.f_frsize - room)))
    with contextlib.suppress(StoreError):
        append(space, 100, 150)
    count = 100 if space.missing(IDS[:150]) else 150
    assert count == {0: 100, 108_000: 150}.get(room, count)
    space.close()
    (small_disk / "ballast").unlink()
    check_committed(small_disk, count)
    append(Store(small_disk).space(DESCRIPTION), 0, 400)
    check_committed(small_disk, 400)


def test_a_disk_without_any_room(small_disk: Path) -> None:
    with (small_disk / "ballast").open("wb") as ballast:
        ballast.write(bytes(3 * 2**20))
    with pytest.raises(StoreError, match="the disk is full"):
        append(Store(small_disk).space(DESCRIPTION), 0, 100)
    (small_disk / "ballast").unlink()
    append(Store(small_disk).space(DESCRIPTION), 0, 100)
    check_committed(small_disk, 100)


def test_a_read_only_disk_can_be_read(small_disk: Path) -> None:
    space = Store(small_disk).space(DESCRIPTION)
    append(space, 0, 100)
    space.close()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    again = Store(small_disk).space(DESCRIPTION)
    assert again.missing(IDS[:101]) == [IDS[100]]
    np.testing.assert_array_equal(again.read(IDS[:100]).array(), ROWS[:100])
    assert Store(small_disk).verify().ok
    assert Store(small_disk).spaces()[0].rows == 100
    for use in (lambda: append(again, 100, 200), lambda: again.claim(IDS)):
        with pytest.raises(StoreError, match="read-only") as caught:
            use()
        assert "\n" not in str(caught.value)
    with pytest.raises(StoreError, match="read-only"):
        append(Store(small_disk).space({"other": 1}), 0, 1)


def as_nobody(work: Callable[[], None]) -> Callable[[], None]:
    def run() -> None:
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        work()

    return run


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A folder that another user can reach."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_lost_permissions_are_one_clear_line(open_path: Path) -> None:
    root = open_path / "store"
    space = Store(root).space(DESCRIPTION)
    append(space, 0, 100)
    space.close()

    def read() -> None:
        np.testing.assert_array_equal(
            Store(root).space(DESCRIPTION).read(IDS[:100]).array(), ROWS[:100]
        )

    def write() -> None:
        append(Store(root).space(DESCRIPTION), 100, 200)

    folder = root / space.key
    for path in (root, folder, folder / "shards"):
        path.chmod(0o555)
    assert in_child(as_nobody(read)) == ""
    message = in_child(as_nobody(write))
    assert "read-only" in message or "permission is denied" in message
    folder.chmod(0o000)
    for work in (read, write):
        message = in_child(as_nobody(work))
        assert "permission is denied" in message, message
        assert "\n" not in message
    for path in (folder, folder / "shards", root):
        path.chmod(0o755)
    check_committed(root, 100)
