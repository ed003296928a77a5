"""A writer that is killed between renaming and registering a shard loses nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from headstart.store import Space, Store
from tests.store.conftest import DESCRIPTION, make_ids, make_rows

ROWS = 40
_DIES = """
import os, signal, sys
from headstart.store import Store, space as module
from tests.store.conftest import DESCRIPTION, make_ids, make_rows
space = Store(sys.argv[1], remote=sys.argv[2] or None).space(DESCRIPTION)
ids = make_ids(40)
space.append(ids[:10], {"features": make_rows(ids[:10])})
space.claim(ids)
module.sync_folder = lambda folder: os.kill(os.getpid(), signal.SIGKILL)
space.append(ids[10:30], {"features": make_rows(ids[10:30])})
"""


def killed(place: Path, remote: str = "") -> Space:
    """Return a space whose writer was killed after it had renamed its second shard."""
    words = [sys.executable, "-c", _DIES, str(place), remote]
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    return Store(place, remote=remote or None).space(DESCRIPTION)


pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")


def test_the_next_worker_takes_the_rows_over(tmp_path: Path) -> None:
    space, ids = killed(tmp_path / "store"), make_ids(ROWS)
    assert space.missing(ids) == ids[10:]
    assert [f.kind for f in Store(tmp_path / "store").verify().faults] == ["orphan"]
    assert space.claim(ids) == ids[30:]
    assert space.missing(ids) == ids[30:]
    np.testing.assert_array_equal(space.read(ids[:30]).array(), make_rows(ids[:30]))
    space.release()
    assert not Store(tmp_path / "store").verify().faults


def test_rows_that_another_has_computed_are_not_there_twice(tmp_path: Path) -> None:
    space, ids = killed(tmp_path / "store"), make_ids(ROWS)
    space.append(ids, {"features": make_rows(ids)})
    assert space.claim(ids) == []
    space.release()
    report = Store(tmp_path / "store").verify()
    assert not report.faults
    assert len(list((space.folder / "shards").iterdir())) == 2
    assert len(space) == ROWS


def test_a_damaged_one_is_left_to_a_repair(tmp_path: Path) -> None:
    space, ids = killed(tmp_path / "store"), make_ids(ROWS)
    registered = {entry.name for entry in space._folder.created().shard_entries().values()}
    (left,) = [p for p in (space.folder / "shards").iterdir() if p.stem not in registered]
    content = bytearray(left.read_bytes())
    content[100] ^= 255
    left.write_bytes(content)
    assert space.claim(ids) == ids[10:]
    space.release()
    assert left.exists()
    assert [f.kind for f in Store(tmp_path / "store").verify().faults] == ["orphan"]


def test_columns_of_another_shape_are_not_taken_over(tmp_path: Path) -> None:
    space, ids = killed(tmp_path / "store"), make_ids(ROWS)
    index = space._folder.created()
    with index.transaction() as connection:  # as if the first shard had been another
        connection.execute("UPDATE shards SET columns = replace(columns, '16', '17')")
    assert space.claim(ids) == ids[10:]


def test_in_a_mirror_such_a_file_is_removed(tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    space = killed(tmp_path / "store", (tmp_path / "far").as_uri())
    ids = make_ids(ROWS)
    # The record is in the log before the mirror takes the shard: its rows are there for everybody.
    assert space.missing(ids) == ids[30:]
    assert space.claim(ids) == ids[30:]
    space.release()
    np.testing.assert_array_equal(space.read(ids[:30]).array(), make_rows(ids[:30]))
    (space.folder / "shards" / ("0" * 32 + ".arrow")).write_bytes(b"in no log")
    assert space.claim(ids) == ids[30:]
    space.release()
    assert not Store(tmp_path / "store", remote=(tmp_path / "far").as_uri()).verify().faults
