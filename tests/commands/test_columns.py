"""Columns of a table beside its items: they join the features, and travel with the run."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_digits
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import headstart
from headstart.core.errors import ConfigError, DataError
from headstart.core.progress import SilentReporter
from headstart.data import load_data
from headstart.data.table_columns import encoded_columns, fitted_columns
from headstart.sklearn import FeatureExtractor

QUIET = SilentReporter()
GLYPHS = "headstart/glyphs"
N = 150


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A target that follows from the ink of a digit, an age, and the site."""
    folder = tmp_path_factory.mktemp("beside")
    rng = np.random.default_rng(0)
    with (folder / "train.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "target", "age", "site", "note"])
        for i in range(N):
            tile = np.rint(load_digits().images[i] * rng.uniform(3, 15.9)).astype(np.uint8)
            Image.fromarray(tile).save(folder / f"{i}.png")
            age, site = rng.integers(20, 80), rng.choice(["north", "south", "west"])
            shift = {"north": 0.0, "south": 2.0, "west": -1.0}[site]
            target = tile.mean() / 100 + age / 20 + shift + 0.01
            shown = "" if i == 3 else age
            rows.writerow([f"{i}.png", target, shown, site, f"item number {i}"])
    return folder


@pytest.fixture(scope="module")
def run(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("runs") / "run"
    return headstart.fit(
        place / "train.csv", GLYPHS, layer="stem", columns="age,site", label_column="target",
        out=out, cache=place / "cache", reporter=QUIET,
    )  # fmt: skip


def test_columns_tell_what_the_features_cannot(run: Any, place: Path) -> None:
    plain = headstart.fit(
        place / "train.csv", GLYPHS, layer="stem", label_column="target", write=False,
        cache=place / "cache", reporter=QUIET,
    )  # fmt: skip
    assert run.score.score.value > 0.95 > 0.5 > plain.score.score.value
    assert "columns joined to the features: 'age' (a number), 'site' (3 categories)" in run.notes
    alone = next(each for each in run.baselines if each.name == "columns alone")
    assert plain.score.score.value < alone.figures[0].score.value < run.score.score.value


def test_they_travel_with_the_run(run: Any, place: Path) -> None:
    said = json.loads((run.folder / "run.json").read_text())["columns"]
    assert [each["name"] for each in said] == ["age", "site"]
    assert said[1]["categories"] == ["north", "south", "west"]
    again = headstart.evaluate(
        place / "train.csv", run.folder, cache=place / "cache", reporter=QUIET
    )
    assert again.r2.value == pytest.approx(run.evaluation.r2.value)
    found = headstart.predict(
        place / "train.csv", run.folder, cache=place / "cache", reporter=QUIET
    )
    truth = pd.read_csv(place / "train.csv").target.to_numpy()
    known = np.arange(N) != 3  # the age of one is missing
    assert np.abs(found.values[known, 0] - truth[known]).mean() < 0.5


def test_items_without_the_columns_are_refused(run: Any, place: Path) -> None:
    with pytest.raises(DataError, match="no columns besides items and labels"):
        headstart.predict(place / "1.png", run.folder, cache=place / "cache", reporter=QUIET)
    other = pd.read_csv(place / "train.csv").drop(columns="site")
    other.to_csv(place / "other.csv", index=False)
    with pytest.raises(DataError, match="no column 'site'"):
        headstart.predict(place / "other.csv", run.folder, cache=place / "cache", reporter=QUIET)


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ("agge", "no column 'agge'"),
        ("note", "holds 120 different texts"),
    ],
)
def test_columns_that_cannot_join(columns: str, told: str, place: Path) -> None:
    with pytest.raises(DataError, match=told):
        headstart.fit(
            place / "train.csv", GLYPHS, columns=columns, label_column="target", write=False,
            cache=place / "cache", reporter=QUIET, layer="stem",
        )  # fmt: skip


def test_names_are_checked(place: Path) -> None:
    with pytest.raises(ConfigError, match="names a column twice"):
        headstart.fit(
            place / "train.csv", GLYPHS, columns="age,age", label_column="target", write=False,
            cache=place / "cache", reporter=QUIET, layer="stem",
        )  # fmt: skip


def test_encodings_are_scikit_learns(place: Path) -> None:
    train = load_data(place / "train.csv", label_column="target").train
    encodings, _ = fitted_columns(train, ["age", "site"])
    table = pd.read_csv(place / "train.csv").iloc[train.rows]
    numbers = StandardScaler().fit(table[["age"]].dropna())
    expected = np.concatenate(
        [
            np.nan_to_num(numbers.transform(table[["age"]])),
            OneHotEncoder(sparse_output=False).fit_transform(table[["site"]]),
        ],
        axis=1,
    )
    np.testing.assert_allclose(encoded_columns(train, encodings), expected)


def test_estimators_join_them_with_scikit_learns_own_transformer(place: Path) -> None:
    table = pd.read_csv(place / "train.csv").fillna(50)
    table["path"] = [str(place / name) for name in table.path]
    joined = make_column_transformer(
        (FeatureExtractor(GLYPHS, layer="stem", image_column="path"), ["path"]),
        (StandardScaler(), ["age"]),
        (OneHotEncoder(), ["site"]),
    )
    model = make_pipeline(joined, StandardScaler(), Ridge(1.0)).fit(table[:100], table.target[:100])
    assert model.score(table[100:], table.target[100:]) > 0.9


def test_codes_with_underscores_are_categories(place: Path) -> None:
    rows = (place / "train.csv").read_text().splitlines()
    coded = [rows[0] + ",code", *(f"{row},1_{i % 3}" for i, row in enumerate(rows[1:]))]
    (place / "coded.csv").write_text("\n".join(coded))
    data = load_data(place / "coded.csv", label_column="target")
    (found,), _ = fitted_columns(data.train, ("code",))
    assert found.categories == ("1_0", "1_1", "1_2")
