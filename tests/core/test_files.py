"""Files are replaced whole or not at all, whatever goes wrong."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from headstart.core import files, scratch
from headstart.core.errors import HeadstartError, StoreError
from headstart.core.locks import new_locked_file


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def full(_: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_file_is_created_and_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / ("long" * 60)  # a name that leaves no room for a suffix
    files.write_text(path, "first ä")
    assert path.read_bytes() == "first ä".encode()
    files.write_bytes(path, b"second")
    assert path.read_bytes() == b"second"
    assert names(tmp_path) == [path.name]


def test_an_error_of_writing_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(OSError) as caught, files.replacing(path):
        full(0)
    assert caught.value.filename == str(path)
    with pytest.raises(OSError) as caught, files.naming(path):
        (tmp_path / "other" / "one").write_bytes(b"")
    assert caught.value.filename == str(tmp_path / "other" / "one")


@pytest.mark.parametrize("moment", ["while writing", "while flushing"])
def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    path = tmp_path / "file"
    files.write_bytes(path, b"old")
    with pytest.raises(OSError), files.replacing(path) as file:
        file.write(b"half of the n")
        if moment == "while writing":
            full(0)
        monkeypatch.setattr(os, "fsync", full)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs SIGKILL")
def test_a_kill_before_the_rename_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    files.write_bytes(path, b"old")
    code = (
        "import os, signal, sys; from pathlib import Path; from headstart.core import files\n"
        "with files.replacing(Path(sys.argv[1])) as file:\n"
        "    file.write(b'new'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    process = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert process.returncode != 0
    assert path.read_bytes() == b"old"


def test_the_umask_decides_who_may_read(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        files.write_bytes(tmp_path / "file", b"")
        with files.publishing_folder(tmp_path / "folder"):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o750


def test_json_has_null_for_what_json_lacks(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a.json", {"x": [math.nan, (1.5, -math.inf)], "at": tmp_path})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"x": [None, [1.5, None]], "at": str(tmp_path)}
    assert text.endswith("}\n")


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    place = tmp_path / "made" / "result"
    with pytest.raises(RuntimeError), files.publishing_folder(place) as folder:
        (folder / "one").write_text("1")
        raise RuntimeError
    assert names(place.parent) == []
    with files.publishing_folder(place) as folder:
        (folder / "one").write_text("1")
        assert not place.exists()
    assert names(place.parent) == ["result"]
    assert (place / "one").read_text() == "1"


def test_the_first_to_publish_a_folder_wins(tmp_path: Path) -> None:
    place = tmp_path / "result"
    with pytest.raises(OSError), files.publishing_folder(place) as folder:
        (folder / "who").write_text("second")
        with files.publishing_folder(place) as other:
            (other / "who").write_text("first")
    assert (place / "who").read_text() == "first"
    assert names(tmp_path) == ["result"]


def test_only_the_first_writer_creates_a_file(tmp_path: Path) -> None:
    assert files.write_if_absent(tmp_path / "file", b"first")
    assert not files.write_if_absent(tmp_path / "file", b"second")
    assert (tmp_path / "file").read_bytes() == b"first"
    assert names(tmp_path) == ["file"]


def test_a_sweep_removes_the_files_of_the_dead_alone(tmp_path: Path) -> None:
    (tmp_path / "dead").touch()
    alive = new_locked_file(tmp_path)
    assert scratch.remove_abandoned(tmp_path) == [tmp_path / "dead"]
    assert names(tmp_path) == [alive.path.name]
    alive.release()
    assert scratch.remove_abandoned(tmp_path / "nowhere") == []


def test_free_space_is_that_of_the_nearest_folder_that_exists(tmp_path: Path) -> None:
    place = tmp_path / "not" / "yet"
    assert files.existing_parent(place) == tmp_path
    assert files.existing_parent(tmp_path) == tmp_path
    assert 0 < files.free_bytes(place) <= shutil.disk_usage(tmp_path).total


def test_errors_of_the_system_become_one_line_with_a_hint(tmp_path: Path) -> None:
    with (
        pytest.raises(StoreError, match=r"^cannot write it: the disk is full; free") as caught,
        files.clear_errors("write it", StoreError),
    ):
        full(0)
    assert isinstance(caught.value.__cause__, OSError)
    with (
        pytest.raises(HeadstartError, match="No such file") as other,
        files.clear_errors("read it"),
    ):
        (tmp_path / "missing").read_bytes()
    assert other.value.hint
