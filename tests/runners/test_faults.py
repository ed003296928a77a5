"""A full disk and expired credentials in the middle of a job: one line, and nothing is lost."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import pytest

from headstart.core.errors import StoreError
from headstart.store import Store
from headstart.store import space as space_module
from tests.runners.conftest import COUNT, Embed, rows_of

ARRAY = {"runner": "array", "index": "0", "of": 1}


class Failing:
    """Calls a function so many times, and then raises."""

    def __init__(self, function: Any, times: int, error: Exception) -> None:
        self.function, self.left, self.error = function, times, error

    def __call__(self, *args: Any, **more: Any) -> Any:
        self.left -= 1
        if self.left < 0:
            raise self.error
        return self.function(*args, **more)


@pytest.fixture
def far() -> Iterator[str]:
    """An address of a store in memory."""
    files = fsspec.filesystem("memory")
    yield "memory://faults/features"
    files.rm("/faults", recursive=True)


@pytest.mark.parametrize("where", ["a commit", "the index"])
def test_a_full_disk_ends_the_job_and_loses_nothing(
    embed: Embed,
    plain: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    name = {"a commit": "write_shard", "the index": "sync_folder"}[where]
    with monkeypatch.context() as patch:
        patch.setattr(space_module, name, Failing(getattr(space_module, name), 2, full))
        with pytest.raises(StoreError, match="the disk is full") as caught:
            embed(tmp_path, **ARRAY)
    assert "\n" not in str(caught.value)
    before = rows_of(tmp_path)
    assert 0 < len(before) < COUNT
    made = embed(tmp_path, **ARRAY)
    assert made.use.misses <= COUNT - len(before)  # what was in its place is taken over
    assert rows_of(tmp_path) == plain
    assert Store(tmp_path).verify().ok


@pytest.mark.parametrize("doing", ["put_file", "pipe_file", "cat"])
def test_credentials_of_the_store_that_expire(
    embed: Embed,
    plain: dict[str, bytes],
    far: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    doing: str,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    kind = type(fsspec.filesystem("memory"))
    expired = PermissionError("The provided token has expired.")
    with monkeypatch.context() as patch:
        failing = Failing(getattr(kind, doing), 3, expired)
        patch.setattr(kind, doing, lambda *args, **more: failing(*args, **more))
        with pytest.raises(StoreError, match="the credentials have expired") as caught:
            embed(far, **ARRAY)
            embed(far, **ARRAY)  # a reader of the log
    assert "what is committed stays" in str(caught.value.hint)
    embed(far, **ARRAY)
    (mirror,) = (tmp_path / "headstart" / "mirrors").iterdir()
    assert rows_of(mirror, remote=far) == plain


def test_the_same_member_twice_at_once(
    embed: Embed, plain: dict[str, bytes], tmp_path: Path
) -> None:
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(embed, tmp_path, runner="array", index="0", of=2) for _ in range(2)]
        made = [each.result() for each in both]
    assert len(made) == 2
    assert rows_of(tmp_path) == plain
    assert Store(tmp_path).verify().ok


def test_an_array_of_another_size_goes_on_where_one_was_ended(
    embed: Embed, plain: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with monkeypatch.context() as patch:
        patch.setattr(space_module, "write_shard", Failing(space_module.write_shard, 2, full))
        with pytest.raises(StoreError, match="the disk is full"):
            embed(tmp_path, runner="array", index="1", of=3)
    before = len(rows_of(tmp_path))
    assert 0 < before < COUNT
    made = embed(tmp_path, runner="array", index="4", of=5)
    assert made.use.misses == COUNT - before
    assert rows_of(tmp_path) == plain
