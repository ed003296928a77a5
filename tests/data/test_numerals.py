"""Numbers as people write them: read in the one form of a whole column, or asked about."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart.core.errors import DataError
from headstart.data import load_data
from headstart.data.numerals import read_numerals

TEXTS = [f"text number {i} of the column" for i in range(40)]

FORMS: dict[str, tuple[list[Any], list[float]]] = {
    "plain": (["1000.5", "20"], [1000.5, 20]),
    "numbers": ([1.5, 2], [1.5, 2]),
    "commas between thousands": (["1,000.5", "20"], [1000.5, 20]),
    "commas between millions": (["1,000,000", "3"], [1e6, 3]),
    "commas beside points": (["1,250", "3.5"], [1250, 3.5]),
    "decimal commas": (["1,5", "20"], [1.5, 20]),
    "decimal commas by a zero": (["0,125", "1,000"], [0.125, 1]),
    "points between thousands": (["1.000,5", "20", "2.500"], [1000.5, 20, 2500]),
    "points between millions": (["12.345.678", "1.500"], [12345678, 1500]),
    "spaces": (["1 000,5", "3"], [1000.5, 3]),
    "no-break spaces": (["1\u00a0000", "2\u00a0000.5"], [1000, 2000.5]),
    "apostrophes": (["1'000.5", "3"], [1000.5, 3]),
    "minus": (["\u22121,5", "2"], [-1.5, 2]),
    "per cent": (["50%", "12.5 %"], [50, 12.5]),
    "per cent with commas": (["1,5%", "2%"], [1.5, 2]),
}


@pytest.mark.parametrize("form", list(FORMS))
def test_every_form_is_read(form: str) -> None:
    texts, numbers = FORMS[form]
    found = read_numerals([*texts, None], "column 'x'")
    assert list(found.values[:-1]) == numbers
    assert found.values[-1] is not None
    assert math.isnan(found.values[-1])
    assert bool(found.told) == (form not in ("plain", "numbers"))


@pytest.mark.parametrize(
    "texts",
    [["50%", 0.5], ["1,000.5", "1,5"], ["$5", "3"], ["1,00,000", "5"], ["1,25", "3.5"],
     ["%", "5%"], ["1.500,00", "1.5"], ["1 000,5", "3.5"], ["5 kg", "6 kg"]],
)  # fmt: skip
def test_no_form_of_all_is_none(texts: list[Any]) -> None:
    assert None in read_numerals(texts, "column 'x'").values


@pytest.mark.parametrize("texts", [["1,000", "20"], ["10,000", "12,500"], ["-1,250"]])
def test_a_comma_that_may_be_either_is_asked_about(texts: list[str]) -> None:
    with pytest.raises(DataError, match="between thousands, or before decimals"):
        read_numerals(texts, "column 'x'")


def write(folder: Path, values: list[str], split: list[str] | None = None) -> Path:
    parts = split or [""] * len(values)
    names = "text;price" + (";split" if split else "")
    rows = [
        f"{text};{value}" + (f";{part}" if split else "")
        for text, value, part in zip(TEXTS, values, parts, strict=False)
    ]
    (folder / "t.csv").write_text("\n".join([names, *rows]), encoding="utf-8")
    return folder / "t.csv"


@pytest.mark.parametrize("task", ["auto", "regression"])
def test_a_column_of_them_is_a_regression_and_says_so(task: Any, tmp_path: Path) -> None:
    path = write(tmp_path, [f"{1000 + 37 * i:,}.5" for i in range(40)])
    data = load_data(path, task=task)
    assert data.task == "regression"
    assert (data.train.y.min() >= 1000.5, data.train.y.max() > 2000) == (True, True)
    assert any("'1,000.5' is read as 1000.5" in note for note in data.notes)


def test_what_is_no_number_says_how_to_write_it(tmp_path: Path) -> None:
    path = write(tmp_path, [f"${i}" for i in range(40)])
    with pytest.raises(DataError, match=r"holds '\$0'.*expected numbers") as raised:
        load_data(path, label_column="price", task="regression")
    assert "such as 1000.5, without units" in str(raised.value)


@pytest.mark.parametrize("test", ["0.5", "{}.5%", "{}.500"])
def test_splits_that_are_written_in_different_forms_are_refused(test: str, tmp_path: Path) -> None:
    values = [f"{1 + i}.000,5" for i in range(30)] + [test.format(i) for i in range(10)]
    path = write(tmp_path, values, ["train"] * 30 + ["test"] * 10)
    with pytest.raises(DataError, match="in one form in one split"):
        load_data(path, task="regression")


def test_a_joined_column_of_them_is_refused_and_no_category(tmp_path: Path) -> None:
    from headstart.data.table_columns import fitted_values

    with pytest.raises(DataError, match=r"'1,000\.5', which is no plain number"):
        fitted_values({"income": ["1,000.5", "2,000", None]})
    with pytest.raises(DataError, match="'50%', which is no plain number"):
        fitted_values({"share": ["50%", "20%"]})
    assert fitted_values({"size": ["1,5 kg", "M"]})[0].categories == ("1,5 kg", "M")
    assert np.isclose(fitted_values({"age": ["1.5", "2.5"]})[0].mean, 2.0)
