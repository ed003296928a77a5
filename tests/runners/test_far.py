"""Extraction of what lies elsewhere: the rows of local files, each file read once, and refusals."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import fsspec
import pytest

from headstart.commands.extract.job import extract_features
from headstart.core.errors import UnreachableError
from headstart.core.progress import SilentReporter
from tests.data.far.conftest import Put, memory, picture, tar
from tests.runners.conftest import SETTINGS, rows_of

__all__ = ["memory"]  # a fixture

COUNT = 120


def run(data: Any, cache: Path, **more: Any) -> Any:
    """Extract with the small network."""
    given = {**SETTINGS, "reporter": SilentReporter(), "cache": cache, **more}
    return extract_features(data, "headstart/glyphs", **given)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """Pictures on this machine."""
    folder = tmp_path / "here"
    folder.mkdir()
    for i in range(COUNT):
        (folder / f"{i:03}.png").write_bytes(picture(i))
    (folder / "zzz.png").write_bytes(b"not a picture")
    return folder


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each file of the memory is read whole, and each opened."""
    found: Counter[str] = Counter()
    kind = type(fsspec.filesystem("memory"))
    ask, start = kind.cat_file, kind._open

    def cat_file(files: Any, path: str, *rest: Any, **more: Any) -> bytes:
        found[path] += 1
        answer: bytes = ask(files, path, *rest, **more)
        return answer

    def _open(files: Any, path: str, *rest: Any, **more: Any) -> Any:
        found[f"open {path}"] += 1
        return start(files, path, *rest, **more)

    monkeypatch.setattr(kind, "cat_file", cat_file)
    monkeypatch.setattr(kind, "_open", _open)
    return found


def test_rows_of_a_folder_elsewhere_are_those_of_this_machine(
    here: Path, memory: Put, tmp_path: Path, read: Counter[str]
) -> None:
    local = run(here, tmp_path / "a")
    address = memory({path.name: path.read_bytes() for path in here.iterdir()})
    read.clear()
    far = run(address, tmp_path / "b")
    assert rows_of(tmp_path / "b") == rows_of(tmp_path / "a")
    assert (far.items, far.bad, far.use.misses) == (local.items, local.bad, local.use.misses)
    once = {path: times for path, times in read.items() if not path.startswith("open")}
    assert len(once) == COUNT + 1
    assert set(once.values()) == {1}
    again = run(address, tmp_path / "b")
    assert (again.use.hits, again.use.misses) == (COUNT, 0)


def test_tars_elsewhere_are_read_once_and_one_after_the_other(
    here: Path, memory: Put, tmp_path: Path, read: Counter[str]
) -> None:
    run(here, tmp_path / "a")
    address = memory(
        {
            f"{n}.tar": tar({f"{i}": {"png": picture(i)} for i in range(30 * n, 30 * n + 30)})
            for n in range(4)
        }
    )
    read.clear()
    far = run(f"{address}/{{0..3}}.tar", tmp_path / "b")
    assert (far.items, far.bad, far.use.misses) == (COUNT, 0, COUNT)
    assert rows_of(tmp_path / "b") == rows_of(tmp_path / "a")
    opened = [times for path, times in read.items() if path.startswith("open")]
    assert len(opened) == 4
    # each is streamed once; the mark of its end is one further small reading
    assert sum(read.values()) <= 4 * 4


def test_credentials_that_expire_end_the_job_and_lose_nothing(
    here: Path, memory: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headstart.data import elsewhere as readers
    from headstart.data.far import pieces

    monkeypatch.setattr(readers, "_PAUSES", ())
    monkeypatch.setattr(pieces, "STRETCH_BYTES", 4096)
    run(here, tmp_path / "a")
    address = memory({path.name: path.read_bytes() for path in here.iterdir()})
    kind, asked = type(fsspec.filesystem("memory")), Counter[str]()
    ask = kind.cat_file

    def cat_file(files: Any, path: str, *rest: Any, **more: Any) -> bytes:
        asked["all"] += 1
        if asked["all"] > COUNT - 30:
            raise PermissionError("The provided token has expired.")
        answer: bytes = ask(files, path, *rest, **more)
        return answer

    with monkeypatch.context() as patch:
        patch.setattr(kind, "cat_file", cat_file)
        with pytest.raises(UnreachableError, match="the credentials have expired") as caught:
            run(address, tmp_path / "b")
    assert "\n" not in str(caught.value)
    before = rows_of(tmp_path / "b")
    assert 0 < len(before) < COUNT
    made = run(address, tmp_path / "b")
    assert made.use.misses == COUNT - len(before)
    assert rows_of(tmp_path / "b") == rows_of(tmp_path / "a")
