"""Packed tars are read as plain ones, in any order, and their damage is found."""

from __future__ import annotations

import bz2
import gzip
import lzma
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from headstart.core.errors import DataError
from headstart.data import load_data, load_items
from headstart.data.far import pieces, tar_members
from tests.data.far.conftest import Put, write
from tests.data.far.test_tars import shards


def zstd(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


def members(content: bytes) -> bytes:
    """Return two members, as pigz and cat make them, and padding behind them."""
    half = len(content) // 2
    return gzip.compress(content[:half]) + gzip.compress(content[half:]) + b"\0" * 700


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    ".tar.gz": gzip.compress,
    ".tgz": members,
    ".tar.bz2": bz2.compress,
    ".tar.xz": lzma.compress,
    ".tar.zst": zstd,
}


@pytest.fixture
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget every content after it was read once."""
    for module in (pieces, tar_members):
        monkeypatch.setattr(module, "KEPT_BYTES", 0)


def packed(files: dict[str, bytes], ending: str) -> dict[str, bytes]:
    return {
        name.replace(".tar", ending): PACKERS[ending](content) for name, content in files.items()
    }


@pytest.mark.usefixtures("nothing_kept")
@pytest.mark.parametrize("ending", PACKERS)
def test_packed_tars_are_read_as_plain_ones(memory: Put, tmp_path: Path, ending: str) -> None:
    files = shards()
    plain = load_items(write(tmp_path / "plain", files))
    address = memory(packed(files, ending))
    for source in (
        write(tmp_path / "packed", packed(files, ending)),
        address,
        f"{address}/shard-{{000..002}}{ending}",
    ):
        split = load_items(source)
        assert split.ids == plain.ids
        order = np.random.default_rng(0).permutation(len(split)).tolist()
        for i in (*range(len(split)), *order):
            assert split.content(i) == plain.content(i)
        again = pickle.loads(pickle.dumps(split))  # as a worker has it
        assert again.content(7) == plain.content(7)
    assert split.origins[0] == f"shard-000{ending}: a/0000"


def test_splits_groups_and_a_note(tmp_path: Path) -> None:
    named = {**shards(2, name="train-{:03}.tar"), "test-000.tar": shards(1, 4)["shard-000.tar"]}
    data = load_data(write(tmp_path, packed(named, ".tar.gz")), group_column="site")
    assert (len(data.train), len(data.test)) == (12, 4)
    assert data.train.groups is not None
    assert any("3 tars of " in note and "compressed" in note for note in data.notes)


@pytest.mark.parametrize("ending", PACKERS)
@pytest.mark.parametrize("damage", ["half", "the last bytes", "a byte", "nothing", "no tar"])
def test_damage_is_said_in_one_line(memory: Put, ending: str, damage: str) -> None:
    (content,) = packed(shards(1, 20), ending).values()
    middle = len(content) // 2
    if damage == "a byte" and ending == ".tar.zst":
        pytest.skip("Arrow writes no checksums into it")
    damaged = {
        "half": content[:middle],
        "the last bytes": content[: -710 if ending == ".tgz" else -10],
        "a byte": content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :],
        "nothing": b"",
        "no tar": PACKERS[ending](b"no tar at all" * 100),
    }[damage]
    address = memory({f"x{ending}": damaged})
    with pytest.raises(DataError, match=r"truncated or damaged") as caught:
        load_items(f"{address}/x{ending}")
    assert "\n" not in str(caught.value)
