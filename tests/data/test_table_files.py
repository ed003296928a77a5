"""Tables as programs write them: encodings, delimiters, damage, images elsewhere, one-hot."""

from __future__ import annotations

import codecs
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headstart.core.errors import DataError, HeadstartError
from headstart.data import load_data, load_items, load_test_data
from tests.data.conftest import Pictures

ENCODINGS = {
    "utf-8": b"", "utf-8-sig": b"", "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE, "utf-32-le": codecs.BOM_UTF32_LE,
    "utf-32-be": codecs.BOM_UTF32_BE,
}  # fmt: skip


def message(source: Any, **options: Any) -> str:
    with pytest.raises(HeadstartError) as caught:
        load_data(source, **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


def lines(pictures: Pictures, delimiter: str = ",", quote: str = "") -> list[str]:
    rows = [("path", "label"), *zip(pictures.names, pictures.labels, strict=True)]
    return [delimiter.join(f"{quote}{value}{quote}" for value in row) for row in rows]


def labels(source: Any, **options: Any) -> list[str]:
    split = load_test_data(source, **options).test
    return [split.classes[i] for i in split.labels.tolist()]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_csv_in_every_form(
    encoding: str, end: str, delimiter: str, pictures: Pictures, tmp_path: Path
) -> None:
    pictures.write(tmp_path)
    for quote, before, after in (("", "", end), ('"', "", ""), ("", end, end * 2)):
        text = before + end.join(lines(pictures, delimiter, quote)) + after
        (tmp_path / "t.csv").write_bytes(ENCODINGS[encoding] + text.encode(encoding))
        assert labels(tmp_path / "t.csv") == list(pictures.labels)


def test_what_excel_writes(pictures: Pictures, tmp_path: Path) -> None:
    pictures.write(tmp_path)
    path = tmp_path / "t.csv"
    rows = [line + ";;" for line in lines(pictures, ";")]
    path.write_bytes("\r\n".join(["sep=;", *rows]).encode("utf-8-sig"))
    assert labels(path) == list(pictures.labels)
    path.write_bytes("\r\n".join(['"sep=|"', *lines(pictures, "|", '"')]).encode("utf-16"))
    assert labels(path) == list(pictures.labels)
    quoted = ['"pa""th, or ""file""",label', *lines(pictures)[1:]]
    path.write_text("\n".join(quoted), encoding="utf-8")
    assert labels(path) == list(pictures.labels)
    path.write_text("\n".join([" path , label ", *lines(pictures)[1:]]), encoding="utf-8")
    assert labels(path, label_column="label") == list(pictures.labels)


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "cp437", "utf-16-le", "shift_jis"])
def test_other_encodings_are_asked_for(encoding: str, pictures: Pictures, tmp_path: Path) -> None:
    root = pictures.write(tmp_path)
    name = "日本" if encoding == "shift_jis" else "ünï"
    rows = ["path,label", *(f"cat/{i}.png,{('cat', name)[i % 2]}" for i in range(6))]
    (root / "t.csv").write_bytes("\r\n".join(rows).encode(encoding))
    text = message(root / "t.csv")
    assert "is not UTF-8 text" in text
    assert "encoding='" in text
    assert set(labels(root / "t.csv", encoding=encoding)) == {"cat", name}
    assert "cannot be read with encoding='ascii'" in message(root / "t.csv", encoding="ascii")
    assert "unknown encoding" in message(root / "t.csv", encoding="nonsense")


def test_spreadsheets_are_named(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"PK\x03\x04" + b"\0" * 100)
    assert "is a spreadsheet, despite its name" in message(tmp_path / "t.csv")
    (tmp_path / "t.xlsx").write_bytes(b"PK\x03\x04" + b"\0" * 100)
    assert "is a spreadsheet, which has to be saved as CSV" in message(tmp_path / "t.xlsx")


def test_a_long_quoted_value_is_no_damage(pictures: Pictures, tmp_path: Path) -> None:
    root = pictures.write(tmp_path)
    rows = lines(pictures)
    rows[0] += ",text"
    long = '"' + "a line\n" * 400_000 + '"'
    (root / "t.csv").write_text("\n".join([rows[0], *(f"{row},{long}" for row in rows[1:])]))
    assert labels(root / "t.csv", label_column="label") == list(pictures.labels)


# Damage is one line


