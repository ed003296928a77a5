"""What labels mean is found from their values, told with the reason, or asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from headstart.core.errors import DataError
from headstart.core.strata import strata_of_values
from headstart.data import Dataset, load_data, load_items, load_test_data

N = 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty different images."""
    place = tmp_path_factory.mktemp("targets")
    rng = np.random.default_rng(0)
    for i in range(N):
        Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8)).save(place / f"{i}.png")
    return place


def table(folder: Path, name: str, **columns: Any) -> Path:
    path = folder / name
    rows = pa.table({"path": [f"{i}.png" for i in range(N)], **columns})
    if path.suffix == ".parquet":
        pq.write_table(rows, path)
    else:
        lines = [",".join(rows.schema.names)]
        lines += [",".join(f'"{v}"' for v in row.values()) for row in rows.to_pylist()]
        path.write_text("\n".join(lines))
    return path


def members(dataset: Dataset) -> dict[str, set[str]]:
    found = {}
    for split in dataset.splits.values():
        assert split.targets is not None
        for origin, row in zip(split.origins, split.targets, strict=True):
            found[origin] = {dataset.classes[j] for j in np.flatnonzero(row)}
    return found


SETS = [["cat"], ["dog", "cat"], [], ["bird"], ["dog"]] * 8


def test_a_column_of_lists(folder: Path) -> None:
    data = load_data(table(folder, "lists.parquet", tags=SETS))
    assert (data.task, data.classes) == ("multi-label", ("bird", "cat", "dog"))
    assert members(data)["1.png"] == {"cat", "dog"}
    assert members(data)["2.png"] == set()
    said = next(note for note in data.notes if note.startswith("Task: "))
    assert "because column 'tags' of lists.parquet holds lists; 3 labels, 1 per item" in said


@pytest.mark.parametrize("separator", ["|", ";", ", "])
def test_a_column_with_separators(folder: Path, separator: str) -> None:
    tags = [separator.join(own) for own in SETS]
    data = load_data(table(folder, "separated.csv", tags=tags), label_column="tags")
    assert data.task == "multi-label"
    assert members(data)["1.png"] == {"cat", "dog"}
    assert any("8 items have an empty label text" in note for note in data.notes)


@pytest.mark.parametrize("written", [repr, json.dumps, lambda own: str(np.array(own))])
def test_lists_that_were_written_as_text(folder: Path, written: Any) -> None:
    tags = [written(own).replace('"', "'") for own in SETS]
    data = load_data(table(folder, "written.csv", tags=tags), label_column="tags")
    assert members(data)["1.png"] == {"cat", "dog"}


def test_columns_of_0_and_1(folder: Path) -> None:
    bits = {name: [int(name in own) for own in SETS] for name in ("cat", "dog", "bird")}
    path = table(folder, "bits.csv", **bits)
    data = load_data(path)
    assert (data.task, data.classes) == ("multi-label", ("cat", "dog", "bird"))
    assert members(data)["1.png"] == {"cat", "dog"}
    two = load_data(path, label_column="cat,bird")
    assert two.classes == ("cat", "bird")


def test_one_hot_columns_are_classes_unless_several_labels_are_asked_for(folder: Path) -> None:
    hot = {name: [int(i % 2 == at) for i in range(N)] for at, name in enumerate(("a", "b"))}
    path = table(folder, "hot.csv", **hot)
    assert load_data(path).task == "classification"
    assert load_data(path, task="multi-label").task == "multi-label"


def test_files_in_several_folders(folder: Path, tmp_path: Path) -> None:
    for i in range(N):
        for name in ["even", "odd"][i % 2 : i % 2 + 1] + (["third"] if i % 3 == 0 else []):
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / f"{i}.png").write_bytes((folder / f"{i}.png").read_bytes())
    data = load_data(tmp_path)
    assert (data.task, data.classes) == ("multi-label", ("even", "odd", "third"))
    assert len(data.train) + len(data.test) == N
    assert members(data)["even/0.png"] == {"even", "third"}
    assert any("14 of 40 different files are in several class folders" in n for n in data.notes)
    assert load_data(tmp_path, task="classification").task == "classification"


def test_a_few_repeated_files_are_wrong_labels(folder: Path, tmp_path: Path) -> None:
    for i in range(N):
        for name in ("a", "b")[i % 2 : i % 2 + 1] + (("b",) if i == 0 else ()):
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / f"{i}.png").write_bytes((folder / f"{i}.png").read_bytes())
    data = load_data(tmp_path)
    assert data.task == "classification"
    assert any("one of the labels must be wrong" in note for note in data.notes)


