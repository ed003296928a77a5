from __future__ import annotations

import contextlib
import os
import pickle
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from headstart.core.errors import HeadstartError, MissingExtraError, StoreError
from headstart.store import Store, remote
from headstart.store.remote import put_if_absent
from tests.store.conftest import DESCRIPTION, make_ids, make_rows

IDS = make_ids(60)
ROWS = make_rows(IDS)
Place = tuple[str, dict[str, Any]]


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    moto_server = pytest.importorskip("moto.server", reason="needs moto")
    pytest.importorskip("s3fs", reason="needs s3fs")
    before = dict(os.environ)
    os.environ.update(AWS_ACCESS_KEY_ID="test", AWS_SECRET_ACCESS_KEY="test")
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def atomic_emulator(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let conditional puts take turns: S3 makes each atomic, but its emulator's threads do not."""
    lock = threading.Lock()

    def put(files: Any, path: str, data: bytes) -> bool:
        with lock if type(files).__name__ == "S3FileSystem" else contextlib.nullcontext():
            return put_if_absent(files, path, data)

    monkeypatch.setattr(remote, "put_if_absent", put)


@pytest.fixture(params=["memory", "file", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "memory":
        return f"memory://{uuid.uuid4().hex}/store", {}
    if request.param == "file":
        return f"file://{tmp_path}/shared", {}
    endpoint = request.getfixturevalue("s3_server")
    options = {"client_kwargs": {"endpoint_url": endpoint}}
    bucket = f"bucket-{uuid.uuid4().hex}"
    fsspec.filesystem("s3", **options).mkdir(bucket)
    return f"s3://{bucket}/store", options


def mirror(place: Place, folder: Path) -> Store:
    return Store(folder, remote=place[0], remote_options=place[1])


def test_rows_published_by_one_are_read_by_another(place: Place, tmp_path: Path) -> None:
    one = mirror(place, tmp_path / "one").space(DESCRIPTION)
    two = mirror(place, tmp_path / "two").space(DESCRIPTION)
    assert two.missing(IDS) == IDS
    assert one.append(IDS[:20], {"x": ROWS[:20]}) == 20
    assert one.append(IDS[20:40], {"x": ROWS[20:40]}, view=0) == 20
    assert two.missing(IDS) == IDS[40:]
    assert len(two) == 40
    features = two.read(IDS[:40])
    assert list((two.folder / "shards").iterdir()) == []  # nothing is fetched before it is read
    np.testing.assert_array_equal(features[3:6], ROWS[3:6])
    assert len(list((two.folder / "shards").iterdir())) == 1
    np.testing.assert_array_equal(features.array(), ROWS[:40])
    assert two.append(IDS, {"x": -ROWS}) == 20
    assert one.missing(IDS) == []
    found = one.read(IDS).array()
    np.testing.assert_array_equal(found[:40], ROWS[:40])
    np.testing.assert_array_equal(found[40:], -ROWS[40:])
    assert mirror(place, tmp_path / "one").verify().ok
    assert mirror(place, tmp_path / "two").verify().ok


def test_the_remote_layout_is_that_of_the_format(place: Place, tmp_path: Path) -> None:
    space = mirror(place, tmp_path / "one").space(DESCRIPTION)
    space.append(IDS, {"x": ROWS})
    files, root = fsspec.core.url_to_fs(place[0], **place[1])
    (shard,) = (space.folder / "shards").iterdir()
    names = sorted(name.removeprefix(root).lstrip("/") for name in files.find(root))
    assert names == [
        f"{space.key}/log/000000000000.json",
        f"{space.key}/shards/{shard.name}",
        f"{space.key}/space.json",
    ]
    assert files.cat_file(f"{root}/{space.key}/shards/{shard.name}") == shard.read_bytes()
    local = (space.folder / "space.json").read_bytes()
    assert files.cat_file(f"{root}/{space.key}/space.json") == local


@pytest.mark.usefixtures("atomic_emulator")
def test_several_writers_publish_every_row_once(place: Place, tmp_path: Path) -> None:
    errors: list[BaseException] = []
    published: list[int] = []

    def work(number: int) -> None:
        try:
            space = mirror(place, tmp_path / str(number)).space(DESCRIPTION)
            order = np.random.default_rng(number).permutation(60)
            for part in np.array_split(order, 6):
                ids = [IDS[i] for i in part]
                published.append(space.append(ids, {"x": ROWS[part] + 1000 * number}))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sum(published) == 60
    found = [
        mirror(place, tmp_path / str(number)).space(DESCRIPTION).read(IDS).array()
        for number in (0, 1, 2, 99)
    ]
    for other in found[1:]:
        np.testing.assert_array_equal(found[0], other)
    # Each row is one writer's, and all its values are.
    writer = np.round((found[0] - ROWS) / 1000)
    assert set(np.unique(writer)) <= {0.0, 1.0, 2.0}
    np.testing.assert_allclose(found[0], ROWS + 1000 * writer, atol=1e-3)


def test_a_damaged_remote_shard_is_noticed(place: Place, tmp_path: Path) -> None:
    mirror(place, tmp_path / "one").space(DESCRIPTION).append(IDS, {"x": ROWS})
    files, root = fsspec.core.url_to_fs(place[0], **place[1])
    (shard,) = [name for name in files.find(root) if name.endswith(".arrow")]
    content = bytearray(files.cat_file(shard))
    content[700] ^= 1
    files.pipe_file(shard, bytes(content))
    two = mirror(place, tmp_path / "two").space(DESCRIPTION)
    features = two.read(IDS)
    with pytest.raises(StoreError, match="does not match its digest"):
        features.array()
    assert list((two.folder / "shards").iterdir()) == []
    assert list((two.folder / "tmp").iterdir()) == []


@pytest.mark.parametrize("edit", ["flip", "cut", "ids", "empty"])
def test_a_damaged_record_is_noticed(place: Place, tmp_path: Path, edit: str) -> None:
    mirror(place, tmp_path / "one").space(DESCRIPTION).append(IDS, {"x": ROWS})
    files, root = fsspec.core.url_to_fs(place[0], **place[1])
    (record,) = [name for name in files.find(root) if "/log/" in name]
    text = files.cat_file(record)
    edited = {
        "flip": text.replace(b'"view": 0', b'"view": 1'),
        "cut": text[:-40],
        "ids": text.replace(IDS[0].encode(), IDS[1].encode()),
        "empty": b"",
    }[edit]
    files.pipe_file(record, edited)
    with pytest.raises(StoreError, match=r"record .*000000000000.json .* is damaged"):
        mirror(place, tmp_path / "two").space(DESCRIPTION).missing(IDS)


def test_a_repaired_mirror_follows_again(place: Place, tmp_path: Path) -> None:
    store = mirror(place, tmp_path / "one")
    space = store.space(DESCRIPTION)
    space.append(IDS, {"x": ROWS})
    (shard,) = (space.folder / "shards").iterdir()
    shard.unlink()
    space.close()
    assert store.verify(repair=True).ok
    assert space.missing(IDS) == []
    np.testing.assert_array_equal(space.read(IDS).array(), ROWS)


def test_a_remote_space_can_be_pickled(tmp_path: Path) -> None:
    place = (f"file://{tmp_path}/shared", {})
    space = mirror(place, tmp_path / "one").space(DESCRIPTION)
    space.append(IDS, {"x": ROWS})
    copy = pickle.loads(pickle.dumps(space))
    assert copy.missing([*IDS, *make_ids(1, "new")]) == make_ids(1, "new")


@pytest.mark.usefixtures("atomic_emulator")
def test_only_the_first_creates_a_record(place: Place) -> None:
    files, root = fsspec.core.url_to_fs(place[0], **place[1])
    files.makedirs(root, exist_ok=True)
    results: list[bool] = []
    threads = [
        threading.Thread(
            target=lambda n=n: results.append(remote.put_if_absent(files, f"{root}/x", bytes([n])))
        )
        for n in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [False] * 5 + [True]
    assert len(files.cat_file(f"{root}/x")) == 1


@pytest.mark.parametrize(
    ("url", "message"),
    [("nosuch://x/y", "nosuch"), ("file:///proc/nowhere/store", "cannot .* in file:///proc")],
)
def test_a_bad_address_is_one_clear_line(tmp_path: Path, url: str, message: str) -> None:
    with pytest.raises(HeadstartError, match=message) as caught:
        mirror((url, {}), tmp_path / "one").space(DESCRIPTION).append(IDS, {"x": ROWS})
    assert not isinstance(caught.value, MissingExtraError)
    assert "\n" not in str(caught.value)
