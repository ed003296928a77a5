"""Folders and tables at an address are read as they would be on this machine, and stay there."""

from __future__ import annotations

import io
import pickle
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.registry import _registry

from headstart.core.errors import BadFilesError, DataError, MissingExtraError, UnreachableError
from headstart.data import Dataset, load_data, load_items, load_parts
from headstart.store.memo import Memo
from tests.data.far.conftest import Put, photos, picture, write


def content_of(data: Dataset) -> dict[str, dict[str, tuple[str, str, bytes]]]:
    """Return id, class and content of every item, by split and origin."""
    found: dict[str, dict[str, tuple[str, str, bytes]]] = {}
    for role, split in data.splits.items():
        for i, (origin, key) in enumerate(zip(split.origins, split.ids, strict=True)):
            content = split.content(i)
            assert isinstance(content, bytes)
            label = split.classes[split.labels[i]]
            found.setdefault(role, {})[origin] = (key, label, content)
    return found


def parquet(count: int = 20, group: int = 6, side: int = 12, **more: Any) -> bytes:
    """Return a table of pictures in small row groups."""
    images = [{"bytes": picture(i, side), "path": f"{i}.png"} for i in range(count)]
    table = pa.table({"image": images, "label": ["a", "b"] * (count // 2), **more})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, row_group_size=group)
    return buffer.getvalue()


def test_a_folder_is_read_where_it_lies(put: Put, tmp_path: Path) -> None:
    files = {**photos(), "readme.md": b"about", "train/.hidden.png": b"x"}
    here, there = load_data(write(tmp_path / "here", files)), load_data(put(files))
    assert there.classes == here.classes == ("hündin", "katze")
    assert content_of(there) == content_of(here)
    assert there.notes == here.notes


def test_a_parquet_table_is_read_where_it_lies(put: Put, tmp_path: Path) -> None:
    files = {
        "x y.parquet": parquet(site=[f"s{i // 4}" for i in range(20)], split=["train", "test"] * 10)
    }
    local = write(tmp_path / "here", files) / "x y.parquet"
    address = put(files)
    name = "x%20y.parquet" if address.startswith("http") else "x y.parquet"
    here, there = load_data(local), load_data(f"{address}/{name}")
    for role, split in here.splits.items():
        other = there.splits[role]
        assert (other.ids, other.labels.tolist()) == (split.ids, split.labels.tolist())
        assert [other.content(i) for i in range(10)] == [split.content(i) for i in range(10)]
    assert there.test.origins[:2] == ("x y.parquet row 1", "x y.parquet row 3")
    grouped = load_data(f"{address}/{name}", group_column="site", splits="none")
    assert grouped.train.groups is not None
    assert not set(grouped.train.groups.tolist()) & set(grouped.test.groups.tolist())  # type: ignore[union-attr]


def test_a_folder_of_tables(put: Put, tmp_path: Path) -> None:
    files = {f"train-{i:05}-of-00002.parquet": parquet(10 + 2 * i) for i in range(2)}
    files["test.parquet"] = parquet(4, note=["x"] * 4)
    here, there = load_data(write(tmp_path / "here", files)), load_data(put(files))
    assert [s.ids for s in there.splits.values()] == [s.ids for s in here.splits.values()]
    assert len(there.train) == 22


def test_a_table_of_paths_beside_its_images(memory: Put, tmp_path: Path) -> None:
    files = {f"bilder/{i}.png": picture(i) for i in range(10)}
    rows = "\n".join(f"bilder/{i}.png,{'xy'[i % 2]},{i // 2}" for i in range(11))
    files["labels.csv"] = f"path,label,patient\n{rows}".encode()
    here, address = write(tmp_path / "here", files), memory(files)
    for end in ("", "/labels.csv"):
        one, other = (
            load_data(f"{place}{end}", group_column="patient") for place in (here, address)
        )
        assert [s.origins for s in one.splits.values()] == [
            s.origins for s in other.splits.values()
        ]
    split = load_items(f"{address}/labels.csv")
    assert split.content(3) == picture(3)
    with pytest.raises(BadFilesError, match=r"bilder/10.png \(no such file\)"):
        split.content(10)


def test_a_local_table_may_name_addresses(memory: Put, tmp_path: Path) -> None:
    address = memory({f"{i}.png": picture(i) for i in range(4)})
    rows = "\n".join(f"{address}/{i}.png,{'xy'[i % 2]}" for i in range(4))
    (tmp_path / "t.csv").write_text(f"path,label\n{rows}")
    split = load_items(tmp_path / "t.csv")
    assert [split.content(i) for i in range(4)] == [picture(i) for i in range(4)]


def test_one_image_and_texts(memory: Put) -> None:
    address = memory({"a.png": picture(1), "t.csv": b"text,label\ngood day,a\nbad day,b\n"})
    assert load_items(f"{address}/a.png").content(0) == picture(1)
    assert load_items(f"{address}/t.csv", kind="text").content(1) == "bad day"


class Counting:
    """Counts what a file system is asked to read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.read: Counter[str] = Counter()
        kind = type(fsspec.filesystem("memory"))
        ask = kind.cat_file

        def cat_file(files: Any, path: str, *rest: Any, **more: Any) -> bytes:
            self.read[path] += 1
            found: bytes = ask(files, path, *rest, **more)
            return found

        monkeypatch.setattr(kind, "cat_file", cat_file)


def test_identifying_and_reading_in_turn_asks_for_each_file_once(
    memory: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headstart.data.far import pieces

    monkeypatch.setattr(pieces, "KEPT_BYTES", 4000)
    monkeypatch.setattr(pieces, "STRETCH_BYTES", 3000)
    counting = Counting(monkeypatch)
    (split,) = load_parts(memory({f"{i}.png": picture(i) for i in range(60)})).values()
    parts = list(split.stretches())
    assert len(parts) > 10
    for part in parts:
        assert len(set(part.ids)) == len(part)
        for i in range(len(part)):
            part.content(i)
        assert split.items._kept_bytes <= 4000  # type: ignore[attr-defined]
    assert set(counting.read.values()) == {1}
    assert len(counting.read) == 60


def test_what_has_not_changed_is_not_read_again(
    memory: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {f"{i}.png": picture(i) for i in range(9)}
    address = memory(files)
    with Memo(tmp_path / "memo") as memo:
        before = load_items(address, digest_memo=memo).ids
    counting = Counting(monkeypatch)
    fsspec.filesystem("memory").pipe_file(f"{address.removeprefix('memory:/')}/3.png", picture(99))
    with Memo(tmp_path / "memo") as memo:
        split = load_items(address, digest_memo=memo)
        counting.read.clear()  # of the look at whether pictures are dark
        after = split.ids
    assert list(counting.read) == [f"{address.removeprefix('memory:/')}/3.png"]
    assert [i for i in range(9) if before[i] != after[i]] == [3]


def test_rows_are_read_a_row_group_at_a_time(memory: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    address = memory({"t.parquet": parquet(20, 6)})
    read: Counter[int] = Counter()
    ask = pq.ParquetFile.read_row_group

    def read_row_group(table: Any, number: int, **more: Any) -> Any:
        read[number] += 1
        return ask(table, number, **more)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", read_row_group)
    (split,) = load_parts(f"{address}/t.parquet").values()
    for part in split.stretches():
        assert len(part) in (6, 2)
        for i in range(len(part)):
            assert part.content(i) == picture(int(part.rows[i]))
        assert len(part.ids) == len(part)
    assert read == {0: 1, 1: 1, 2: 1, 3: 1}
    again = pickle.loads(pickle.dumps(split.items))
    assert again.content(13) == picture(13)


def test_an_image_that_changes_meanwhile_is_a_bad_item(memory: Put) -> None:
    address = memory({"a.png": picture(1), "b.png": picture(2)})
    split = load_items(address)
    assert len(set(split.ids)) == 2
    again = pickle.loads(pickle.dumps(split))  # keeps nothing that was read
    fsspec.filesystem("memory").pipe_file(f"{address.removeprefix('memory:/')}/b.png", picture(3))
    with pytest.raises(BadFilesError, match="changed since it was identified"):
        again.content(1)


# -- what cannot be read ---------------------------------------------------------------------------


def refusing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Let the service refuse to read from now on."""

    def cat_file(*_: Any, **__: Any) -> bytes:
        raise error

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "cat_file", cat_file)
    monkeypatch.setattr("headstart.data.elsewhere._PAUSES", ())


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError("The provided token has expired."), "the credentials have expired"),
        (PermissionError("Access Denied"), "permission is denied"),
        (OSError("Connection reset\nby peer"), "Connection reset by peer"),
    ],
)
def test_a_service_that_refuses_is_no_bad_item(
    memory: Put, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    split = load_items(memory({f"{i}.png": picture(i) for i in range(3)}))
    split = pickle.loads(pickle.dumps(split))  # keeps nothing that was read
    refusing(monkeypatch, error)
    with pytest.raises(UnreachableError, match=said) as caught:
        _ = split.ids
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("end", "said"),
    [
        ("", "holds no files|does not exist"),
        ("/none", "does not exist"),
        ("/none.parquet", "none.parquet': it does not exist"),
        ("/none.tar", "none.tar': it does not exist"),
    ],
)
def test_what_is_not_there_is_said_in_one_line(put: Put, end: str, said: str) -> None:
    address = put({"a/b.png": picture(1)}) + "x"
    with pytest.raises(DataError, match=said) as caught:
        load_parts(address + end)
    assert "\n" not in str(caught.value)