def test_a_comma_in_the_name_of_a_class_is_no_separator(folder: Path) -> None:
    names = ["tench, Tinca tinca", "goldfish, Carassius auratus", "shark"]
    data = load_data(table(folder, "comma.csv", label=[names[i % 3] for i in range(N)]))
    assert data.task == "classification"
    assert set(data.classes) == set(names)


def test_a_separator_that_divides_nothing_is_told(folder: Path) -> None:
    names = ["red|blue", "green|black"]
    data = load_data(table(folder, "pipe.csv", label=[names[i % 2] for i in range(N)]))
    assert data.task == "classification"
    assert any("task='multi-label' splits them" in note for note in data.notes)


def test_numbers_with_fractions_are_a_regression(folder: Path) -> None:
    path = table(folder, "age.csv", age=[i + 0.5 for i in range(N)])
    data = load_data(path)
    assert (data.task, data.classes) == ("regression", ("age",))
    assert data.train.y.shape == (32, 1)
    said = next(note for note in data.notes if note.startswith("Task: "))
    assert said.endswith("holds numbers with fractions; 'age' from 0.500 to 39.5.")
    with pytest.raises(DataError, match="fractional numbers") as raised:
        load_data(path, task="classification", label_column="age")
    assert "task='regression'" in str(raised.value.hint)


def test_several_targets(folder: Path) -> None:
    path = table(folder, "two.csv", x=[i / 4 for i in range(N)], y=[-i for i in range(N)])
    data = load_data(path, label_column="x,y")
    assert (data.task, data.classes, data.train.y.shape) == ("regression", ("x", "y"), (32, 2))
    other = load_test_data(path, label_column="y,x").test.aligned_to(("x", "y"))
    np.testing.assert_allclose(other.y[:, 0], np.arange(N) / 4)


def test_whole_numbers_that_may_be_either_are_asked_about(folder: Path) -> None:
    path = table(folder, "whole.csv", age=list(range(N)))
    with pytest.raises(DataError, match="40 different whole numbers in 40 items: classes, or qua"):
        load_data(path)
    assert load_data(path, task="regression").task == "regression"


def test_missing_and_wrong_numbers_are_named(folder: Path) -> None:
    path = table(folder, "missing.csv", age=["0.5", ""] * 20)
    with pytest.raises(DataError, match="20 items of 40"):
        load_data(path, label_column="age")
    path = table(folder, "wrong.csv", age=["0.5", "old"] * 20)
    with pytest.raises(DataError, match=r"'old'.*expected numbers"):
        load_data(path, label_column="age", task="regression")


def test_arrays(folder: Path) -> None:
    x = np.random.default_rng(0).integers(0, 255, (30, 8, 8, 3), np.uint8)
    rng = np.random.default_rng(1)
    several = (rng.random((30, 3)) < 0.5).astype(int)
    several[0] = [1, 1, 0]
    assert load_data((x, several)).task == "multi-label"
    assert load_data((x, rng.random(30))).task == "regression"
    assert load_data((x, rng.random((30, 2)))).classes == ("0", "1")
    assert load_data((x, np.eye(3, dtype=int)[rng.integers(0, 3, 30)])).task == "classification"
    named = load_data((x, [["a"], ["b", "a"], []] * 10))
    assert (named.task, named.classes) == ("multi-label", ("a", "b"))
    ages = load_data((x, np.arange(30) % 3), task="regression")
    assert (ages.task, ages.classes) == ("regression", ("target",))


def test_a_test_split_of_whole_numbers_is_still_a_regression() -> None:
    x = np.random.default_rng(0).integers(0, 255, (30, 8, 8, 3), np.uint8)
    y = np.arange(20) / 4 + 0.1
    data = load_data({"train": (x[:20], y), "test": (x[20:], np.arange(10.0))})
    assert {split.task for split in data.splits.values()} == {"regression"}


def test_folders_called_after_numbers(folder: Path, tmp_path: Path) -> None:
    for i in range(N):
        place = tmp_path / str(10 * (i % 4))
        place.mkdir(exist_ok=True)
        (place / f"{i}.png").write_bytes((folder / f"{i}.png").read_bytes())
    data = load_data(tmp_path, task="regression")
    assert set(data.train.y[:, 0]) == {0.0, 10.0, 20.0, 30.0}


