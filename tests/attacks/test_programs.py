"""Kept programs are machine code: none runs that this user did not put there, whole, himself."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from headstart.cache.plans import FOLDER, Plans, Programs
from headstart.core.private import private_folder
from headstart.store import Store
from tests.attacks.children import IS_ROOT, in_child, reachable_folder

pytestmark = pytest.mark.skipif(os.name != "posix", reason="POSIX users and modes")

ABOUT = {"kind": "aot", "network": "a"}
CODE = b"machine code" * 100


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder below folders that nobody else may write to, but for /tmp with its sticky bit."""
    with reachable_folder() as folder:
        folder.chmod(0o755)
        yield folder


def filled(home: Path, about: Any = None) -> tuple[Programs, Path]:
    shelf = Plans(Store(home), (home,)).shelf
    assert shelf is not None
    path = shelf.keep(about or ABOUT, lambda to: Path(to).write_bytes(CODE) and None)
    assert path is not None
    return shelf, path


def test_a_program_is_found_again_and_by_nothing_else(home: Path) -> None:
    shelf, path = filled(home)
    assert path.read_bytes() == CODE
    assert shelf.find(ABOUT) == path
    assert shelf.find({**ABOUT, "network": "b"}) is None
    assert (shelf.folder.stat().st_mode & 0o777, path.stat().st_mode & 0o777) == (0o700, 0o600)


def change(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[7] ^= 1
    path.write_bytes(content)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def unsealed(path: Path) -> None:
    path.with_suffix(".json").unlink()


def nonsense(path: Path) -> None:
    path.with_suffix(".json").write_bytes(b"\xff[")


def another_seal(path: Path) -> None:
    path.with_suffix(".json").write_text(json.dumps({"key": path.stem, "sha256": "0" * 64}))


def link(path: Path) -> None:
    aside = path.with_name("elsewhere")
    path.rename(aside)
    path.symlink_to(aside)


def two_names(path: Path) -> None:
    path.with_name("other").hardlink_to(path)


def readable_by_others(path: Path) -> None:
    path.chmod(0o644)


def writable_seal(path: Path) -> None:
    path.with_suffix(".json").chmod(0o620)


def folder_in_its_place(path: Path) -> None:
    path.unlink()
    path.mkdir()


TAMPERED = (
    change, cut_short, unsealed, nonsense, another_seal, link, two_names, readable_by_others,
    writable_seal, folder_in_its_place,
)  # fmt: skip


@pytest.mark.parametrize("tamper", TAMPERED)
def test_a_program_that_was_touched_is_not_used(home: Path, tamper: Callable[[Path], None]) -> None:
    shelf, path = filled(home)
    tamper(path)
    assert shelf.find(ABOUT) is None


def test_a_program_under_the_name_of_another_is_not_used(home: Path) -> None:
    shelf, path = filled(home)
    other = {**ABOUT, "network": "b"}
    _, target = filled(home, other)
    for suffix in (".pt2", ".json"):
        path.with_suffix(suffix).replace(target.with_suffix(suffix))
    assert shelf.find(other) is None


def group_writes(home: Path) -> None:
    home.chmod(0o775)


def all_write(home: Path) -> None:
    home.chmod(0o777)


def open_folder(home: Path) -> None:
    (home / FOLDER).chmod(0o750)


def linked_folder(home: Path) -> None:
    (home / FOLDER).rename(home / "aside")
    (home / FOLDER).symlink_to(home / "aside")


def file_in_its_place(home: Path) -> None:
    (home / FOLDER).rename(home / "aside")
    (home / FOLDER).write_bytes(b"")


@pytest.mark.parametrize(
    "loosen", [group_writes, all_write, open_folder, linked_folder, file_in_its_place]
)
def test_a_folder_that_others_could_write_to_holds_no_programs(
    home: Path, loosen: Callable[[Path], None]
) -> None:
    filled(home)
    loosen(home)
    assert private_folder(home / FOLDER) is None
    assert Plans(Store(home), (home,)).shelf is None


def test_the_sticky_bit_protects_as_on_the_folder_of_temporary_files(home: Path) -> None:
    home.chmod(0o1777)
    assert private_folder(home / FOLDER) is not None


def test_the_next_place_is_taken_where_the_first_is_open(home: Path) -> None:
    (home / "shared").mkdir()
    (home / "shared").chmod(0o777)
    (home / "own").mkdir(mode=0o700)
    shelf = Plans(Store(home), (home / "shared", home / "own")).shelf
    assert shelf is not None
    assert shelf.folder == (home / "own" / FOLDER).resolve()


@pytest.mark.skipif(not IS_ROOT or sys.platform != "linux", reason="only root can act as two users")
def test_the_programs_of_another_user_are_not_used(home: Path) -> None:
    """Not in a folder of his, nor a file that he has put into mine."""
    shelf, path = filled(home)
    os.chown(path, 20_001, -1)
    assert shelf.find(ABOUT) is None
    os.chown(home / FOLDER, 20_001, -1)
    assert private_folder(home / FOLDER) is None
    os.chown(home / FOLDER, 0, -1)
    os.chown(home, 20_001, -1)
    assert private_folder(home / FOLDER) is None

    def theirs() -> str:
        os.setuid(20_002)
        return str(private_folder(home / FOLDER))

    assert in_child(theirs) == "None"


def test_old_programs_make_room(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headstart.cache.plans._MOST_BYTES", 3 * len(CODE))
    for number in range(5):
        shelf, path = filled(home, {"network": number})
        os.utime(path, (number, number))
    left = [number for number in range(5) if shelf.find({"network": number})]
    assert left == [2, 3, 4]


def test_a_program_that_cannot_be_written_is_not_kept(home: Path) -> None:
    shelf = Plans(Store(home), (home,)).shelf
    assert shelf is not None

    def full(to: Path) -> None:
        to.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    assert shelf.keep(ABOUT, full) is None
    assert shelf.find(ABOUT) is None
    assert list(shelf.folder.iterdir()) == []
