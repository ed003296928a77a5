"""Names of classes: the same name is one class, others stay apart, and odd ones are said."""

from __future__ import annotations

import unicodedata
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from headstart.core.errors import DataError
from headstart.data import load_data, load_test_data
from headstart.data.labels import class_names, number_of, sorted_classes
from tests.data.conftest import Pictures

COMPOSED = "café ü ñ Å ệ が"
DECOMPOSED = unicodedata.normalize("NFD", COMPOSED)


def classes_of(values: Any) -> list[str | None]:
    return class_names(values, "the labels")


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (["12345678901234567890.0", "12345678901234567891.0"],
         ["12345678901234567890", "12345678901234567891"]),
        (["1", "1.0", "01"], ["1", "1", "01"]),
        (["1", "01", "001"], ["1", "01", "001"]),
        (["0012.0", "12."], ["0012", "12"]),
        (["-1.0", "0.0"], ["-1", "0"]),
        ([12345678901234567890, 12345678901234567891],
         ["12345678901234567890", "12345678901234567891"]),
        ([np.int64(3), np.float32(4), np.bool_(True)], ["3", "4", "True"]),
        ([Decimal("3"), Decimal("12345678901234567891")], ["3", "12345678901234567891"]),
        (["3.0", "cat"], ["3.0", "cat"]),
        (["1e3", "2"], ["1e3", "2"]),
        ([" cat", "cat\t", "cat\xa0"], ["cat"] * 3),
        ([None, float("nan"), np.nan, pd.NA, pd.NaT, "", "  "], [None] * 7),
        ([True, False, 1], ["True", "False", "1"]),
        ([DECOMPOSED, COMPOSED], [DECOMPOSED, COMPOSED]),
    ],
)  # fmt: skip
def test_values_become_names(values: Any, names: list[str | None]) -> None:
    assert classes_of(values) == names


@pytest.mark.parametrize(
    "values",
    [
        [0.5], ["0.5", "1.0"], [float("inf")], ["inf", "1.0"], [Decimal("0.1")], [1 + 2j], [[1]],
        [12345678901234567890.0, 12345678901234567891.0],
    ],
)  # fmt: skip
def test_values_that_are_no_classes_are_refused(values: Any) -> None:
    with pytest.raises(DataError):
        classes_of(values)


def fill(pictures: Pictures, root: Path, folders: list[str]) -> Path:
    for at, folder in enumerate(folders):
        (root / folder).mkdir(parents=True)
        for i in range(3):
            data = pictures.data[(3 * at + i) % 12]
            (root / folder / f"{i}.png").write_bytes(data + bytes([at]))
    return root


def test_both_forms_of_unicode_are_one_class(pictures: Pictures, tmp_path: Path) -> None:
    folders = [f"train/{COMPOSED}", "train/b", f"test/{DECOMPOSED}", "test/b"]
    dataset = load_data(fill(pictures, tmp_path, folders))
    assert dataset.classes == ("b", COMPOSED)
    assert sorted(dataset.test.labels.tolist()) == [0, 0, 0, 1, 1, 1]
    assert any("two Unicode forms" in note for note in dataset.notes)
    aligned = dataset.test.aligned_to((DECOMPOSED, "b"))
    assert aligned.labels.tolist().count(0) == 3
    x = pictures.pixels()
    dataset = load_data({"train": (x, [COMPOSED, "b"] * 6), "test": (x, [DECOMPOSED, "b"] * 6)})
    assert dataset.classes == ("b", COMPOSED)
    assert load_data((x, [0, 1] * 6)).notes[-1].startswith("The source has no test split")


@pytest.mark.parametrize(
    "names",
    [("Cat", "cat"), ("no mask", "no_mask"), ("a  b", "a b"), ("1", "01"), ("cat\u200b", "cat")],
)
def test_names_that_look_alike_are_kept_apart_and_said(
    names: tuple[str, str], pictures: Pictures
) -> None:
    dataset = load_data((pictures.pixels(), [*names, "dog"] * 4))
    assert len(dataset.classes) == 3
    assert any("kept separate" in note and repr(names[0]) in note for note in dataset.notes)
    whole = load_test_data((pictures.pixels(), [names[0], "dog"] * 6)).test
    with pytest.raises(DataError, match="differ only in their spelling"):
        whole.aligned_to((names[1], "dog"))


def test_contradictions_are_found_across_splits(pictures: Pictures) -> None:
    x = pictures.pixels()
    data = {"train": (x[:8], list("abababab")), "test": (x[6:], list("aabbbb"))}
    assert load_data(data).contradictions() == (("train item 7", "test item 1"),)


def test_arrow_columns_of_every_kind_of_label(pictures: Pictures) -> None:
    kinds = {
        "int8": pa.array([1, 2] * 6, pa.int8()),
        "uint64": pa.array([2**64 - 1, 2**64 - 2] * 6, pa.uint64()),
        "decimal": pa.array([Decimal(1), Decimal(2)] * 6, pa.decimal128(20, 0)),
        "bool": pa.array([True, False] * 6),
        "dictionary": pa.array(["a", "b"] * 6).dictionary_encode(),
        "large text": pa.array(["a", "b"] * 6, pa.large_string()),
        "text view": pa.array(["a", "b"] * 6, pa.string_view()),
        "float": pa.array([1.0, 2.0] * 6),
    }
    for name, labels in kinds.items():
        table = pa.table({"image": list(pictures.data), "label": labels})
        assert len(load_data(table, label_column="label").classes) == 2, name


def test_classes_keep_one_order_whatever_python_hashes() -> None:
    names = ["10", "9", "nan", "1"]
    orders = {sorted_classes(dict.fromkeys(names[i:] + names[:i]).keys()) for i in range(4)}  # type: ignore[arg-type]
    assert orders == {("1", "10", "9", "nan")}
    assert sorted_classes({"10", "9", "-1.5"}) == ("-1.5", "9", "10")
    assert sorted_classes({"1_2", "1_10", "13"}) == ("13", "1_10", "1_2")


@pytest.mark.parametrize("value", ["1_2", "1_000.5", "2024_01", "_1", "one", None, [1]])
def test_codes_with_underscores_are_no_numbers(value: Any) -> None:
    assert number_of(value) is None


@pytest.mark.parametrize(("value", "number"), [("12", 12.0), (" -1e3 ", -1000.0), (np.int8(3), 3)])
def test_numbers_are_numbers(value: Any, number: float) -> None:
    assert number_of(value) == number