def test_unlabelled_items_do_not_mind_what_columns_hold(folder: Path) -> None:
    path = table(folder, "other.csv", age=list(range(N)))
    assert len(load_items(path)) == N


def test_unknown_labels_are_refused_and_missing_ones_are_not(folder: Path) -> None:
    path = table(folder, "lists2.parquet", tags=SETS)
    split = load_test_data(path).test
    assert split.aligned_to(("bird", "cat", "dog", "fish")).y[:, 3].sum() == 0
    with pytest.raises(DataError, match=r"knows 2 labels .*holds 'bird'"):
        split.aligned_to(("cat", "dog"))


def test_hub_lists_with_declared_names(folder: Path) -> None:
    datasets = pytest.importorskip("datasets")
    names = ["red", "green", "blue"]
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "labels": datasets.Sequence(datasets.ClassLabel(names=names)),
        }
    )
    rows = {
        "image": [str(folder / f"{i}.png") for i in range(N)],
        "labels": [[i % 3, (i + 1) % 3] if i % 2 else [i % 3] for i in range(N)],
    }
    data = load_data(datasets.Dataset.from_dict(rows, features))
    assert (data.task, data.classes) == ("multi-label", tuple(names))
    assert int(data.train.y.sum() + data.test.y.sum()) == 60


def test_decimal_commas_are_asked_about_and_read(folder: Path) -> None:
    path = table(folder, "decimal.csv", age=[f"{20 + i % 9},{i % 10}" for i in range(N)])
    with pytest.raises(DataError, match="numbers with a decimal comma, or several labels"):
        load_data(path, label_column="age")
    data = load_data(path, label_column="age", task="regression")
    assert data.train.y.min() == 20.0
    assert load_data(path, label_column="age", task="multi-label").task == "multi-label"


