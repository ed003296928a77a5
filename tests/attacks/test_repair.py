"""What a repair must never do: remove what is sound, or what cannot be judged now.

A file that cannot be read (permission, open files, an input/output error) or that a newer edition
wrote is no damage. Every case here keeps every byte of every shard, says what it could not look at,
and finds all rows again as soon as the cause is gone.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import xxhash

from headstart.core.errors import StoreError
from headstart.store import Store, VerifyReport
from headstart.store import shard as shard_module
from tests.attacks.children import NOBODY, give_to, in_child, limit_descriptors, reachable_folder

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions and limits")

DESCRIPTION = {"backbone": "tiny", "layer": "pool"}
IDS = [hashlib.md5(str(i).encode()).hexdigest() for i in range(40)]
ROWS = np.arange(40 * 8, dtype=np.float32).reshape(40, 8)


def fill(root: Path, description: dict[str, Any] = DESCRIPTION) -> Path:
    """Fill a space with four shards and leave it; return its folder."""
    space = Store(root).space(description)
    for start in range(0, 40, 10):
        part = slice(start, start + 10)
        space.append(IDS[part], {"x": ROWS[part]})
    space.close()
    return space.folder


@pytest.fixture
def root() -> Iterator[Path]:
    with reachable_folder() as folder:
        yield folder / "store"


def content(root: Path) -> set[str]:
    """The digests of all shards, wherever they lie."""
    return {
        xxhash.xxh3_128(path.read_bytes()).hexdigest()
        for path in root.rglob("*.arrow*")
        if path.is_file()
    }


def check_all_rows(root: Path) -> None:
    space = Store(root).space(DESCRIPTION)
    assert space.missing(IDS) == []
    np.testing.assert_array_equal(space.read(IDS).array(), ROWS)
    space.close()


def kinds(report: VerifyReport) -> set[str]:
    return {fault.kind for fault in report.faults}


def shards(folder: Path) -> list[Path]:
    return sorted((folder / "shards").glob("*.arrow"))


# -- permission ----------------------------------------------------------------------------------


def forbid_shard(folder: Path) -> Path:
    return shards(folder)[0]


def forbid_index(folder: Path) -> Path:
    return folder / "index.sqlite"


def forbid_description(folder: Path) -> Path:
    return folder / "space.json"


def forbid_lock(folder: Path) -> Path:
    return folder / "lock"


def forbid_shards(folder: Path) -> Path:
    return folder / "shards"


def forbid_space(folder: Path) -> Path:
    return folder


@pytest.mark.parametrize(
    "forbid",
    [forbid_shard, forbid_index, forbid_description, forbid_lock, forbid_shards, forbid_space],
)
def test_what_may_not_be_read_is_not_damage(root: Path, forbid: Callable[[Path], Path]) -> None:
    folder = fill(root)
    before = content(root)
    target = forbid(folder)
    mode = target.stat().st_mode & 0o777
    give_to(root, NOBODY)
    target.chmod(0)

    def work() -> str:
        reports = [Store(root).verify(), Store(root).verify(repair=True)]
        assert not any(report.ok for report in reports), reports
        return " ".join(sorted(set.union(*map(kinds, reports)))) + str(reports[1].damaged)

    assert in_child(work, NOBODY) == "unreadable()"
    target.chmod(mode)
    assert content(root) == before
    check_all_rows(root)
    assert Store(root).verify().faults == ()


def test_spaces_that_may_not_be_read_do_not_hide_the_others(root: Path) -> None:
    folder = fill(root)
    other = fill(root, {"other": 1})
    give_to(root, NOBODY)
    folder.chmod(0)

    def work() -> str:
        report = Store(root).verify()
        infos = {info.key: info for info in Store(root).spaces()}
        assert infos[other.name].rows == 40
        assert "permission" in (infos[folder.name].problem or "")
        return f"{report.rows} {[fault.key for fault in report.faults]}"

    assert in_child(work, NOBODY) == f"40 {[folder.name]}"
    folder.chmod(0o755)


# -- limits and hardware -------------------------------------------------------------------------


@pytest.mark.parametrize("free", range(7))
def test_too_many_open_files_are_not_damage(root: Path, free: int) -> None:
    fill(root)
    before = content(root)

    def work() -> str:
        Store(root).verify()  # imports everything
        taken = []
        limit_descriptors(40)
        try:
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            pass
        for _ in range(free):
            os.close(taken.pop())
        try:
            report = Store(root).verify(repair=True)
        except StoreError as error:
            return f"refused {'too many files' in str(error)}"
        return f"{kinds(report) - {'unreadable'}} {report.damaged}"

    assert in_child(work) in ("set() ()", "refused True")
    assert content(root) == before
    check_all_rows(root)
    assert Store(root).verify().faults == ()


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.ENFILE, errno.EINTR])
@pytest.mark.parametrize("when", ["open", "read"])
def test_an_error_of_the_disk_is_not_damage(
    root: Path, monkeypatch: pytest.MonkeyPatch, code: int, when: str
) -> None:
    folder = fill(root)
    before = content(root)
    broken = shards(folder)[2]
    true_open = Path.open

    class Failing(io.RawIOBase):
        def readinto(self, _: Any) -> int:
            raise OSError(code, os.strerror(code))

    def opened(self: Path, *args: Any, **keywords: Any) -> Any:
        if self == broken and when == "open":
            raise OSError(code, os.strerror(code), str(self))
        return Failing() if self == broken else true_open(self, *args, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", opened)
        report = Store(root).verify(repair=True)
        assert [(fault.kind, fault.path) for fault in report.faults] == [("unreadable", broken)]
        assert report.rows >= 30
        shard_module._VERIFIED.clear()
        space = Store(root).space(DESCRIPTION)
        with pytest.raises(StoreError, match="cannot be read"):
            space.read(IDS).array()
        space.close()
    assert content(root) == before
    check_all_rows(root)


def test_repairing_one_shard_keeps_the_rows_of_one_that_cannot_be_read(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fill(root)
    damaged, unreadable = shards(folder)[:2]
    damaged.write_bytes(damaged.read_bytes()[:-1])
    lost = Store(root).space(DESCRIPTION)
    true_open = Path.open

    def opened(self: Path, *args: Any, **keywords: Any) -> Any:
        if self == unreadable:
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return true_open(self, *args, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", opened)
        report = Store(root).verify(repair=True)
    assert sorted((fault.kind, fault.repaired) for fault in report.faults) == [
        ("shard", True),
        ("unreadable", False),
    ]
    assert not damaged.exists()
    missing = lost.missing(IDS)
    assert len(missing) == 10
    kept = [key for key in IDS if key not in missing]
    np.testing.assert_array_equal(lost.read(kept).array(), ROWS[[IDS.index(k) for k in kept]])


# -- newer formats -------------------------------------------------------------------------------


def newer_index(folder: Path) -> None:
    with sqlite3.connect(folder / "index.sqlite") as connection:
        connection.execute("UPDATE meta SET value = '2' WHERE name = 'format'")
    connection.close()


def newer_description(folder: Path) -> None:
    path = folder / "space.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 2, "more": [1]}))


def newer_shard(folder: Path) -> None:
    """A shard of format 2, registered like the others."""
    old = shards(folder)[0]
    table = pa.ipc.open_file(old.read_bytes()).read_all()
    header = json.loads(table.schema.metadata[b"headstart"]) | {"format": 2, "new": "thing"}
    sink = pa.BufferOutputStream()
    schema = table.schema.with_metadata({b"headstart": json.dumps(header)})
    with pa.ipc.new_file(sink, schema) as writer:
        writer.write_table(table.cast(schema))
    new = sink.getvalue().to_pybytes()
    name = xxhash.xxh3_128(new).hexdigest()
    old.unlink()
    (folder / "shards" / f"{name}.arrow").write_bytes(new)
    with sqlite3.connect(folder / "index.sqlite") as connection:
        connection.execute(
            "UPDATE shards SET name = ?, bytes = ? WHERE name = ?", (name, len(new), old.stem)
        )
    connection.close()


@pytest.mark.parametrize("make", [newer_index, newer_description, newer_shard])
def test_a_newer_format_is_named_and_left_alone(root: Path, make: Callable[[Path], None]) -> None:
    folder = fill(root)
    make(folder)
    paths = [path for path in folder.rglob("*") if path.is_file()]
    before = {path: path.read_bytes() for path in paths}
    for repair in (False, True):
        report = Store(root).verify(repair=repair)
        assert not report.ok
        assert not report.damaged
        assert kinds(report) == {"newer"}
        assert "format 2" in report.faults[0].what
    assert {path: path.read_bytes() for path in paths} == before
    space = Store(root).space(DESCRIPTION)
    with pytest.raises(StoreError, match="has format 2") as caught:
        space.read(IDS).array()
    assert "repair" not in str(caught.value)


# -- something else in the place of a file -------------------------------------------------------


def a_folder(path: Path) -> None:
    path.mkdir()
    (path / "mine.txt").write_text("keep")


def an_empty_folder(path: Path) -> None:
    path.mkdir()


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_dead_link(path: Path) -> None:
    path.symlink_to(path.parent / "nowhere")


def a_file(path: Path) -> None:
    path.write_text("keep")


FILES = ["index.sqlite", "index.sqlite-wal", "index.sqlite-shm", "space.json", "lock"]
FOLDERS = ["shards", "tmp", "claims"]


@pytest.mark.parametrize(
    ("name", "put"),
    [(name, put) for name in FILES for put in (a_folder, an_empty_folder, a_pipe, a_dead_link)]
    + [(name, put) for name in FOLDERS for put in (a_file, a_pipe, a_dead_link)],
)
def test_something_else_in_the_place_of_a_file(
    root: Path, name: str, put: Callable[[Path], None]
) -> None:
    folder = fill(root)
    place, aside = folder / name, root.parent / "aside"
    if place.exists():
        place.rename(aside)
    put(place)
    report = Store(root).verify()
    assert not report.ok
    assert "folder" in kinds(report)
    assert any(place == fault.path for fault in report.faults)
    assert Store(root).spaces()[0].key == folder.name
    space = Store(root).space(DESCRIPTION)
    with contextlib.suppress(StoreError):  # and nothing else
        space.missing(IDS)
    space.close()

    repaired = Store(root).verify(repair=True)
    assert repaired.ok, [str(fault) for fault in repaired.faults]
    if put in (a_folder, a_file):
        kept = [path for path in folder.rglob("*") if path.is_file() and "aside" in str(path)]
        assert [path.read_text() for path in kept] == ["keep"]
    if name == "shards":
        aside.rename(folder / "found")
        shutil.copytree(folder / "found", folder / "shards", dirs_exist_ok=True)
        Store(root).verify(repair=True)
    check_all_rows(root)
    again = Store(root).verify()
    assert again.ok
    assert kinds(again) <= {"foreign"}


def test_a_sound_shard_of_another_space_is_moved_not_removed(root: Path) -> None:
    folder, other = fill(root), fill(root, {"other": 1})
    before = content(root)
    stranger = shards(other)[0]
    stranger.rename(folder / "shards" / stranger.name)
    for path in (folder, other):
        assert not Store(root).verify().ok, path
    assert Store(root).verify(repair=True).ok
    assert content(root) == before
    check_all_rows(root)


# -- beside a fill -------------------------------------------------------------------------------

FILLER = """
import hashlib, sys
import numpy as np
from headstart.store import Store
n = 0
while True:
    space = Store(sys.argv[1]).space({"n": n // 60})
    ids = [hashlib.md5(f"{n} {i}".encode()).hexdigest() for i in range(3)]
    mine = space.claim(ids)
    space.append(mine, {"x": np.zeros((len(mine), 4), np.float32)})
    if n == 0:
        print("filling", flush=True)
    n += 1
    if n % 7 == 0:
        space.close()
"""


@pytest.mark.parametrize("repair", [False, True])
def test_no_false_alarm_beside_running_fills(root: Path, repair: bool) -> None:
    fillers = [
        subprocess.Popen(
            [sys.executable, "-c", FILLER, str(root)], stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    try:
        for filler in fillers:
            assert filler.stdout is not None
            assert filler.stdout.readline() == "filling\n"
        looked, begun = 0, time.monotonic()
        while time.monotonic() - begun < 2.5:
            report = Store(root).verify(repair)
            assert report.faults == ()
            looked += 1
        assert looked > 1
        assert all(filler.poll() is None for filler in fillers)
    finally:
        for filler in fillers:
            filler.kill()
            filler.wait()
            assert filler.stdout is not None
            filler.stdout.close()
    assert Store(root).verify(repair=True).ok
    assert Store(root).verify().faults == ()
