"""Texts from every source: the same ids, whichever way they come."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headstart.core.errors import DataError
from headstart.data import Dataset, load_data, load_items
from headstart.data.content import UndecodableError, digest, text_of
from headstart.data.texts import Texts
from headstart.data.tokenizers import keep_tokenizer

TEXTS = [
    f"the {word} number {i} is {'far' if i % 2 else 'near'}" for i, word in enumerate("abcdefgh")
]
LABELS = ["far" if i % 2 else "near" for i in range(8)]


def _csv(folder: Path) -> Path:
    pd.DataFrame({"text": TEXTS, "label": LABELS}).to_csv(folder / "all.csv", index=False)
    return folder / "all.csv"


def _parquet(folder: Path) -> Path:
    pq.write_table(pa.table({"question": TEXTS, "label": LABELS}), folder / "all.parquet")
    return folder / "all.parquet"


def _lines(folder: Path) -> Path:
    rows = [{"sentence": t, "category": y} for t, y in zip(TEXTS, LABELS, strict=True)]
    (folder / "all.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder / "all.jsonl"


def _hub(_: Path) -> Any:
    import datasets

    return datasets.Dataset.from_dict({"idx": list(range(8)), "text": TEXTS, "label": LABELS})


SOURCES = {
    "csv": _csv,
    "parquet": _parquet,
    "jsonl": _lines,
    "frame": lambda _: pd.DataFrame({"id": range(8), "review": TEXTS, "label": LABELS}),
    "lists": lambda _: (TEXTS, LABELS),
    "arrays": lambda _: (np.array(TEXTS), np.array(LABELS)),
    "series": lambda _: (pd.Series(TEXTS), pd.Series(LABELS)),
    "hub": _hub,
}


@pytest.mark.parametrize("kind", SOURCES)
def test_texts_have_the_ids_of_their_content(kind: str, tmp_path: Path) -> None:
    dataset = load_data(SOURCES[kind](tmp_path), test_fraction=0.25)
    assert dataset.classes == ("far", "near")
    for split in dataset.splits.values():
        assert split.items.kind == "text"
        for i, key in enumerate(split.ids):
            text = split.content(i)
            assert key == digest(text)
            assert dataset.classes[split.labels[i]] == LABELS[TEXTS.index(str(text))]
    assert sorted(dataset.train.ids + dataset.test.ids) == sorted(map(digest, TEXTS))


def test_texts_to_predict_for_need_no_labels(tmp_path: Path) -> None:
    for source in (TEXTS, np.array(TEXTS), pd.Series(TEXTS), pd.DataFrame({"text": TEXTS})):
        assert load_items(source, kind="text").ids == tuple(map(digest, TEXTS))
    assert load_items(TEXTS).items.kind == "text"
    with pytest.raises(DataError, match="a backbone that takes texts"):
        load_items(TEXTS, kind="image")
    assert load_items(["cat.jpg"], kind="text").items.kind == "text"
    assert load_items(["cat.jpg"]).items.kind == "image"


def table(**columns: Any) -> Dataset:
    return load_data(pd.DataFrame({**columns, "label": LABELS}), test_fraction=0.25)


def test_two_candidate_columns_are_asked_about(tmp_path: Path) -> None:
    other = [text.upper() for text in TEXTS]
    with pytest.raises(
        DataError, match=r"could hold the texts: 'title', 'body'; choose one with te"
    ):
        table(title=TEXTS, body=other)
    frame = pd.DataFrame({"title": TEXTS, "body": other, "label": LABELS})
    chosen = load_data(frame, text_column="body", test_fraction=0.25)
    assert set(chosen.train.ids) <= set(map(digest, other))
    with pytest.raises(DataError, match=r"no column 'bdy'.*did you mean 'body'"):
        load_data(frame, text_column="bdy")
    with pytest.raises(DataError, match="has the type int64, expected texts"):
        load_data(frame.assign(n=range(8)), text_column="n")


def test_columns_that_are_no_texts_are_passed_over() -> None:
    frame = {
        "id": [f"q{i}" for i in range(8)],
        "text": TEXTS,
        "site": ["north wing", "south wing"] * 4,
        "code": [f"x-{i}" for i in range(8)],
    }
    assert table(**frame).train.items.kind == "text"
    with pytest.raises(DataError, match="has no image column"):
        table(code=[f"x-{i}" for i in range(8)])


def test_the_backbone_decides_where_a_table_holds_images_and_texts(tmp_path: Path) -> None:
    from PIL import Image

    for i in range(8):
        Image.new("RGB", (8, 8), (i * 9, 0, 0)).save(tmp_path / f"{i}.png")
    frame = pd.DataFrame({"path": [f"{i}.png" for i in range(8)], "text": TEXTS, "label": LABELS})
    frame.to_csv(tmp_path / "all.csv", index=False)
    for kind, expected in ((None, "image"), ("image", "image"), ("text", "text"), ("x", "image")):
        found = load_data(tmp_path / "all.csv", kind=kind, label_column="label")
        assert found.train.items.kind == expected
    found = load_data(tmp_path / "all.csv", text_column="text", label_column="label")
    assert found.train.items.kind == "text"


def folder_of(root: Path, texts: list[str], labels: list[str]) -> None:
    for i, (text, label) in enumerate(zip(texts, labels, strict=True)):
        (root / label).mkdir(parents=True, exist_ok=True)
        (root / label / f"{i}.txt").write_bytes(text.encode())


def test_folders_of_text_files(tmp_path: Path) -> None:
    folder_of(tmp_path / "all", TEXTS, LABELS)
    (tmp_path / "all" / "README.txt").write_text("not an item")
    dataset = load_data(tmp_path / "all", test_fraction=0.25)
    assert dataset.classes == ("far", "near")
    assert sorted(dataset.train.ids + dataset.test.ids) == sorted(map(digest, TEXTS))
    left = "1 file of 'all' skipped, because they are not in a class folder: 'README.txt'"
    assert any(left in note for note in dataset.notes)
    folder_of(tmp_path / "split" / "train", TEXTS, LABELS)
    folder_of(tmp_path / "split" / "test", TEXTS[:2], LABELS[:2])
    divided = load_data(tmp_path / "split")
    assert (len(divided.train), len(divided.test)) == (8, 2)
    everything = load_items(tmp_path / "all", kind="text")
    assert len(everything) == 9
    assert everything.items.kind == "text"
    assert load_items(tmp_path / "all" / "README.txt", kind="text").content(0) == b"not an item"


def test_text_files_that_are_none_and_folders_of_images(tmp_path: Path) -> None:
    from PIL import Image

    folder_of(tmp_path, [*TEXTS[:2], "x"], ["far", "near", "far"])
    (tmp_path / "far" / "bad.txt").write_bytes(b"\xff\xfe\xfd")
    split = load_data(tmp_path, test_fraction=0.3).train
    with pytest.raises(UndecodableError, match="not UTF-8 text: invalid start byte at byte 0"):
        text_of(b"\xff\xfe\xfd")
    assert text_of(b"\xef\xbb\xbftext") == "text"
    assert split.items.kind == "text"
    for i, label in enumerate(["far", "near"] * 3):
        Image.new("RGB", (8, 8), (i * 9, 0, 0)).save(tmp_path / label / f"{i}.png")
    assert load_data(tmp_path).train.items.kind == "image"
    assert load_data(tmp_path, kind="text").train.items.kind == "text"


def test_texts_that_are_cut_are_counted_whatever_their_letters() -> None:
    """A tokenizer of bytes makes several tokens of a letter, and a text of few letters is long."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inputs = Texts(keep_tokenizer(made.to_str()), max_length=40, pad=0)
    split = load_items(["a" * 25, "é" * 25, "猫" * 14, "猫" * 13, "😀" * 11])
    (cut,) = inputs.remarks(split).values()
    assert list(cut) == [split.origins[i] for i in (1, 2, 4)]


