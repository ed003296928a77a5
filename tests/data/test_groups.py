"""Items that belong together: columns and names that say so, splits that keep them whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from headstart.core.errors import HeadstartError
from headstart.data import Split, load_data, load_test_data
from headstart.data.group_hints import group_hints
from headstart.data.labels import cell_text
from headstart.data.table_columns import encoded_values, fitted_values

PATIENTS, SLICES = 40, 5


def message(source: Any, **options: Any) -> str:
    with pytest.raises(HeadstartError) as caught:
        load_data(source, **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five slices of each of forty patients, in two classes: ``sick/p07_slice3.png``."""
    root = tmp_path_factory.mktemp("slices")
    rng = np.random.default_rng(0)
    for patient in range(PATIENTS):
        kind = root / ("sick" if patient % 2 else "well")
        kind.mkdir(exist_ok=True)
        for number in range(SLICES):
            pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(kind / f"p{patient:02}_slice{number}.png")
    return root


def groups_of(split: Split) -> set[str]:
    assert split.groups is not None
    return set(split.groups.tolist())


def table(folder: Path) -> pd.DataFrame:
    paths = sorted(folder.rglob("*.png"))
    return pd.DataFrame(
        {
            "path": [str(path) for path in paths],
            "label": [path.parent.name for path in paths],
            "patient": [path.stem.split("_")[0] for path in paths],
        }
    )


def sources(folder: Path, root: Path) -> dict[str, Any]:
    import datasets

    frame = table(folder)
    frame.to_csv(root / "slices.csv", index=False)
    pq.write_table(pa.Table.from_pandas(frame), root / "slices.parquet")
    frame.to_json(root / "slices.jsonl", orient="records", lines=True)
    hub = datasets.Dataset.from_pandas(frame).cast_column("path", datasets.Image())
    return {
        "csv": root / "slices.csv",
        "parquet": root / "slices.parquet",
        "jsonl": root / "slices.jsonl",
        "frame": frame,
        "arrow": pa.Table.from_pandas(frame),
        "hub": hub,
    }


@pytest.mark.parametrize("kind", ["csv", "parquet", "jsonl", "frame", "arrow", "hub"])
def test_a_column_keeps_its_groups_whole(folder: Path, tmp_path: Path, kind: str) -> None:
    data = load_data(sources(folder, tmp_path)[kind], group_column="patient")
    train, test = data.train.groups, data.test.groups
    assert train is not None
    assert test is not None
    assert set(train).isdisjoint(test)
    assert len(set(train) | set(test)) == PATIENTS
    assert len(test) == PATIENTS * SLICES // 5
    assert any("8 of 40 groups whole" in note for note in data.notes)
    taken = data.train.take([3, 1])
    assert taken.groups is not None
    assert taken.groups.tolist() == [train[3], train[1]]
    without = load_data(sources(folder, tmp_path)[kind], label_column="label")
    assert without.train.groups is None


def test_names_keep_their_groups_whole(folder: Path) -> None:
    data = load_data(folder, group_pattern=r"(p\d+)_")
    assert data.train.groups is not None
    assert data.test.groups is not None
    assert set(data.train.groups).isdisjoint(data.test.groups)
    assert set(data.train.groups) | set(data.test.groups) == {f"p{i:02}" for i in range(PATIENTS)}
    whole = load_data(folder, group_pattern=r"p\d+")  # no brackets: all of it
    assert whole.test.origins == data.test.origins


