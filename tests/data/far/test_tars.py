"""Tars of WebDataset: samples, labels, groups, splits and damage."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from headstart.core.errors import DataError
from headstart.data import load_data, load_items, load_parts
from headstart.data.content import digest
from headstart.data.far.tar_names import braced
from tests.data.far.conftest import Put, picture, tar, write


def shards(count: int = 3, size: int = 6, name: str = "shard-{:03}.tar") -> dict[str, bytes]:
    """Return tars of labelled pictures, groups in their JSON."""
    return {
        name.format(number): tar(
            {
                f"{number:02}{i:02}": {
                    "png": picture(100 * number + i),
                    "cls": str(i % 2).encode(),
                    "json": b'{"site": "s%d", "width": %d}' % (i % 3, i),
                }
                for i in range(size)
            },
            folder="a/",
        )
        for number in range(count)
    }


def test_braces() -> None:
    assert braced("a-{08..11}.tar") == ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]
    assert braced("{a,b}-{2..1}.tar") == ["a-2.tar", "a-1.tar", "b-2.tar", "b-1.tar"]
    assert braced("plain.tar") == ["plain.tar"]
    with pytest.raises(DataError, match="more than 1,000,000 files"):
        braced("{0..99999999}.tar")


def test_a_folder_of_tars_or_their_names_in_braces(tmp_path: Path) -> None:
    write(tmp_path / "t", shards())
    for source in (tmp_path / "t", f"{tmp_path}/t/shard-{{000..002}}.tar"):
        data = load_data(source)
        assert data.classes == ("0", "1")
        assert sum(map(len, data.splits.values())) == 18
        split = data.train
        for i, key in enumerate(split.ids):
            content = split.content(i)
            assert digest(content) == key
        assert split.origins[0].startswith("shard-000.tar: a/00")


def test_tars_at_an_address_are_those_on_the_disk(put: Put, tmp_path: Path) -> None:
    files = shards()
    here, address = load_items(write(tmp_path / "t", files)), put(files)
    sources = [f"{address}/shard-{{000..002}}.tar", address]
    for source in sources:
        there = load_items(source)
        assert there.ids == here.ids
        assert [there.content(i) for i in range(18)] == [here.content(i) for i in range(18)]


def test_splits_by_the_names_of_tars_and_folders(memory: Put, tmp_path: Path) -> None:
    named = {**shards(2, name="train-{:03}.tar"), "test-000.tar": shards(1, 4)["shard-000.tar"]}
    folders = {f"{name.split('-')[0]}/{name}": content for name, content in named.items()}
    for place in (write(tmp_path / "n", named), memory(named), write(tmp_path / "f", folders)):
        data = load_data(place)
        assert (len(data.train), len(data.test)) == (12, 4)
        assert not data.test_drawn


def test_groups_and_labels_come_from_the_members(tmp_path: Path) -> None:
    write(tmp_path, shards())
    data = load_data(tmp_path, group_column="site")
    assert not set(data.train.groups.tolist()) & set(data.test.groups.tolist())  # type: ignore[union-attr]
    assert set(data.train.metadata.column_names) >= {"width"}
    assert load_data(tmp_path, label_column="width", task="classification").classes[0] == "0"


@pytest.mark.parametrize(
    ("members", "classes"),
    [
        ({"json": b'{"label": "%s", "n": 1}'}, ("a", "b")),
        ({"txt": b"%s\n"}, ("a", "b")),
        ({"cls": b"%s", "txt": b"a long caption"}, ("a", "b")),
        ({"json": b'{"category": "%s"}', "txt": b"words"}, ("a", "b")),
    ],
)
def test_labels_by_their_members(
    tmp_path: Path, members: dict[str, bytes], classes: tuple[str, ...]
) -> None:
    samples = {
        f"{i:02}": {
            "jpg": picture(i),
            **{k: v % b"ab"[i % 2 : i % 2 + 1] if b"%s" in v else v for k, v in members.items()},
        }
        for i in range(10)
    }
    (tmp_path / "x.tar").write_bytes(tar(samples))
    assert load_data(tmp_path / "x.tar").classes == classes


def test_texts_are_items_for_a_network_of_texts(tmp_path: Path) -> None:
    samples = {
        f"{i}": {"txt": f"words {i} of it".encode(), "cls": b"01"[i % 2 : i % 2 + 1]}
        for i in range(10)
    }
    (tmp_path / "x.tar").write_bytes(tar(samples))
    data = load_data(tmp_path / "x.tar", kind="text")
    assert str(data.train.content(0)).startswith("words")
    assert data.classes == ("0", "1")


def test_several_images_a_sample_are_chosen_by_name(tmp_path: Path) -> None:
    samples = {
        f"{i}": {"jpg": picture(i), "seg.png": picture(50 + i), "cls": b"0"} for i in range(4)
    }
    (tmp_path / "x.tar").write_bytes(tar(samples))
    split = load_items(tmp_path / "x.tar", image_column="seg.png")
    assert split.content(2) == picture(52)


def test_samples_without_an_image_are_left_out_and_named(tmp_path: Path) -> None:
    samples = {"a": {"png": picture(1)}, "b": {"cls": b"1"}, "c.d": {"png": picture(2)}}
    (tmp_path / "x.tar").write_bytes(tar(samples))
    (split,) = load_parts(tmp_path / "x.tar").values()
    assert len(split) == 1 or split.origins == ("x.tar: a", "x.tar: c")


def members(*found: tuple[str, bytes]) -> bytes:
    """Return a tar of members in this order."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as made:
        for name, content in found:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            made.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def test_members_of_a_sample_need_not_follow_each_other(tmp_path: Path) -> None:
    images = [(f"{i}.png", picture(i)) for i in range(12)]
    classes = [(f"{i}.cls", b"01"[i % 2 : i % 2 + 1]) for i in range(12)]
    (tmp_path / "x.tar").write_bytes(members(*images, *classes))
    data = load_data(tmp_path / "x.tar")
    assert data.classes == ("0", "1")
    assert sum(map(len, data.splits.values())) == 12
    again = [*images[:6], *classes[:6], *images[6:], ("0.png", picture(99)), ("0.cls", b"1")]
    (tmp_path / "y.tar").write_bytes(members(*again))
    assert len(load_items(tmp_path / "y.tar")) == 13  # a second sample of the same key is its own