@pytest.mark.parametrize(
    ("kind", "named", "said"),
    [
        ("image", {}, "images of the column 'photo' are read, and not the texts of the column"
                      " 'caption'; text_column='caption'"),
        ("text", {}, "texts of the column 'caption' are read, and not the images of the column"
                     " 'photo'; image_column='photo'"),
        (None, {}, "images of the column 'photo' are read"),
        ("text", {"text_column": "caption"}, None),
        ("image", {"image_column": "photo"}, None),
        ("image", {"columns": "caption"}, None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", ["csv", "parquet", "frame", "folder", "split"])
def test_a_column_of_other_items_is_said_not_to_be_read(
    form: str, kind: str | None, named: dict[str, str], said: str | None, tmp_path: Path
) -> None:
    from PIL import Image

    names = [f"{i}.png" for i in range(8)]
    for i, name in enumerate(names):
        Image.new("RGB", (8, 8), (20 * i, 0, 0)).save(tmp_path / name)
    paths = [str(tmp_path / name) for name in names] if form == "frame" else names
    frame = pd.DataFrame({"photo": paths, "caption": TEXTS, "label": LABELS})
    source: Any = frame
    if form == "split":
        frame["split"] = ["train"] * 4 + ["test"] * 4
    if form == "folder":
        frame[:4].to_csv(tmp_path / "train.csv", index=False)
        frame[4:].to_csv(tmp_path / "test.csv", index=False)
        source = tmp_path
    elif form == "parquet":
        source = tmp_path / "t.parquet"
        frame.to_parquet(source)
    elif form != "frame":
        source = tmp_path / "t.csv"
        frame.to_csv(source, index=False)
    if form == "folder" and kind != "text":
        return  # pictures beside tables are read as a folder of images
    notes = [n for n in load_data(source, kind=kind, **named).notes if "are read, and not" in n]
    assert len(notes) == (said is not None)
    assert said is None or said in notes[0]