def test_a_group_in_two_classes_is_one(tmp_path: Path) -> None:
    rows = []
    rng = np.random.default_rng(1)
    for number in range(60):
        path = tmp_path / f"{number}.png"
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
        rows.append((str(path), "ab"[number % 2], float(number // 6)))
    data = load_data(pd.DataFrame(rows, columns=["path", "label", "site"]), group_column="site")
    train, test = groups_of(data.train), groups_of(data.test)
    assert train.isdisjoint(test)
    assert train | test == set(map(str, range(10)))


def test_a_test_split_of_its_own_is_told_of_groups_that_it_shares(
    folder: Path, tmp_path: Path
) -> None:
    frame = table(folder)
    frame["split"] = ["test" if number % 5 == 0 else "train" for number in range(len(frame))]
    data = load_data(frame, group_column="patient")
    told = [note for note in data.notes if "others of their group" in note]
    assert told
    assert told[0].startswith("40 test items of 40 have others of their group")
    only = load_test_data(frame, group_column="patient")
    assert only.test.groups is not None


def test_what_cannot_be_a_group_is_refused(folder: Path, tmp_path: Path) -> None:
    frame = table(folder)
    assert "no column 'patiant'" in message(frame, group_column="patiant")
    assert "did you mean 'patient'" in message(frame, group_column="patiant")
    holes = frame.assign(patient=[None, " ", "nan", *frame["patient"][3:]])
    text = message(holes, group_column="patient")
    assert "empty in 3 rows (row 0, 1, 2" in text
    assert "one group" in message(frame.assign(patient="all"), group_column="patient")
    assert "is not a valid regular expression" in message(folder, group_pattern="(p")
    assert "is not found in 200 names of 200" in message(folder, group_pattern="q[0-9]")
    assert "names no group in" in message(folder, group_pattern="p[0-9]+(x?)")
    assert "give one of them" in message(frame, group_column="patient", group_pattern="p")
    assert "the data has no columns" in message(folder, group_column="patient")


def test_the_label_is_found_beside_a_group_column(folder: Path) -> None:
    frame = table(folder).rename(columns={"label": "finding"})
    assert "several columns" in message(frame)
    data = load_data(frame, group_column="patient")
    assert data.classes == ("sick", "well")


# -- groups that nobody named ----------------------------------------------------------------------


def test_names_and_columns_hint_at_groups(folder: Path) -> None:
    data = load_data(folder)
    (hint,) = group_hints(data.train, data.test)
    assert hint.option == "group_pattern"
    again = load_data(folder, group_pattern=hint.value)
    assert groups_of(again.train).isdisjoint(groups_of(again.test))
    frame = load_data(table(folder), label_column="label")
    first = group_hints(frame.train, frame.test)[0]
    assert (first.option, first.value) == ("group_column", "patient")
    assert first.torn > 0.9 * len(frame.test)
    named = load_data(folder, group_pattern=r"(p\d+)_")
    assert group_hints(named.train, named.test) == ()


@pytest.mark.parametrize(
    "name",
    [
        "{cls}.{i}.jpg", "{i:06}.png", "{cls}_{i}.png", "IMG_{i:04}.jpg", "{i}_{h}.jpg", "{h}.png",
        "img ({i}).png", "{cls} {i}.png",
    ],
)  # fmt: skip
def test_usual_names_hint_at_nothing(tmp_path: Path, name: str) -> None:
    rng = np.random.default_rng(2)
    for i in range(60):
        kind = tmp_path / "cd"[i % 2]
        kind.mkdir(exist_ok=True)
        called = name.format(cls=kind.name, i=i, h=rng.bytes(6).hex())
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(kind / called)
    data = load_data(tmp_path)
    assert group_hints(data.train, data.test) == ()


@pytest.mark.parametrize(
    ("cells", "name"),
    [
        ([3, 3.0, "3", " 3 "], "3"),
        (["caf\u00e9", "cafe\u0301"], "caf\u00e9"),
        ([None, "", " ", "NaN", "n/a"], None),
        ([True, "True"], "True"),
        ([0.5, "0.5"], "0.5"),
    ],
)
def test_a_cell_is_one_name_however_it_is_written(cells: list[Any], name: str | None) -> None:
    assert {cell_text(cell) for cell in cells} == {name}
    if name is not None:  # as a category, beside another
        values = {"site": [*cells, "other"]}
        encodings = fitted_values(values)
        assert encodings[0].categories == tuple(sorted([name, "other"]))
        np.testing.assert_array_equal(encoded_values(values, encodings).sum(axis=1), 1)