def test_a_missing_bucket(bucket: Put) -> None:
    with pytest.raises(DataError, match="the bucket does not exist"):
        load_parts("s3://nobody-has-this/photos")


def test_errors_name_the_address_and_no_scratch_folder(memory: Put) -> None:
    address = memory({"a.png": picture(1), "b.png": picture(2)})
    with pytest.raises(DataError) as caught:
        load_data(address)
    assert address in str(caught.value)
    assert "/tmp" not in str(caught.value)
    assert "headstart-" not in str(caught.value)


def test_a_damaged_table(memory: Put) -> None:
    address = memory({"t.parquet": parquet()[:-30]})
    with pytest.raises(DataError, match=r"cannot read 'memory://.*t.parquet'") as caught:
        load_data(f"{address}/t.parquet")
    assert "\n" not in str(caught.value)


def test_names_that_lead_elsewhere_are_left_out(memory: Put, tmp_path: Path) -> None:
    from headstart.data.far.address import _is_safe

    assert [
        _is_safe(name) for name in ("a/b.png", "../b", "a/../../b", "/b", "a//b", "b\0", "ö" * 130)
    ] == [
        True,
        *[False] * 6,
    ]
    address = memory({"a/b.png": picture(1), f"{'n' * 300}.png": picture(2)})
    notes: list[str] = []

    class Said:
        def note(self, text: str) -> None:
            notes.append(text)

        def task(self, *_: Any) -> Any:
            from headstart.core.progress import SilentReporter

            return SilentReporter().task("", 0, "")

    split = load_items(address, reporter=Said())  # type: ignore[arg-type]
    assert split.origins == ("a/b.png",)
    assert any("whose names are not valid file paths" in note for note in notes)


