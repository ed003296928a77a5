"""Tables as people write them that no other test has: each is read, or refused with its reason."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from headstart.core.errors import DataError
from headstart.data import load_data

TEXTS = [f"what is the number {i} of things" for i in range(12)]
LABELS = ["a", "b"] * 6


def lines(rows: Sequence[Any]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8", newline="")
    return path


def test_nested_fields_have_names_with_dots(tmp_path: Path) -> None:
    rows = [{"data": {"text": t}, "meta": {"label": x, "deep": {"site": i % 3}}}
            for i, (t, x) in enumerate(zip(TEXTS, LABELS, strict=True))]  # fmt: skip
    data = load_data(
        write(tmp_path, "n.jsonl", lines(rows)), label_column="meta.label",
        group_column="meta.deep.site",
    )  # fmt: skip
    assert data.train.classes == ("a", "b")
    assert data.train.content(0) in TEXTS
    assert data.train.groups is not None
    assert set(data.train.groups) <= {"0", "1", "2"}


def test_nested_fields_of_parquet(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    meta = [{"label": x} for x in LABELS]
    pq.write_table(pa.table({"text": TEXTS, "meta": meta}), tmp_path / "n.parquet")
    data = load_data(tmp_path / "n.parquet", label_column="meta.label")
    assert data.train.classes == ("a", "b")


def test_a_line_of_json_ends_with_a_line_feed_alone(tmp_path: Path) -> None:
    texts = [f"one {mark} two {i}" for i, mark in enumerate("\u2028\u2029\x85\x0b\x0c\x1c" * 2)]
    rows = [{"text": t, "label": x} for t, x in zip(texts, LABELS, strict=True)]
    data = load_data(write(tmp_path, "u.jsonl", lines(rows).replace("\n", "\r\n")))
    found = [split.content(i) for split in (data.train, data.test) for i in range(len(split))]
    assert sorted(found) == sorted(texts)


def test_values_of_several_kinds_are_named(tmp_path: Path) -> None:
    rows = [{"text": t, "label": i if i == 7 else "x"} for i, t in enumerate(TEXTS)]
    with pytest.raises(DataError, match=r"'label' of .*m.jsonl.* text in line 1.*number in line 8"):
        load_data(write(tmp_path, "m.jsonl", lines(rows)))


def test_a_table_without_a_line_of_names_is_refused(tmp_path: Path) -> None:
    rows = "".join(f"{t},{x}\n" for t, x in zip(TEXTS, LABELS, strict=True))
    with pytest.raises(DataError, match=r"first line of .*h.csv.*'a' is also a value .*text,label"):
        load_data(write(tmp_path, "h.csv", rows))
    load_data(write(tmp_path, "h.csv", "text,label\n" + rows))


def test_a_repeated_line_of_names_is_refused(tmp_path: Path) -> None:
    rows = "".join(f"{t},{x}\n" for t, x in zip(TEXTS, LABELS, strict=True))
    joined = write(tmp_path, "two.csv", f"text,label\n{rows}text,label\n{rows}")
    with pytest.raises(DataError, match=r"'text' is also a value .*row 12"):
        load_data(joined)


def test_a_column_called_text_holds_texts_however_often_they_recur(tmp_path: Path) -> None:
    rows = "".join(f"{t},{x}\n" for t, x in zip(["good", "bad", "so so"] * 4, LABELS, strict=True))
    data = load_data(write(tmp_path, "t.csv", "text,label\n" + rows))
    assert data.train.items.kind == "text"


def test_a_list_of_json_says_what_is_read(tmp_path: Path) -> None:
    rows = [{"text": t, "label": x} for t, x in zip(TEXTS, LABELS, strict=True)]
    path = write(tmp_path, "list.json", json.dumps(rows))
    with pytest.raises(DataError, match=r"list.json' is JSON.*one object a line.*\.jsonl"):
        load_data(path)
