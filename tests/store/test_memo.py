from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from headstart.store import Memo

DIGEST, OTHER = "a" * 32, "b" * 32


def old_file(path: Path, content: bytes = b"content", seconds: int = 100) -> Path:
    """A file whose last change is some time ago, so that it can be trusted."""
    path.write_bytes(content)
    then = path.stat().st_mtime_ns - seconds * 10**9
    os.utime(path, ns=(then, then))
    return path


@pytest.fixture
def memo(tmp_path: Path) -> Memo:
    return Memo(tmp_path / "cache" / "memo.sqlite")


def test_a_digest_is_remembered_between_runs(tmp_path: Path, memo: Memo) -> None:
    file = old_file(tmp_path / "a.jpg")
    assert memo.lookup(file) is None
    assert not memo.path.exists()
    with memo:
        memo.remember(file, DIGEST)
        assert memo.lookup(file) == DIGEST
    again = Memo(memo.path)
    assert again.lookup(file) == DIGEST
    assert again.lookup(str(file)) == DIGEST


def test_a_changed_file_is_noticed(tmp_path: Path, memo: Memo) -> None:
    file = old_file(tmp_path / "a.jpg")
    memo.remember(file, DIGEST)
    for change in (
        lambda: old_file(file, b"content!"),
        lambda: old_file(file, seconds=50),
        lambda: old_file(tmp_path / "b.jpg").replace(file),
        lambda: file.unlink(),
    ):
        change()
        assert memo.lookup(file) is None


def test_a_file_that_keeps_size_and_time_but_is_another_is_noticed(
    tmp_path: Path, memo: Memo
) -> None:
    file = old_file(tmp_path / "a.jpg", b"one")
    stamp = file.stat().st_mtime_ns
    memo.remember(file, DIGEST)
    other = old_file(tmp_path / "b.jpg", b"two")
    os.utime(other, ns=(stamp, stamp))
    other.replace(file)
    assert file.stat().st_mtime_ns == stamp
    assert memo.lookup(file) is None


def test_a_file_changed_a_moment_ago_is_not_trusted(tmp_path: Path, memo: Memo) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(b"x")
    memo.remember(file, DIGEST)
    assert memo.lookup(file) is None


def test_names_of_all_kinds(tmp_path: Path, memo: Memo) -> None:
    for name in ("ünï code 🐝.jpg", "quote'\".jpg", "; DROP TABLE memo"):
        memo.remember(old_file(tmp_path / name), DIGEST)
    memo.close()
    for name in ("ünï code 🐝.jpg", "quote'\".jpg", "; DROP TABLE memo"):
        assert Memo(memo.path).lookup(tmp_path / name) == DIGEST


def test_names_that_are_no_text(tmp_path: Path, memo: Memo) -> None:
    name = os.fsencode(tmp_path) + b"/\xff.jpg"
    try:
        file = old_file(Path(os.fsdecode(name)))
    except OSError:
        pytest.skip("this file system takes Unicode names only")
    memo.remember(file, DIGEST)
    memo.remember(old_file(tmp_path / "a.jpg"), OTHER)
    memo.close()
    assert Memo(memo.path).lookup(tmp_path / "a.jpg") == OTHER
    assert Memo(memo.path).lookup(file) in (None, DIGEST)


def test_a_damaged_memo_costs_time_only(tmp_path: Path, memo: Memo) -> None:
    file = old_file(tmp_path / "a.jpg")
    memo.path.parent.mkdir()
    memo.path.write_bytes(b"not a database at all" * 100)
    memo.remember(file, DIGEST)
    memo.flush()
    assert Memo(memo.path).lookup(file) is None


def test_many_threads_share_a_memo(tmp_path: Path, memo: Memo) -> None:
    files = [old_file(tmp_path / f"{n}.jpg") for n in range(60)]

    def work(part: list[Path]) -> None:
        for file in part:
            memo.remember(file, DIGEST)
            assert memo.lookup(file) == DIGEST

    threads = [threading.Thread(target=work, args=(files[n::4],)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    memo.close()
    again = Memo(memo.path)
    assert all(again.lookup(file) == DIGEST for file in files)
