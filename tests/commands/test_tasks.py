"""Several labels an item and numbers, from data to reports, through Python and as a user."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

import headstart
from headstart.commands.run_place import KNOWN
from headstart.commands.saved_run import open_run
from headstart.core.errors import ConfigError, DataError
from headstart.core.progress import SilentReporter
from headstart.evaluation.multi_label import MultiLabelEvaluation
from headstart.evaluation.regression import RegressionEvaluation

QUIET = SilentReporter()
GLYPHS = "headstart/glyphs"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``ink.csv``: the share of ink of a digit. ``pages.csv``: which digits a page holds."""
    place = tmp_path_factory.mktemp("tables")
    digits, rng = load_digits(), np.random.default_rng(0)
    tiles = np.rint(digits.images / 16 * 255).astype(np.uint8)
    with (place / "ink.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "ink", "weight"])
        for i in range(150):
            tile = np.rint(tiles[i] * rng.uniform(0.2, 1)).astype(np.uint8)
            Image.fromarray(tile).save(place / f"digit{i}.png")
            ink = tile.mean() / 255
            rows.writerow([f"digit{i}.png", ink, 2 * ink + 1])
    with (place / "pages.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "tags"])
        few = np.flatnonzero(digits.target < 4)
        for i in range(150):
            chosen = rng.choice(few, rng.integers(1, 3), replace=False)
            page = np.zeros((8, 24), np.uint8)
            for at, one in enumerate(chosen):
                page[:, 12 * at : 12 * at + 8] = tiles[one]
            Image.fromarray(page).save(place / f"page{i}.png")
            tags = sorted({str(digits.target[one]) for one in chosen})
            rows.writerow([f"page{i}.png", "|".join(tags)])
    return place


@pytest.fixture(scope="module")
def pages(tables: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("runs") / "pages"
    return headstart.fit(tables / "pages.csv", GLYPHS, out=out, cache=cache, reporter=QUIET)


@pytest.fixture(scope="module")
def ink(tables: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("runs") / "ink"
    return headstart.fit(
        tables / "ink.csv",
        GLYPHS,
        out=out,
        cache=cache,
        label_column="ink,weight",
        reporter=QUIET,
        layer="stem",
    )


def test_several_labels(pages: Any) -> None:
    assert pages.task == "multi-label"
    assert isinstance(pages.evaluation, MultiLabelEvaluation)
    assert pages.score.name == "mAP"
    guess, pixels = pages.baselines
    assert (guess.name, pixels.name) == ("labels that most items have", "raw pixels")
    assert pages.score.score.value > guess.figures[0].score.value + 0.2
    assert guess.figures[0].score.value == pytest.approx(
        np.mean([row.support for row in pages.evaluation.per_label]) / pages.n_test, abs=0.15
    )
    assert any(note.startswith("threshold of each label") for note in pages.notes)
    with pytest.raises(DataError, match="there is no accuracy"):
        _ = pages.accuracy


def test_numbers(ink: Any) -> None:
    assert ink.task == "regression"
    assert isinstance(ink.evaluation, RegressionEvaluation)
    assert ink.classes == ("ink", "weight")
    mean = ink.baselines[0]
    assert mean.name == "mean of the training targets"
    assert ink.score.score.value > 0.5 > 0.1 > mean.figures[0].score.value
    first, second = ink.evaluation.per_target
    assert second.mean_absolute_error == pytest.approx(2 * first.mean_absolute_error, rel=0.05)


@pytest.mark.parametrize("name", ["pages", "ink"])
def test_the_folder_is_complete_and_opens_again(name: str, request: Any) -> None:
    run = request.getfixturevalue(name)
    said = json.loads((run.folder / "run.json").read_text())
    assert said["task"] == said["configuration"]["task"] == run.task
    metrics = json.loads((run.folder / "metrics.json").read_text())
    assert metrics["score"] == run.score.score.value
    figure = "labels.png" if name == "pages" else "values-1.png"
    for file in ("report.html", "predictions.csv", "predictions.parquet", figure, "curves.png"):
        assert (run.folder / file).stat().st_size > 500, file
    assert not (run.folder / "confusion.png").exists()
    assert {path.name for path in run.folder.iterdir()} <= KNOWN
    opened = open_run(run.folder)
    assert opened.evaluation.figures() == run.evaluation.figures()
    page = (run.folder / "report.html").read_text()
    assert run.score.name in page
    assert "baseline" in page


def test_predictions_follow_the_input(pages: Any, ink: Any, tables: Path, cache: Path) -> None:
    found = headstart.predict(tables / "pages.csv", pages.folder, cache=cache, reporter=QUIET)
    columns = found.columns()
    assert list(columns) == ["item", "prediction", *(f"probability of {i}" for i in range(4))]
    above = found.probabilities > pages.head.thresholds
    np.testing.assert_array_equal(found.values, above)
    assert found.labels[0] == "|".join(str(i) for i in np.flatnonzero(above[0]))
    found = headstart.predict(tables / "ink.csv", ink.folder, cache=cache, reporter=QUIET)
    assert list(found.columns()) == ["item", "prediction of ink", "prediction of weight"]
    with pytest.raises(DataError, match="does not predict labels"):
        _ = found.labels


def test_predictions_csv_has_the_truth(pages: Any, ink: Any) -> None:
    with (pages.folder / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    right = sum(row["right"] == "true" for row in rows)
    assert right / len(rows) == pytest.approx(pages.evaluation.exact_match.value)
    assert all((row["truth"] == row["prediction"]) == (row["right"] == "true") for row in rows)
    with (ink.folder / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    errors = [abs(float(row["error of ink"])) for row in rows]
    assert np.mean(errors) == pytest.approx(ink.evaluation.per_target[0].mean_absolute_error)


@pytest.mark.parametrize("name", ["pages", "ink"])
def test_evaluate_agrees_with_the_run(
    name: str, request: Any, tables: Path, cache: Path, tmp_path: Path
) -> None:
    run = request.getfixturevalue(name)
    again = headstart.evaluate(
        tables / f"{name}.csv", run.folder, cache=cache, reporter=QUIET, out=tmp_path / "again"
    )
    assert again.n == run.n_test
    for new, old in zip(again.figures(), run.evaluation.figures(), strict=True):
        assert new.score.value == pytest.approx(old.score.value)
    assert (tmp_path / "again" / "report.html").is_file()
    with pytest.raises(ConfigError, match="does not match the run"):
        headstart.evaluate(
            tables / f"{name}.csv", run.folder, cache=cache, task="classification", reporter=QUIET
        )


def test_what_has_no_meaning_is_refused(tables: Path, cache: Path) -> None:
    def fit(**more: Any) -> None:
        headstart.fit(
            tables / "ink.csv", GLYPHS, cache=cache, write=False, label_column="ink",
            reporter=QUIET, **more,
        )  # fmt: skip

    with pytest.raises(ConfigError, match="'lda', which cannot be trained for regression"):
        fit(head="lda")
    with pytest.raises(ConfigError, match="threshold does not apply to regression"):
        fit(threshold="balanced")
    with pytest.raises(ConfigError, match="class_weight does not apply to regression"):
        fit(class_weight="balanced")


def test_class_weights_and_thresholds_for_classes(cache: Path) -> None:
    """One digit in twenty is a 1; weights or the threshold find more of them."""
    digits, rng = load_digits(), np.random.default_rng(0)
    rest = rng.permutation(np.flatnonzero(digits.target != 1))[:380]
    chosen = rng.permutation(np.r_[np.flatnonzero(digits.target == 1)[:40], rest])
    noise = rng.normal(0, 90, digits.images[chosen].shape)
    x = np.clip(digits.images[chosen] * 16 + noise, 0, 255).astype(np.uint8)
    data = headstart.load_data((x, np.where(digits.target[chosen] == 1, "one", "other")))

    def recall(**more: Any) -> float:
        run = headstart.fit(
            data, GLYPHS, cache=cache, write=False, head="linear", reporter=QUIET, **more
        )
        assert run.baselines[0].name == "majority class"
        return float(next(row.recall for row in run.evaluation.per_class if row.label == "one"))

    plain = recall()
    assert recall(class_weight="balanced") > plain
    assert recall(threshold="balanced") > plain


def test_a_sweep_finds_the_layer(tables: Path, cache: Path, tmp_path: Path) -> None:
    """The share of ink is known at the stem, and lost behind it; labels are not known there."""
    layers = ("stem", "stage3.0")
    found = headstart.sweep(
        tables / "ink.csv", GLYPHS, layers=layers, label_column="ink", cache=cache,
        out=tmp_path / "ink", reporter=QUIET, standardise=(True, False),
    )  # fmt: skip
    assert found.sweep.winner.view.startswith("stem")
    assert len(found.sweep.candidates) == 4
    assert found.sweep.winner.figures[0].score.value > 0.9
    assert found.evaluation.r2.value > 0.9
    page = (tmp_path / "ink" / "report.html").read_text()
    assert "The sweep" in page
    assert "held-out R²" in page
    opened = open_run(tmp_path / "ink")
    assert opened.evaluation.r2.value == found.evaluation.r2.value
    found = headstart.sweep(
        tables / "pages.csv", GLYPHS, layers=layers, cache=cache, write=False, reporter=QUIET
    )
    assert found.sweep.winner.view.startswith("stage3.0")
    assert {each.head for each in found.sweep.candidates} == {"linear", "ridge"}
    assert found.run.head.thresholds is not None
    with pytest.raises(ConfigError, match="'lda', which cannot be trained for multi-label"):
        headstart.sweep(
            tables / "pages.csv", GLYPHS, heads=("lda",), cache=cache, write=False, reporter=QUIET
        )


@pytest.mark.slow
def test_as_a_user(tables: Path, tmp_path: Path) -> None:
    def run(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "headstart", *words, "--cache", str(tmp_path / "cache")],
            capture_output=True, text=True, cwd=tmp_path, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    said = run("fit", str(tables / "pages.csv"), "-b", GLYPHS, "-o", "run")
    assert "Task: multi-label, because column 'tags' of pages.csv holds several labels" in said
    assert "mAP" in said
    assert "prediction" in run("predict", "run", str(tables / "page0.png"))