def test_an_unknown_protocol_and_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="Protocol not known: nowhere"):
        load_parts("nowhere://a/b")
    for protocol, package, extra in (
        ("s3", "s3fs", "s3"),
        ("gs", "gcsfs", "gcs"),
        ("az", "adlfs", "azure"),
        ("abfs", "adlfs", "azure"),
        ("https", "aiohttp", "remote"),
    ):
        with monkeypatch.context() as patch:
            for name in (package, "fsspec.implementations.http"):
                patch.setitem(sys.modules, name, None)
            patch.delitem(_registry, protocol, raising=False)
            with pytest.raises(MissingExtraError) as caught:
                load_parts(f"{protocol}://bucket/photos")
        assert f"'{package}', which is not installed" in str(caught.value)
        assert caught.value.extra == extra
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "paramiko", None)
        with pytest.raises(DataError, match=r"needs a package that is not installed.*paramiko"):
            load_parts("sftp://host/photos")
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(MissingExtraError, match=r"headstart\[remote\]"):
        load_parts("s3://bucket/photos")


def test_random_order_reads_only_what_is_asked_for(
    memory: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = Counting(monkeypatch)
    (split,) = load_parts(memory({f"{i:03}.png": picture(i) for i in range(200)})).values()
    counting.read.clear()
    order = np.random.default_rng(0).permutation(200)[:10]
    for i in order:
        assert split.content(int(i)) == picture(int(i))
    assert sum(counting.read.values()) < 200