def test_keys_are_no_labels(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(members(*((f"{i // 2}.png", picture(i)) for i in range(12))))
    with pytest.raises(DataError, match="no label column"):
        load_data(tmp_path / "x.tar")
    samples = [(f"{i}.png", picture(i)) for i in range(12)]
    samples += [(f"{i}.cls", b"01"[i % 2 : i % 2 + 1]) for i in range(12)]
    (tmp_path / "y.tar").write_bytes(members(*samples))
    data = load_data(tmp_path / "y.tar", group_column="__key__")
    assert len(set(data.train.groups.tolist())) == len(data.train)  # type: ignore[union-attr]


def test_keys_with_dots_are_refused_where_they_fall_into_one(tmp_path: Path) -> None:
    named = [(f"a.b{i}.{end}", picture(i)) for i in range(6) for end in ("png",)]
    (tmp_path / "x.tar").write_bytes(members(*named))
    with pytest.raises(DataError, match="1 sample of x with 6 kinds of images") as caught:
        load_items(tmp_path / "x.tar")
    assert "a key ends at the first dot of the name" in str(caught.value)
    assert len(load_items(tmp_path / "x.tar", image_column="b3.png")) == 1


@pytest.mark.parametrize("keep", [0.5, 0.97, -10240, -1])
def test_a_truncated_tar_is_refused_in_one_line(put: Put, keep: float) -> None:
    (content,) = shards(1, 20).values()
    cut = content[: int(len(content) * keep)] if keep > 0 else content[: int(keep)]
    last = max(i for i, byte in enumerate(content) if byte)
    address = put({"x.tar": cut})
    if len(cut) > last + 1024:
        assert len(load_items(f"{address}/x.tar")) == 20  # nothing but padding is gone
        return
    with pytest.raises(DataError, match=r"x.tar' is truncated or damaged") as caught:
        load_items(f"{address}/x.tar")
    assert "\n" not in str(caught.value)


def test_damage_in_the_middle_is_found(tmp_path: Path) -> None:
    (content,) = shards(1, 20).values()
    damaged = bytearray(content)
    with tarfile.open(fileobj=io.BytesIO(content)) as made:
        header = made.getmembers()[12].offset
    damaged[header : header + 512] = bytes([7]) * 512
    (tmp_path / "x.tar").write_bytes(damaged)
    with pytest.raises(DataError, match="truncated or damaged: there is no member at byte"):
        load_items(tmp_path / "x.tar")


@pytest.mark.parametrize("content", [b"", b"no tar at all" * 100, tar({})])
def test_what_is_no_tar_or_empty(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises(DataError) as caught:
        load_items(tmp_path / "x.tar")
    assert "\n" not in str(caught.value)


def test_missing_tars_are_refused(tmp_path: Path) -> None:
    write(tmp_path, shards(2))
    with pytest.raises(DataError, match=r"1 of 3 tar files .* do not exist"):
        load_items(f"{tmp_path}/shard-{{000..002}}.tar")


def test_links_and_paths_in_a_tar_lead_nowhere(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as made:
        link = tarfile.TarInfo("a.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        made.addfile(link)
        for name in ("../../b.png", "/c.png"):
            info = tarfile.TarInfo(name)
            info.size = len(picture(1))
            made.addfile(info, io.BytesIO(picture(1)))
    (tmp_path / "x.tar").write_bytes(buffer.getvalue())
    split = load_items(tmp_path / "x.tar")
    assert len(split) == 2
    assert not (tmp_path.parent / "b.png").exists()