def damaged(pictures: Pictures, folder: Path) -> dict[str, bytes]:
    table = pa.table({"path": list(pictures.names), "label": list(pictures.labels)})
    pq.write_table(table, folder / "t.parquet")
    rows = [{"path": n, "label": c} for n, c in zip(pictures.names, pictures.labels, strict=True)]
    return {
        "csv": "\n".join(lines(pictures)).encode(),
        "tsv": "\n".join(lines(pictures, "\t")).encode("utf-16"),
        "jsonl": "\n".join(map(json.dumps, rows)).encode(),
        "parquet": (folder / "t.parquet").read_bytes(),
    }


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_any_damage_of_a_table_is_one_line(kind: str, pictures: Pictures, tmp_path: Path) -> None:
    root = pictures.write(tmp_path)
    data = damaged(pictures, root)[kind]
    rng = np.random.default_rng(2)
    path = root / f"t.{kind}"
    refused = 0
    for trial in range(150):
        broken = bytearray(data)
        if trial % 3 == 0:
            broken = broken[: int(rng.integers(0, len(broken)))]
        for place in rng.integers(0, max(1, len(broken)), 1 + trial % 5):
            if broken:
                broken[place] = rng.integers(0, 256)
        path.write_bytes(bytes(broken))
        try:
            _ = load_test_data(path).test.ids
        except HeadstartError:
            refused += 1
    assert refused > 10


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("deep.jsonl", b'{"a":' * 100_000),
        ("list.jsonl", b"[1, 2]\n"),
        ("mixed.jsonl", b'{"path": "a.png"}\n{"path": 3}\n'),
        ("empty.jsonl", b"\n\n"),
        ("zeros.csv", b"\0" * 5000),
        ("ragged.csv", b"path,label\na.png,b,c\n"),
        ("quote.csv", b'path,label\n"a.png,b\n' * 50),
        ("header.csv", b"path" * 100_000 + b"\n1\n"),
        ("names.csv", b"a,a\n1,2\n"),
        ("no.parquet", b"PAR1"),
        ("lines.csv", b"\r\r\r"),
    ],
)
def test_tables_that_are_none(name: str, data: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    assert message(tmp_path / name)


def test_texts_of_parquet_that_are_not_utf8(tmp_path: Path) -> None:
    bad = pa.array([b"\xff\xfe.png", b"b.png"]).view(pa.string())
    pq.write_table(pa.table({"path": bad, "label": ["a", "b"]}), tmp_path / "t.parquet")
    assert "cannot be read as parquet" in message(tmp_path / "t.parquet")


@pytest.mark.parametrize("name", ["t.csv", "t.parquet", "t.jsonl", "t.npz"])
def test_a_pipe_called_like_a_table_is_not_opened(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    assert message(tmp_path / name)
    assert message(tmp_path)


def test_a_table_of_no_end_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "t.csv").open("wb") as file:
        file.truncate(30 * 10**9)
    assert message(tmp_path / "t.csv")


# Images elsewhere, and without their ending


def competition(pictures: Pictures, root: Path, suffix: str = ".png") -> list[str]:
    """Write ``train_images/ID.png``; return the ids."""
    (root / "train_images").mkdir()
    ids = [f"{1000 + i}" for i in range(12)]
    for name, data in zip(ids, pictures.data, strict=True):
        (root / "train_images" / f"{name}{suffix}").write_bytes(data)
    return ids


WAY = {"image_folder": "train_images", "image_suffix": ".png"}


@pytest.mark.parametrize("column", ["image_id", "id", "image", "Image", "id_code", "image_name"])
@pytest.mark.parametrize("kind", ["csv", "parquet", "integers", "frame"])
def test_ids_without_an_ending(column: str, kind: str, pictures: Pictures, tmp_path: Path) -> None:
    ids: list[Any] = competition(pictures, tmp_path)
    if kind == "integers":
        ids = [int(i) for i in ids]
    frame = pd.DataFrame({column: ids, "label": pictures.labels})
    source: Any = tmp_path / ("train.csv" if kind == "csv" else "train.parquet")
    frame.to_csv(source, index=False) if kind == "csv" else frame.to_parquet(source)
    way: dict[str, Any] = dict(WAY)
    if kind == "frame":
        source, way["image_folder"] = frame, tmp_path / "train_images"
    elif kind == "csv":
        text = message(source)
        assert f"image_column='{column}'" in text
        assert "image_suffix='.png' and image_folder='train_images'" in text
    assert labels(source, **way) == list(pictures.labels)
    assert labels(source, **{**way, "image_suffix": "png"}) == list(pictures.labels)
    dataset = load_data(source, **way)
    assert len(set(dataset.train.ids) | set(dataset.test.ids)) == 12
    assert len(load_items(source, **way)) == 12


def test_a_competition_folder_as_it_is_handed_out(pictures: Pictures, tmp_path: Path) -> None:
    ids = competition(pictures, tmp_path)
    (tmp_path / "test_images").mkdir()
    rows = [f"{i},{c}" for i, c in zip(ids, pictures.labels, strict=True)]
    (tmp_path / "train.csv").write_text("\n".join(["image_id,label", *rows]))
    (tmp_path / "test.csv").write_text("image_id\n9\n8\n")
    (tmp_path / "sample_submission.csv").write_text("image_id,label\n9,cat\n8,cat\n")
    assert "image_suffix='.png'" in message(tmp_path)
    dataset = load_data(tmp_path, **WAY)
    assert len(dataset.train) + len(dataset.test) == 12
    assert any("has no labels, so it is ignored" in note for note in dataset.notes)
    assert any("sample_submission.csv" in note for note in dataset.notes)


def test_hints_find_the_images(pictures: Pictures, tmp_path: Path) -> None:
    pictures.write(tmp_path / "pics")
    path = tmp_path / "t.csv"
    path.write_text("path,label\ncat/0.png,a\ncat/1.png,b\n")
    assert "image_folder='pics'" in message(path)
    assert len(load_test_data(path, image_folder="pics").test) == 2
    assert len(load_test_data(path, image_folder=tmp_path / "pics").test) == 2
    path.write_text("path,label\npics/cat/0.PNG,a\npics/cat/1.PNG,b\n")
    assert "the file is called 'pics/cat/0.png', so correct the names" in message(path)
    path.write_text("path,label\n0.png,a\nzzz.png,b\n")
    assert "image_folder='pics/cat'" in message(path)
    assert "there is no folder 'picz'" in message(path, image_folder="picz")
    assert "did you mean 'pics'" in message(path, image_folder="picz")


def test_a_file_in_another_case_is_named(pictures: Pictures, tmp_path: Path) -> None:
    pictures.write(tmp_path)
    path = tmp_path / "t.csv"
    path.write_text("path,label\ncat/0.png,a\ncat/1.PNG,b\nCAT/2.png,b\n")
    split = load_test_data(path).test
    with pytest.raises(HeadstartError, match=r"no such file, but there is '1.png'"):
        split.content(1)
    with pytest.raises(HeadstartError, match="no such file"):
        split.content(2)


@pytest.mark.parametrize("option", ["image_folder", "image_suffix", "encoding"])
def test_options_of_tables_mean_nothing_elsewhere(
    option: str, pictures: Pictures, tmp_path: Path
) -> None:
    assert f"{option} applies to tables" in message(
        (pictures.pixels(), list(pictures.labels)), **{option: "x"}
    )
    with pytest.raises(DataError, match=f"{option} applies to tables"):
        load_items(pictures.write(tmp_path), **{option: "x"})


# One-hot labels


def one_hot(pictures: Pictures, root: Path, **more: Any) -> Path:
    pictures.write(root)
    frame = pd.DataFrame({"path": pictures.names, "rust": [1, 0, 0] * 4, "scab": [0, 1, 0] * 4})
    frame["healthy"] = [0.0, 0.0, 1.0] * 4
    frame.assign(**more).to_csv(root / "t.csv", index=False)
    return root / "t.csv"


def test_one_hot_columns_are_labels(pictures: Pictures, tmp_path: Path) -> None:
    path = one_hot(pictures, tmp_path)
    assert labels(path) == ["rust", "scab", "healthy"] * 4
    assert labels(pd.read_csv(path).assign(path=[str(tmp_path / n) for n in pictures.names])) == [
        "rust", "scab", "healthy",
    ] * 4  # fmt: skip


def test_one_hot_columns_among_others_are_named(pictures: Pictures, tmp_path: Path) -> None:
    path = one_hot(pictures, tmp_path, age=range(12), sex=["m", "f"] * 6)
    text = message(path)
    assert "label_column='rust,scab,healthy'" in text
    assert labels(path, label_column="rust, scab,healthy") == ["rust", "scab", "healthy"] * 4
    assert "are not one-hot" in message(path, label_column="rust,scab", task="classification")
    assert load_data(path, label_column="rust,scab").task == "multi-label"
    assert "has no column 'rost'" in message(path, label_column="rost,scab")


def test_columns_that_are_not_one_hot(pictures: Pictures, tmp_path: Path) -> None:
    path = one_hot(pictures, tmp_path, healthy=1)
    assert "several columns that could hold the labels" in message(path, task="classification")
    assert load_data(path).task == "multi-label"
    assert len(load_items(path)) == 12
