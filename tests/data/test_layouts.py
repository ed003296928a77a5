"""Folders as people have them: what is a split, what is a class, and what is refused."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headstart.core.errors import DataError
from headstart.data import Dataset, load_data, load_items, load_test_data
from headstart.data.roles import folder_role, folder_roles, role_of
from tests.data.conftest import encoded

PAIRS = [
    ("train", "test"), ("TRAIN", "TEST"), ("Train", "Val"), ("training", "testing"),
    ("train", "valid"), ("train", "validation"), ("train", "dev"), ("train", "eval"),
    ("train", "holdout"), ("train", "hold_out"), ("trains", "tests"), ("train2017", "val2017"),
    ("train_1", "test_1"), ("train_images", "test_images"), ("training_set", "test_set"),
    ("trainset", "testset"), ("01-train", "02-test"), ("seg_train", "seg_test"),
    ("my_train", "my_test"), ("trainA", "testA"), ("train data", "test data"),
]  # fmt: skip


def fill(root: Path, folders: Iterable[str], texts: Mapping[str, str] | None = None) -> Path:
    """Write three images into each folder, and some files of text."""
    rng = np.random.default_rng(3)
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
        for i in range(3):
            pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            (root / folder / f"{i}.png").write_bytes(encoded(pixels))
    for name, text in (texts or {}).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


def sizes(dataset: Dataset) -> dict[str, int]:
    return {role: len(split) for role, split in dataset.splits.items()}


def labels_of(dataset: Dataset, role: str) -> list[str]:
    split = dataset.splits[role]
    return [split.classes[i] for i in split.labels.tolist()]


def rows(*folders: str, label: bool = True) -> str:
    head = "file_name,label\n" if label else "file_name,caption,width\n"
    lines = [
        f"{folder}{i}.png,{'ab'[i % 2]}" + ("" if label else ",8")
        for folder in folders
        for i in range(3)
    ]
    return head + "\n".join(lines) + "\n"


def as_lines(table: str) -> str:
    head, *lines = table.strip().split("\n")
    names = head.split(",")
    return "\n".join(json.dumps(dict(zip(names, x.split(","), strict=True))) for x in lines)


# Names of splits are never classes


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_split_folders_of_every_name_hold_classes(one: str, other: str, tmp_path: Path) -> None:
    fill(tmp_path, [f"{split}/{name}" for split in (one, other) for name in ("cat", "dog")])
    dataset = load_data(tmp_path)
    assert dataset.classes == ("cat", "dog")
    assert sizes(dataset) == {"train": 6, "test": 6}


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_split_folders_of_every_name_are_never_classes(
    one: str, other: str, tmp_path: Path
) -> None:
    fill(tmp_path / "flat", [one, other])
    fill(tmp_path / "half", [one, f"{other}/cat", f"{other}/dog"])
    for folder in ("flat", "half"):
        with pytest.raises(DataError, match="holds 3 images but no class folders"):
            load_data(tmp_path / folder)
    fill(tmp_path / "kaggle", [f"{one}/cat", f"{one}/dog", other])
    dataset = load_data(tmp_path / "kaggle")
    assert dataset.classes == ("cat", "dog")
    assert any("has no labels, so it is ignored" in note for note in dataset.notes)
    assert len(load_items(tmp_path / "flat")) == 6


@pytest.mark.parametrize("name", ["test", "Testing", "val", "holdout", "fold1", "unlabeled"])
def test_a_split_beside_classes_is_refused_unless_declared(name: str, tmp_path: Path) -> None:
    fill(tmp_path, ["cat", "dog", name])
    with pytest.raises(DataError, match=rf"'{name}'.*splits='none'"):
        load_data(tmp_path)
    assert set(load_data(tmp_path, splits="none").classes) == {"cat", "dog", name}


def test_names_that_only_contain_a_split_are_classes(tmp_path: Path) -> None:
    names = ["Train station", "airport", "test tube", "train_wreck", "devil", "valley", "trainer"]
    fill(tmp_path, names)
    assert set(load_data(tmp_path).classes) == set(names)


def test_a_class_train_among_vehicles_is_said(tmp_path: Path) -> None:
    fill(tmp_path, ["train", "car", "bus"])
    dataset = load_data(tmp_path)
    assert dataset.classes == ("bus", "car", "train")
    assert any("'train' is read as a class" in note for note in dataset.notes)
    assert not any("'train'" in note for note in load_data(tmp_path, splits="none").notes)


@pytest.mark.parametrize(
    ("folders", "splits"),
    [
        (["images/train/a", "images/train/b", "images/val/a"], {"train": 6, "test": 3}),
        (["data/raw/train/a", "data/raw/test/b"], {"train": 3, "test": 3}),
        (["x/x/train/a", "x/x/test/b"], {"train": 3, "test": 3}),
        (
            ["ILSVRC/Data/CLS-LOC/train/n1", "ILSVRC/Data/CLS-LOC/train/n2"],
            {"train": 4, "test": 2},
        ),
        (["s_train/s_train/a", "s_test/s_test/b", "s_pred/s_pred"], {"train": 3, "test": 3}),
        (["a/train", "a/test", "b/train", "b/test"], {"train": 6, "test": 6}),
        (["train/images/a", "train/images/b", "test/images/a"], {"train": 6, "test": 3}),
        (["train/a", "test/b", "val/a", "unlabeled"], {"train": 3, "validation": 3, "test": 3}),
        (["images/train/a", "images/test/b", "masks/train/a"], {"train": 3, "test": 3}),
        (["data/a", "data/b"], {"train": 4, "test": 2}),
    ],
)
def test_nested_layouts(folders: list[str], splits: dict[str, int], tmp_path: Path) -> None:
    dataset = load_data(fill(tmp_path, folders))
    assert sizes(dataset) == splits
    assert set(dataset.classes) <= {"a", "b", "n1", "n2"}


@pytest.mark.parametrize(
    "folders",
    [
        ["train/images", "val/images"],
        ["train/images", "train/labels", "val/images", "val/labels"],
        ["images/train", "images/val", "labels/train"],
        ["images", "masks"],
        ["JPEGImages", "SegmentationClass"],
        ["images"],
        ["fold0/a", "fold1/a"],
        ["train/train/a", "train/test/a"],
        ["train/a", "test/a", "testing/a"],
    ],
)
def test_layouts_without_classes_are_refused(folders: list[str], tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load_data(fill(tmp_path, folders))
    assert "\n" not in str(caught.value)


def test_masks_may_be_classes(tmp_path: Path) -> None:
    fill(tmp_path, ["mask", "no_mask"])
    assert load_data(tmp_path).classes == ("mask", "no_mask")


def test_file_names_are_not_taken_for_labels(tmp_path: Path) -> None:
    fill(tmp_path, ["train", "test"])
    for split in ("train", "test"):
        for i in range(3):
            picture = tmp_path / split / f"{i}.png"
            picture.with_name(f"dog.{i}.png").write_bytes(picture.read_bytes() + b"x")
            picture.rename(picture.with_name(f"cat.{i}.png"))
    with pytest.raises(DataError, match="begin with 'cat', 'dog', which is not taken as a label"):
        load_data(tmp_path)


def test_one_folder_under_two_names_is_no_test_split(tmp_path: Path) -> None:
    fill(tmp_path, ["train/a", "train/b"])
    (tmp_path / "test").symlink_to(tmp_path / "train", target_is_directory=True)
    with pytest.raises(DataError, match="the same folder under two names"):
        load_data(tmp_path)


# Tables beside images


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("place", ["split", "below", "top"])
def test_metadata_as_in_hugging_face_image_folders(kind: str, place: str, tmp_path: Path) -> None:
    fill(tmp_path, ["train/x", "test/x"] if place == "below" else ["train", "test"])
    tables = {
        "split": {f"{s}/metadata": rows("") for s in ("train", "test")},
        "below": {f"{s}/x/metadata": rows("") for s in ("train", "test")},
        "top": {"metadata": rows("train/", "test/")},
    }[place]
    for name, text in tables.items():
        path = tmp_path / f"{name}.{kind}"
        if kind == "parquet":
            lines = [json.loads(line) for line in as_lines(text).split("\n")]
            pq.write_table(pa.Table.from_pylist(lines), path)
        else:
            path.write_text(text if kind == "csv" else as_lines(text))
    dataset = load_data(tmp_path)
    assert dataset.classes == ("a", "b")
    assert labels_of(dataset, "train") == labels_of(dataset, "test") == ["a", "b", "a"]
    assert len(load_test_data(tmp_path).test) == 3


@pytest.mark.parametrize("name", ["labels.csv", "train/labels.csv", "train/_annotations.csv"])
def test_other_tables_beside_flat_splits(name: str, tmp_path: Path) -> None:
    fill(tmp_path, ["train", "test"], {name: rows("" if "/" in name else "train/")})
    dataset = load_data(tmp_path)
    assert dataset.classes == ("a", "b")
    assert len(dataset.train) + len(dataset.test) == 3


def test_metadata_without_labels_leaves_the_class_folders(tmp_path: Path) -> None:
    folders = ["train/cat", "train/dog", "test/cat", "test/dog"]
    texts = {"train/metadata.csv": rows("cat/", "dog/", label=False)}
    assert load_data(fill(tmp_path / "a", folders, texts)).classes == ("cat", "dog")
    top = fill(tmp_path / "b", ["cat", "dog"], {"metadata.csv": rows("cat/", "dog/", label=False)})
    assert load_data(top).classes == ("cat", "dog")
    assert load_data(top, label_column="caption").classes == ("a", "b")


def test_images_without_a_row_are_said(tmp_path: Path) -> None:
    table = "file_name,label\n0.png,a\n1.png,b\n"
    fill(tmp_path, ["train"], {"train/metadata.csv": table})
    assert any("1 of 3 images" in note for note in load_test_data(tmp_path).notes)


def test_two_tables_in_a_split_are_refused(tmp_path: Path) -> None:
    fill(tmp_path, ["train", "test"], {"train/a.csv": rows(""), "train/b.csv": rows("")})
    with pytest.raises(DataError, match=r"'a.csv', 'b.csv', expected a single table"):
        load_data(tmp_path)


# Links


def test_links_never_label_other_classes(tmp_path: Path) -> None:
    root = fill(tmp_path / "pets", ["cat", "dog", "fox"])
    fill(tmp_path / "elsewhere", ["more"])
    (root / "cat" / "up").symlink_to(root, target_is_directory=True)
    (root / "cat" / "further_up").symlink_to(tmp_path, target_is_directory=True)
    (root / "cat" / "0_side").symlink_to(root / "dog", target_is_directory=True)
    (root / "cat" / "self").symlink_to(root / "cat", target_is_directory=True)
    (root / "dog" / "0.link.png").symlink_to(root / "cat" / "0.png")
    (root / "fox" / "more").symlink_to(tmp_path / "elsewhere" / "more", target_is_directory=True)
    (root / "kitten").symlink_to(root / "cat", target_is_directory=True)
    (root / "all").symlink_to(root, target_is_directory=True)
    dataset = load_test_data(root)
    assert dataset.classes == ("cat", "dog", "fox")
    found = zip(labels_of(dataset, "test"), dataset.test.origins, strict=True)
    assert all(origin.startswith(label) for label, origin in found)
    assert len(dataset.test) == 12
    said = " ".join(dataset.notes)
    for part in ("cat/up", "cat/0_side (a link into 'dog')", "kitten (a link to 'cat')", "1 link"):
        assert part in said


def test_hard_links_in_two_classes_are_said(tmp_path: Path) -> None:
    fill(tmp_path, ["cat", "dog"])
    os.link(tmp_path / "cat" / "0.png", tmp_path / "dog" / "9.png")
    said = " ".join(load_test_data(tmp_path).notes)
    assert "1 file is in more than one class folder, by links" in said


def test_links_that_are_the_whole_data_set(tmp_path: Path) -> None:
    """A data set made of links alone, as tools that keep a pool of files make it."""
    fill(tmp_path / "pool", ["x", "y"])
    for name in ("x", "y"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for i in range(3):
            link = tmp_path / "set" / name / f"{i}.png"
            link.symlink_to(tmp_path / "pool" / name / f"{i}.png")
    dataset = load_test_data(tmp_path / "set")
    assert len(dataset.test) == 6
    assert dataset.notes == ()


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[Path]:
    """Two classes, one with an image 1,100 folders down; taken down again level by level."""
    fill(tmp_path, ["cat", "dog"])
    picture = (tmp_path / "cat" / "0.png").read_bytes()
    here = Path.cwd()
    os.chdir(tmp_path / "cat")  # the whole path is too long for some systems to create at once
    for _ in range(1100):
        Path("d").mkdir()
        os.chdir("d")
    Path("9.png").write_bytes(picture)
    os.chdir(here)
    yield tmp_path
    os.chdir(tmp_path / "cat" / Path(*["d"] * 1100))
    Path("9.png").unlink()
    for _ in range(1100):  # shutil.rmtree recurses
        os.chdir("..")
        Path("d").rmdir()
    os.chdir(here)


def test_folders_nested_beyond_the_stack_of_python(deep: Path) -> None:
    assert len(load_test_data(deep).test) == 7
    assert len(load_items(deep)) == 7


# The names themselves


def test_roles_of_names() -> None:
    assert [folder_role(name) for name in ("Val", "test-00", "fold_2", "teapot", "test tube")] == [
        "validation", "test", "", None, None,
    ]  # fmt: skip
    assert folder_roles(["seg_train", "seg_test", "seg_pred"]) == {
        "seg_train": "train", "seg_test": "test",
    }  # fmt: skip
    given: dict[str, Any] = {"train_labels": "train", "solution": None, "val-0-of-2": "validation"}
    assert {name: role_of(name) for name in given} == given