def test_words_that_come_in_many_combinations_are_told(folder: Path) -> None:
    words = ["haze", "clear", "road", "water"]
    tags = [
        " ".join(sorted({words[i % 4], words[i // 4 % 4], words[i // 16 % 4]})) for i in range(N)
    ]
    path = table(folder, "words.csv", tags=tags)
    assert any("splits them at spaces" in note for note in load_data(path).notes)
    assert load_data(path, task="multi-label").classes == tuple(sorted(words))
    breeds = ["golden retriever", "flat-coated retriever", "beagle", "shih tzu"]
    data = load_data(table(folder, "breeds.csv", breed=[breeds[i % 4] for i in range(N)]))
    assert not any("divides" in note for note in data.notes)


def test_codes_of_digits_and_underscores_are_classes_and_no_quantities(folder: Path) -> None:
    codes = [f"{i // 20}_{i % 10}" for i in range(N)]
    data = load_data(table(folder, "codes.csv", label=codes))
    assert (data.task, len(data.classes)) == ("classification", 20)
    with pytest.raises(DataError, match=r"holds '0_0', '0_1', '0_2'.*expected numbers"):
        load_data(table(folder, "codes.csv", label=codes), task="regression")


@pytest.mark.parametrize("parts", ["given", "set aside"])
def test_what_divides_the_training_items_knows_no_others(folder: Path, parts: str) -> None:
    """Tenths of the values, and rarest labels, are those of the training items alone."""
    values = [i + 0.5 for i in range(N)]
    split = {"split": ["train" if i % 4 else "test" for i in range(N)]} if parts == "given" else {}
    plain = load_data(table(folder, "plain.csv", y=values, **split))
    held = {int(origin.split(".")[0]) for origin in plain.test.origins}
    other = [1e6 + v if i in held else v for i, v in enumerate(values)]
    poisoned = load_data(table(folder, "poisoned.csv", y=other, **split))
    if poisoned.train.ids == plain.train.ids:  # values of which a part is set aside decide which
        assert (poisoned.train.labels == plain.train.labels).all()
    for data in (plain, poisoned):
        assert data.train.targets is not None
        expected = strata_of_values(data.train.targets)
        assert (data.train.labels == expected).all()


BITS = [[i % 2, int(i % 3 == 0), int(i % 5 > 1)] for i in range(N)]
NAMED = [[name for name, bit in zip("abc", row, strict=True) if bit] for row in BITS]


@pytest.mark.parametrize(
    ("ending", "values"),
    [
        ("parquet", BITS),
        ("parquet", [[bool(bit) for bit in row] for row in BITS]),
        ("parquet", [[float(bit) for bit in row] for row in BITS]),
        ("parquet", [str(row) for row in BITS]),
        ("parquet", [str(row).replace(",", "") for row in BITS]),  # as NumPy writes it
        ("csv", [str(tuple(row)) for row in BITS]),
    ],
)
def test_lists_of_zeros_and_ones_are_one_for_each_label(
    ending: str, values: list[Any], folder: Path
) -> None:
    data = load_data(table(folder, f"bits.{ending}", label=values), label_column="label")
    assert (data.task, data.classes) == ("multi-label", ("0", "1", "2"))
    total = sum(float(split.y.sum()) for split in data.splits.values())
    assert total == sum(map(sum, BITS))
    assert any("lists of 0 and 1, one for each label" in note for note in data.notes)


def test_one_hot_lists_are_classes(folder: Path) -> None:
    hot = [[int(i % 3 == k) for k in range(3)] for i in range(N)]
    data = load_data(table(folder, "hot.parquet", label=hot))
    assert (data.task, data.classes) == ("classification", ("0", "1", "2"))
    assert any("one-hot lists" in note for note in data.notes)
    found = load_data(table(folder, "hot.parquet", label=hot), task="multi-label")
    assert (found.task, found.classes) == ("multi-label", ("0", "1", "2"))
    with pytest.raises(DataError, match="not one-hot, expected one class an item"):
        load_data(table(folder, "h.parquet", label=BITS), task="classification")


@pytest.mark.parametrize(
    "write",
    [
        lambda own: "{" + ", ".join(map(repr, own)) + "}",  # of none: {}
        lambda own: str(tuple(own)),
        lambda own: json.dumps({name: int(name in own) for name in "abc"}),
        lambda own: str({name: name in own for name in "abc"}),
    ],
)
def test_sets_tuples_and_memberships_that_were_written_as_text(write: Any, folder: Path) -> None:
    path = table(folder, "sets.parquet", tags=[write(own) for own in NAMED])
    data = load_data(path)
    assert (data.task, data.classes) == ("multi-label", ("a", "b", "c"))
    assert sum(float(s.y.sum()) for s in data.splits.values()) == sum(map(len, NAMED))


def test_names_in_brackets_are_classes(folder: Path) -> None:
    data = load_data(table(folder, "brackets.csv", label=[f"({'xy'[i % 2]})" for i in range(N)]))
    assert (data.task, data.classes) == ("classification", ("(x)", "(y)"))


def test_a_comma_between_names_that_are_also_classes_is_told(folder: Path) -> None:
    names = ["red,blue", "blue,green", "red", "blue"]
    data = load_data(table(folder, "commas.csv", label=[names[i % 4] for i in range(N)]),
                     task="auto")  # fmt: skip
    told = any("task='multi-label' splits them" in note for note in data.notes)
    assert told or data.task == "multi-label"
    towns = ["Paris, France", "Lyon, France", "Rome"]
    data = load_data(table(folder, "towns.csv", label=[towns[i % 3] for i in range(N)]))
    assert (data.task, len(data.classes)) == ("classification", 3)
    assert not any("divides" in note for note in data.notes)


def test_columns_of_words_say_what_is_expected(folder: Path) -> None:
    path = table(folder, "words.csv", red=["yes", "no"] * (N // 2), blue=["no", "yes"] * (N // 2))
    with pytest.raises(DataError, match="holds 'yes', 'no', expected 0 and 1, or numbers"):
        load_data(path, label_column="red,blue")


def test_folders_of_names_for_a_regression_ask_for_no_column(folder: Path, tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(3):
            place = tmp_path / name / f"{i}.png"
            place.write_bytes((folder / f"{i}.png").read_bytes())
    with pytest.raises(DataError, match="holds 'cat', 'dog', expected numbers") as raised:
        load_data(tmp_path, task="regression")
    assert "name each folder after its number" in str(raised.value)
    assert "label_column" not in str(raised.value)


def test_a_task_that_nobody_gave_is_not_said_to_be_given(folder: Path) -> None:
    values = [i + 0.5 for i in range(N // 2)] + [float(i) for i in range(N // 2)]
    parts = ["train"] * (N // 2) + ["test"] * (N // 2)
    data = load_data(table(folder, "parts.parquet", y=values, split=parts), label_column="y")
    note = next(note for note in data.notes if note.startswith("Task:"))
    assert note.startswith("Task: regression, because column 'y'")
    given = load_data(table(folder, "g.parquet", y=values), task="regression", label_column="y")
    assert any(note.startswith("Task: regression; 'y'") for note in given.notes)
