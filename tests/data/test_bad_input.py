"""Every mistake a user can make with data gives one clear line, or is handled and said."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headstart.core.errors import BadFilesError, DataError, HeadstartError, MissingExtraError
from headstart.data import load_data, load_items, load_test_data
from headstart.data.decoding import image_of
from tests.data.conftest import Pictures


def message(source: Any, **options: Any) -> str:
    with pytest.raises(HeadstartError) as caught:
        load_data(source, **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


def write_csv(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


# Paths


def test_missing_path_names_the_missing_part_and_what_is_near(
    pictures: Pictures, tmp_path: Path
) -> None:
    pictures.write(tmp_path / "hymenoptera")
    text = message(tmp_path / "hymenopter" / "train")
    assert "does not exist" in text
    assert "holds no 'hymenopter'" in text
    assert "did you mean 'hymenoptera'" in text
    assert "or the word digits" in message(tmp_path / "zzz")
    with pytest.raises(DataError, match="does not exist"):
        load_items(tmp_path / "nothing.png")


def test_files_of_the_wrong_kind(pictures: Pictures, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    assert "a file of unknown kind" in message(tmp_path / "notes.txt")
    root = pictures.write(tmp_path)
    assert "is one image, expected labelled data" in message(root / "cat" / "0.png")
    assert len(load_items(root / "cat" / "0.png")) == 1


def test_objects_of_the_wrong_kind() -> None:
    assert "data of type int cannot be read" in message(3)
    assert "expected a pair (x, y)" in message(np.zeros((3, 8, 8)))
    assert "none of the keys 'a' names a split" in message({"a": (np.zeros((1, 2, 2)), [0])})
    assert "3 images but 2 labels" in message((np.zeros((3, 8, 8), np.uint8), [0, 1]))
    assert "items of shape (9,) are not images" in message((np.zeros((3, 9)), [0, 1, 1]))
    assert "differ in shape" in message(([np.zeros((2, 2)), np.zeros(3)], [0, 1]))
    assert "differ in shape" in message(([np.zeros((2, 2)), np.zeros((2, 3))], [0, 1]))


@pytest.fixture
def locked(pictures: Pictures) -> Iterator[Path]:
    """A folder of images in which a folder and some files may not be read by this user."""
    with tempfile.TemporaryDirectory() as folder:
        root = pictures.write(Path(folder))
        root.chmod(0o755)
        write_csv(root / "locked.csv", "path,label\n").chmod(0)
        (root / "locked").mkdir(mode=0)
        (root / "cat" / "1.png").chmod(0)
        is_root = os.geteuid() == 0  # whom no permission stops
        if is_root:
            os.seteuid(65534)
        try:
            yield root
        finally:
            if is_root:
                os.seteuid(0)
            (root / "locked").chmod(0o755)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="permissions of POSIX")
def test_no_permission(locked: Path) -> None:
    assert "no permission to list the folder" in message(locked)
    assert "no permission to list the folder" in message(locked / "locked")
    assert "no permission to read" in message(locked / "locked.csv")
    assert "cannot be reached" in message(locked / "locked" / "inside")
    with pytest.raises(BadFilesError, match=r"1.png \(no permission to read it\)"):
        load_items(locked / "cat").content(1)


@pytest.mark.parametrize("name", ["x" * 400, "nul\0byte"])
def test_impossible_paths(name: str) -> None:
    assert "cannot be reached" in message(name) or "does not exist" in message(name)


# Folders


def test_folders_without_images(pictures: Pictures, tmp_path: Path) -> None:
    assert "is an empty folder" in message(tmp_path)
    (tmp_path / "cat").mkdir()
    (tmp_path / "dog").mkdir()
    assert "all 2 class folders" in message(tmp_path)
    (tmp_path / "cat" / "readme.txt").write_text("x")
    assert "have no images" in message(tmp_path)
    with pytest.raises(DataError, match="holds no images"):
        load_items(tmp_path)


def test_images_without_class_folders(pictures: Pictures, tmp_path: Path) -> None:
    root = pictures.write(tmp_path) / "cat"
    assert "holds 6 images but no class folders" in message(root)
    assert len(load_items(root)) == 6


def test_stray_files_and_empty_folders_are_skipped_and_said(
    pictures: Pictures, tmp_path: Path
) -> None:
    root = pictures.write(tmp_path)
    for name in (".DS_Store", "Thumbs.db", "cat/.hidden.png", "cat/Thumbs.db"):
        (root / name).write_bytes(b"x")
    (root / ".git").mkdir()
    (root / "horse").mkdir()
    (root / "cat" / "notes.txt").write_text("x")
    (root / "list.docx").write_text("x")
    dataset = load_data(root)
    assert dataset.classes == ("cat", "ünï dög")
    assert len(dataset.train) + len(dataset.test) == 12
    notes = " ".join(dataset.notes)
    assert "1 folder of" in notes
    assert "'horse'" in notes
    assert "2 files of" in notes
    assert "'cat/notes.txt', 'list.docx'" in notes
    assert "Thumbs" not in notes


def test_circular_links_do_not_hang(pictures: Pictures, tmp_path: Path) -> None:
    root = pictures.write(tmp_path)
    (root / "cat" / "loop").symlink_to(root / "cat", target_is_directory=True)
    (root / "cat" / "up").symlink_to(root, target_is_directory=True)
    (root / "self").symlink_to(root / "self")
    assert len(load_test_data(root).test) >= 12
    assert set(load_test_data(root).classes) == {"cat", "ünï dög"}
    linked = tmp_path / "linked"
    linked.mkdir()
    for name in ("a", "b"):
        (linked / name).symlink_to(root / "ünï dög", target_is_directory=True)
    assert len(load_test_data(linked).test) == 12


def test_two_folders_for_one_split(pictures: Pictures, tmp_path: Path) -> None:
    for name in ("train", "val", "valid"):
        pictures.write(tmp_path / name)
    assert "more than one validation split: 'val', 'valid'" in message(tmp_path)


def test_no_training_split(pictures: Pictures, tmp_path: Path) -> None:
    pictures.write(tmp_path / "test")
    assert "'test' but no training split" in message(tmp_path)
    assert len(load_test_data(tmp_path).test) == 12


# Classes


def test_one_class_is_said(pictures: Pictures) -> None:
    dataset = load_data((pictures.pixels(), ["cat"] * 12))
    assert "There is only one class, 'cat': there is nothing to distinguish." in dataset.notes


def test_classes_missing_from_a_split_are_said(pictures: Pictures) -> None:
    x = pictures.pixels()
    dataset = load_data({"train": (x[:4], list("aabb")), "test": (x[:4], list("aacc"))})
    assert dataset.classes == ("a", "b", "c")
    notes = " ".join(dataset.notes)
    assert "1 class without any training item: 'c'; 2 test items of such classes" in notes
    assert "1 class without any test item: 'b'" in notes


def test_a_single_item_stays_in_training(pictures: Pictures) -> None:
    dataset = load_data((pictures.pixels()[:7], ["a"] * 6 + ["b"]))
    assert dataset.classes[dataset.train.labels.max()] == "b"
    assert any("without any test item: 'b'" in note for note in dataset.notes)


def test_too_few_items_to_set_any_aside(pictures: Pictures) -> None:
    assert "too few to set a test split aside" in message((pictures.pixels()[:2], ["a", "b"]))


def test_contradictory_labels_are_said(pictures: Pictures) -> None:
    x = pictures.pixels()
    dataset = load_data((np.concatenate([x, x[:1]]), ["a"] * 6 + ["b"] * 7))
    assert any("1 item appears under more than one class" in note for note in dataset.notes)


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ([3, 20, 100], ("3", "20", "100")),
        ([3.0, 20.0, 100.0], ("3", "20", "100")),
        ([True, False, True], ("False", "True")),
        (["10", "9", "011"], ("9", "10", "011")),
        (["1.0", "2", "10.0"], ("1", "2", "10")),
        ([" a b", "ü", "日本"], ("a b", "ü", "日本")),
        (["b", "10", "9"], ("10", "9", "b")),
        (np.array([b"x", b"y", b"x"]), ("x", "y")),
    ],
)
def test_labels_of_every_kind(labels: Any, classes: tuple[str, ...], pictures: Pictures) -> None:
    assert load_test_data((pictures.pixels()[:3], np.asarray(labels))).classes == classes


def test_missing_labels_name_the_rows(pictures: Pictures, tmp_path: Path) -> None:
    labels = pd.Series([1.0, np.nan] * 6)
    text = message(
        pd.DataFrame({"image": list(pictures.data), "label": labels}), image_column="image"
    )
    assert "6 items of 12 in column 'label' of table without a label" in text
    assert "'table row 1', 'table row 3'" in text
    assert "give those items a label, or remove them" in text
    pictures.write(tmp_path)
    rows = ["path,label", "cat/0.png,", "cat/1.png,NaN", "cat/2.png,x", "cat/3.png,None"]
    text = message(write_csv(tmp_path / "t.csv", "\n".join(rows)))
    assert "2 items of 4" in text
    assert "'cat/0.png', 'cat/1.png'" in text


def test_fractional_labels_are_not_classes(pictures: Pictures, tmp_path: Path) -> None:
    assert "fractional numbers such as 0.5" in message(
        (pictures.pixels(), [0.5, 1.0] * 6), task="classification"
    )
    pictures.write(tmp_path)
    rows = ["path,label", "cat/0.png,1.5", "cat/1.png,2.0"]
    table = write_csv(tmp_path / "t.csv", "\n".join(rows))
    assert "fractional numbers" in message(table, task="classification")


def test_labels_beyond_the_declared_classes() -> None:
    from headstart.data.labels import class_names

    with pytest.raises(DataError, match=r"the label 7, but only 2 classes are declared"):
        class_names([0, 7], "column 'label'", ("a", "b"))


# Tables


def test_a_column_that_does_not_exist(pictures: Pictures, tmp_path: Path) -> None:
    frame = pd.DataFrame({"image": list(pictures.data), "label": list(pictures.labels)})
    frame.to_parquet(tmp_path / "t.parquet")
    text = message(tmp_path / "t.parquet", label_column="lable")
    assert "has no column 'lable' (label_column='lable')" in text
    assert "did you mean 'label'" in text
    assert "its columns are 'image' (binary)" in message(frame, image_column="zzzz")
    assert "has the type" in message(frame.assign(n=1.5), image_column="n")


def test_ambiguous_columns_are_listed(pictures: Pictures) -> None:
    frame = pd.DataFrame({"left": list(pictures.data), "right": list(pictures.data)})
    frame["colour"] = frame["shape"] = ["a", "b"] * 6
    assert "several columns that could hold the images: 'left', 'right'" in message(frame)
    text = message(frame, image_column="left")
    assert "several columns that could hold the labels: 'colour', 'shape'" in text
    assert "label_column=NAME" in text
    assert load_data(frame, image_column="left", label_column="shape").classes == ("a", "b")
    assert load_items(frame[["left", "colour", "shape"]]).classes == ()


def test_columns_are_found_among_others(pictures: Pictures) -> None:
    frame = pd.DataFrame(
        {
            "Unnamed: 0": range(12),
            "id": range(12),
            "file_name": pictures.names,
            "image": list(pictures.data),
            "width": 16.0,
            "kind": list(pictures.labels),
        }
    )
    assert load_data(frame).classes == ("cat", "ünï dög")
    assert load_data(frame.assign(note="x", Label=["p", "q"] * 6)).classes == ("p", "q")


def test_tables_without_images_or_labels(tmp_path: Path, shared_data: Path) -> None:
    assert load_data(shared_data / "trec").train.items.kind == "text"  # texts are items, too
    text = message(pd.DataFrame({"code": ["x1", "x2"], "label": ["p", "q"]}))
    assert "has no image column" in text
    assert "'code' (string)" in text or "'code' (large_string)" in text
    frame = pd.DataFrame({"image": [b"x", b"y"], "score": [0.5, 0.2]})
    assert "no label column besides 'image'" in message(frame, task="classification")


def test_broken_tables(pictures: Pictures, tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 nothing")
    assert "cannot be read as parquet" in message(tmp_path / "a.parquet")
    assert "is empty" in message(write_csv(tmp_path / "b.csv", ""))
    assert "has no rows" in message(write_csv(tmp_path / "c.csv", "path,label\n"))
    assert "holds data ('cat/0.png', 'cat')" in message(
        write_csv(tmp_path / "d.csv", "cat/0.png,cat\ncat/1.png,cat\n")
    )
    (tmp_path / "e.csv").write_bytes("path,läbel\n".encode("latin-1"))
    assert "is not UTF-8 text" in message(tmp_path / "e.csv")
    (tmp_path / "f.csv").write_bytes("path,label\na.png,ü\n".encode("latin-1"))
    assert "is not UTF-8 text" in message(tmp_path / "f.csv")
    assert "cannot be read as csv" in message(
        write_csv(tmp_path / "g.csv", "path,label\na.png,b,c\n")
    )


def test_columns_of_the_same_name(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", "path,label,label\na.png,b,c\n")
    assert "t.csv has several columns of the same name: 'label'" in message(path)


def test_folders_of_tables_without_split_names(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        write_csv(tmp_path / name, "path,label\n1.png,x\n")
    assert "'a.csv', 'b.csv', none of which is called train" in message(tmp_path)
    assert "no table 'c.csv'" in message(tmp_path, train="c.csv")


def test_semicolons_byte_order_marks_and_backslashes(pictures: Pictures, tmp_path: Path) -> None:
    pictures.write(tmp_path)
    rows = [
        f"{n.replace('/', chr(92))};{c}"
        for n, c in zip(pictures.names, pictures.labels, strict=True)
    ]
    path = write_csv(tmp_path / "t.csv", "\ufeff" + "\r\n".join(["path;label", *rows]))
    split = load_test_data(path).test
    assert split.classes == ("cat", "ünï dög")
    assert np.asarray(image_of(split.content(11))).tolist() == pictures.pixels()[11].tolist()


def test_paths_that_start_elsewhere_are_told_at_once(pictures: Pictures, tmp_path: Path) -> None:
    pictures.write(tmp_path / "images")
    text = message(write_csv(tmp_path / "t.csv", "path,label\ncat/0.png,a\ncat/1.png,b\n"))
    assert "none of the first 2 files that t.csv names exists" in text
    assert "are relative to the table's folder" in text


def test_a_guessed_label_column_never_stops_prediction(pictures: Pictures, tmp_path: Path) -> None:
    pictures.write(tmp_path)
    path = write_csv(tmp_path / "t.csv", "path,label\ncat/0.png,0.25\ncat/1.png,0.5\n")
    assert load_items(path).labels.tolist() == [-1, -1]
    path = write_csv(tmp_path / "t.csv", "path,kind,width\ncat/0.png,a,0.25\ncat/1.png,b,2\n")
    assert load_items(path).classes == ("a", "b")


def test_missing_and_remote_files_of_a_table_are_bad_items(
    pictures: Pictures, tmp_path: Path
) -> None:
    pictures.write(tmp_path)
    rows = ["path,label", "gone.png,a", "memory://gone/x.png,a", ",b", "cat/0.png,b"]
    split = load_test_data(write_csv(tmp_path / "t.csv", "\n".join(rows))).test
    reasons = []
    for i in range(3):
        with pytest.raises(HeadstartError) as caught:
            image_of(split.content(i))
        reasons.append(str(caught.value))
    assert "gone.png (no such file)" in reasons[0]
    assert "memory://gone/x.png (no such file)" in reasons[1]
    assert "t.csv row 2 (the table has no image in this row)" in reasons[2]


def test_null_images_are_bad_items() -> None:
    table = pa.table({"image": pa.array([None, b"x"], pa.binary()), "label": [0, 1]})
    with pytest.raises(HeadstartError, match="no image in this row"):
        image_of(load_test_data(table).test.content(0))


def test_a_table_larger_than_memory_is_refused(
    pictures: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = pa.table({"image": list(pictures.data), "label": list(pictures.labels)})
    pq.write_table(table, tmp_path / "t.parquet")

    class Full:
        available = 100

    monkeypatch.setattr("psutil.virtual_memory", Full)
    assert "kB of memory, but only 100 bytes are free" in message(tmp_path / "t.parquet")


# Objects


def test_streamed_hub_datasets() -> None:
    stream = datasets.Dataset.from_dict({"image": [b"x"], "label": [0]}).to_iterable_dataset()
    assert "streaming=False" in message(stream)


def test_saved_hub_datasets_need_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train"]}')
    assert "cannot be opened" in message(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'headstart\[datasets\]'"):
        load_data(tmp_path)


def test_torch_datasets_of_the_wrong_kind() -> None:
    class Singles:
        def __len__(self) -> int:
            return 3

        def __getitem__(self, i: int) -> int:
            return i

    assert "item 0 of Singles is a int, expected a pair" in message(Singles())

    class Normalised(Singles):
        def __getitem__(self, i: int) -> Any:
            return np.full((3, 4, 4), -1.0), 0

    text = message(Normalised())
    assert "not usable as images: floats from -1 to -1, expected 0 to 1" in text
    assert "the backbone has its own" in text


def test_a_torch_dataset_with_a_bad_item_still_yields_the_others(pictures: Pictures) -> None:
    class OneBad:
        targets = (0, 1, 0, 1, 0)

        def __len__(self) -> int:
            return 5

        def __getitem__(self, i: int) -> Any:
            if i == 1:
                raise KeyError("lost")
            return pictures.images()[i], self.targets[i]

    split = load_test_data(OneBad()).test
    assert split.labels.tolist() == [0, 1, 0, 1, 0]
    with pytest.raises(BadFilesError, match=r"OneBad item 1 \(KeyError: 'lost'\)"):
        image_of(split.content(1))
    assert image_of(split.content(2)).size == (16, 12)
